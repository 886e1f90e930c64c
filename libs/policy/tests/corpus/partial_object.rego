# input {"body": {"items": [{"name": "x", "value": 1}]}} -> true
# input {"body": {"items": [{"name": "y", "value": 1}]}} -> false
# input {"body": {"items": []}} -> false

package stategate.authz

by_name[name] := value if {
	some item in input.body.items
	name := item.name
	value := item.value
}
allow if by_name.x == 1
