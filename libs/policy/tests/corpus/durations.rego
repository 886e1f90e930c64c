# input {"body": {"d": "1h"}} -> true
# input {"body": {"d": "59m30s"}} -> true
# input {"body": {"d": "61m"}} -> false
# input {"body": {"d": "x"}} -> false

package stategate.authz

allow if time.parse_duration_ns(input.body.d) <= 3600000000000
