# input {"body": {"a": 1}} -> true
# input {"body": {"b": 1}} -> false
# input {"body": {"a": 1, "b": 1}} -> false
# input {"body": {}} -> false

package stategate.authz

allow := true if input.body.a
allow := false if input.body.b
