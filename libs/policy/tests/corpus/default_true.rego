# input {"body": {}} -> true
# input {"body": {"secret": true}} -> false
# input {"body": {"secret": false}} -> true
# input {"body": {"secret": 0}} -> false

package stategate.authz

default allow := true
allow := false if input.body.secret
