# input {"body": {"n": 2}} -> true
# input {"body": {"n": 0}} -> false
# input {"body": {"n": 4}} -> false

package stategate.authz

allow if 10 / input.body.n == 5
