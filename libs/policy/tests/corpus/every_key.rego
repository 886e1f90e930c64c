# input {"body": {"values": {"pub_a": "x"}}} -> true
# input {"body": {"values": {"pub_a": 1}}} -> false
# input {"body": {"values": {"a": "x"}}} -> false
# input {"body": {"values": {}}} -> true

package stategate.authz

allow if every key, value in input.body.values { startswith(key, "pub_"); is_string(value) }
