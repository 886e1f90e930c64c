# refused walk
# input {"body": {"a": [{"b": "x"}]}} -> true
# input {"body": {"a": [{"b": "secret-1"}]}} -> false

package stategate.authz

found contains value if {
	walk(input.body, [_, value])
	is_string(value)
	startswith(value, "secret")
}
allow if count(found) == 0
