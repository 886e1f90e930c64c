# input {"body": {"b": 1048576}} -> true
# input {"body": {"b": 1048577}} -> false
# input {"body": {"b": "1"}} -> false

package stategate.authz

allow if input.body.b <= units.parse_bytes("1MiB")
