# input {"body": {"a": 1, "b": 2, "c": 3}} -> true
# input {"body": {"a": 1, "b": 2}} -> false
# input {"body": {"a": 1, "b": false, "c": 1}} -> false

package stategate.authz

missing contains name if {
	some name in {"a", "b", "c"}
	not input.body[name]
}
allow if count(missing) == 0
