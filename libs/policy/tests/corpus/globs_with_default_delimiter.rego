# input {"body": {"s": "a.example.com"}} -> true
# input {"body": {"s": "a.b.example.com"}} -> false

package stategate.authz

allow if glob.match("*.example.com", [], input.body.s)
