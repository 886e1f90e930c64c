# refused walk
# input {"body": {"tree": {"a": {"b": "secret"}}}} -> true
# input {"body": {"tree": {"a": "secret"}}} -> false
# input {"body": {"tree": [[0, "secret"]]}} -> true

package stategate.authz

allow if { some path, value; walk(input.body.tree, [path, value]); value == "secret"; count(path) == 2 }
