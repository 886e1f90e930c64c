# input {"body": {"a": 1, "b": "a"}} -> true
# input {"body": {"a": "a", "b": 1}} -> false
# input {"body": {"a": null, "b": false}} -> true
# input {"body": {"a": [1, 2], "b": [1, 3]}} -> true
# input {"body": {"a": [2], "b": [1, 3]}} -> false
# input {"body": {"a": {"a": 1}, "b": {"a": 2}}} -> true
# input {"body": {"a": "B", "b": "a"}} -> true

package stategate.authz

allow if { null < false; true < 0; 5 < "a"; "a" < ["a"]; [9] < {"a": 1}; input.body.a < input.body.b }
