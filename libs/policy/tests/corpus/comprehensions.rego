# input {"body": {"items": [{"name": "a", "n": 1}, {"name": "b", "n": 6}, {"name": "c", "n": 7}]}} -> true
# input {"body": {"items": [{"name": "b", "n": 6}, {"name": "a", "n": 1}, {"name": "c", "n": 7}]}} -> false

package stategate.authz

names := [name | some item in input.body.items; name := item.name]
big := {item.name | some item in input.body.items; item.n > 5}
index := {item.name: item.n | some item in input.body.items}
allow if {
	names == ["a", "b", "c"]
	big == {"b", "c"}
	index.b == 6
}
