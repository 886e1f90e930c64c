# input {"body": {"a": 1}} -> false
# input {"body": {"b": 1}} -> true
# input {"body": {"a": 1, "b": 1}} -> false

package stategate.authz

allow := false if input.body.a
allow := true if input.body.b
