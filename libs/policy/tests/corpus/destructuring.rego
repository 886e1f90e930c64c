# refused object patterns
# input {"body": {"pair": ["user", {"name": "alice"}]}} -> true
# input {"body": {"pair": ["user", {"name": "bob"}]}} -> false
# input {"body": {"pair": ["user", {"name": "alice", "x": 1}]}} -> false
# input {"body": {"pair": ["user"]}} -> false

package stategate.authz

allow if { [kind, {"name": name}] := input.body.pair; kind == "user"; name == "alice" }
