# input {"body": {"l": [3, 1, 2]}} -> true
# input {"body": {"l": [6, 1, -1]}} -> false
# input {"body": {"l": []}} -> false

package stategate.authz

allow if { sum(input.body.l) == 6; product(input.body.l) == 6; max(input.body.l) == 3; min(input.body.l) == 1; count(input.body.l) == 3; sort(input.body.l) == [1, 2, 3] }
