# input {"body": {"pair": ["user", ["alice", 1]]}} -> true
# input {"body": {"pair": ["user", ["alice"]]}} -> false
# input {"body": {"pair": ["user", ["alice", 1, 2]]}} -> false
# input {"body": {"pair": ["user"]}} -> false
# input {"body": {"pair": {"0": "user"}}} -> false

package stategate.authz

allow if { [kind, [name, _]] := input.body.pair; kind == "user"; name == "alice" }
