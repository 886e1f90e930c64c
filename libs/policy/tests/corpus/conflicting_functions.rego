# input {"body": {"n": 5}} -> true
# input {"body": {"n": 11}} -> false
# input {"body": {"n": 0}} -> false

package stategate.authz

level(x) := 1 if x > 0
level(x) := 2 if x > 10
allow if level(input.body.n) == 1
