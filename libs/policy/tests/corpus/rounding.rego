# input {"body": {"n": 2.5, "f": 2, "c": 3}} -> true
# input {"body": {"n": 3.4, "f": 3, "c": 4}} -> true
# input {"body": {"n": 2.4, "f": 2, "c": 3}} -> false

package stategate.authz

allow if { round(input.body.n) == 3; floor(input.body.n) == input.body.f; ceil(input.body.n) == input.body.c; abs(0 - input.body.n) == input.body.n }
