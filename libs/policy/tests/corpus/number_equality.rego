# input {"body": {"a": 1, "b": 1.0}} -> true
# input {"body": {"a": 0, "b": -0.0}} -> true
# input {"body": {"a": 0.1, "b": 0.1}} -> true
# input {"body": {"a": 1, "b": "1"}} -> false
# input {"body": {"a": true, "b": 1}} -> false
# input {"body": {"a": 9007199254740991, "b": 9007199254740990}} -> false
# input {"body": {"a": 1e+300, "b": 1e+300}} -> true

package stategate.authz

allow if input.body.a == input.body.b
