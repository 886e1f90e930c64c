# input {"body": {"s": "a.b.example.com"}} -> true
# input {"body": {"s": "a/b.example.com"}} -> true
# input {"body": {"s": "example.com"}} -> false

package stategate.authz

allow if glob.match("*.example.com", null, input.body.s)
