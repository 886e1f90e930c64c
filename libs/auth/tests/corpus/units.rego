# input {"body": {"b": "1MiB"}} -> true
# input {"body": {"b": "1MB"}} -> true
# input {"body": {"b": "2M"}} -> false
# input {"body": {"b": "1024K"}} -> true
# input {"body": {"b": "x"}} -> false

package stategate.authz

allow if units.parse_bytes(input.body.b) <= 1048576
