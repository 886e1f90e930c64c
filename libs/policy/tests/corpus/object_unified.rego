# refused object patterns
# input {"body": {"o": {"name": "alice"}}} -> true
# input {"body": {"o": {"name": "alice", "x": 1}}} -> false

package stategate.authz

allow if { input.body.o = {"name": name}; name == "alice" }
