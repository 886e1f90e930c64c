# input {"body": {}} -> true
# input {"body": {"locked": true}} -> false
# input {"body": {"locked": false}} -> true
# input {"body": {"locked": null}} -> false

package stategate.authz

allow if not input.body.locked
