# input {"body": {"n": 5}} -> true
# input {"body": {"n": 6}} -> false
# input {"body": {"n": 1.0}} -> true
# input {"body": {"n": 1.5}} -> false

package stategate.authz

allow if input.body.n in numbers.range(1, 5)
