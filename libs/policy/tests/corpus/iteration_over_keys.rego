# input {"body": {"values": {"ab": "x"}}} -> true
# input {"body": {"values": {"b": "x"}}} -> false
# input {"body": {"values": {"ab": "y", "b": "x"}}} -> false
# input {"body": {"values": ["x"]}} -> false

package stategate.authz

allow if { some key; input.body.values[key] == "x"; startswith(key, "a") }
