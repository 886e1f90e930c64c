# input {"body": {"n": 3}} -> true
# input {"body": {"n": 3.0}} -> true
# input {"body": {"n": 4}} -> false
# input {"body": {"n": 2.5}} -> false
# input {"body": {"n": 11}} -> false
# input {"body": {"n": -1}} -> false
# input {"body": {"n": "3"}} -> false

package stategate.authz

allow if { x := input.body.n; x >= 1; x < 10; x % 2 == 1; x * 2 == x + x; x / 2 > 0 }
