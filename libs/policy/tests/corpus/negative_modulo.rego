# input {"body": {"n": -1}} -> true
# input {"body": {"n": -4}} -> true
# input {"body": {"n": 2}} -> false

package stategate.authz

allow if input.body.n % 3 == -1
