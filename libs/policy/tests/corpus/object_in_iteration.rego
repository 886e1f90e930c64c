# refused object patterns
# input {"body": {"items": [{"name": "alice"}]}} -> true
# input {"body": {"items": [{"name": "alice", "x": 1}]}} -> false

package stategate.authz

allow if { some {"name": name} in input.body.items; name == "alice" }
