# input {"body": {"x": ["a"]}} -> true
# input {"body": {"x": "a"}} -> false
# input {"body": {"x": []}} -> false

package stategate.authz

depth(x) := 1 if is_string(x)
depth(x) := 1 + max([d | some item in x; d := inner(item)]) if is_array(x)
inner(x) := 1 if is_string(x)
allow if depth(input.body.x) == 2
