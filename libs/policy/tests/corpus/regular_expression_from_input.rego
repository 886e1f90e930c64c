# input {"body": {"p": "b"}} -> true
# input {"body": {"p": "^b"}} -> false
# input {"body": {"p": "("}} -> false
# input {"body": {"p": ""}} -> true

package stategate.authz

allow if regex.match(input.body.p, "abc")
