# input {"body": {"n": 5}} -> true
# input {"body": {"n": 4}} -> false
# input {"body": {"n": 13}} -> false

package stategate.authz

allow if { bits.and(input.body.n, 4) == 4; bits.lsh(input.body.n, 1) < 20; bits.or(input.body.n, 1) == input.body.n }
