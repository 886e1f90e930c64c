# refused object patterns
# input {"body": {"name": "alice"}} -> true
# input {"body": {"name": "alice", "x": 1}} -> false
# input {"body": {}} -> false

package stategate.authz

named({"name": name}) := name
allow if named(input.body) == "alice"
