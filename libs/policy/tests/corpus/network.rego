# input {"body": {"ip": "10.2.3.4"}} -> true
# input {"body": {"ip": "10.1.3.4"}} -> false
# input {"body": {"ip": "11.0.0.1"}} -> false
# input {"body": {"ip": "x"}} -> false
# input {"body": {"ip": "10.2.0.0/16"}} -> true

package stategate.authz

allow if { net.cidr_contains("10.0.0.0/8", input.body.ip); not net.cidr_contains("10.1.0.0/16", input.body.ip) }
