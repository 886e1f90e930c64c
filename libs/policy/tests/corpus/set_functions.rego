# input {"body": {"l": [1, 2, 1]}} -> true
# input {"body": {"l": [1]}} -> false

package stategate.authz

allow if { intersection({{1, 2}, {2, 3}}) == {2}; union({{1}, {2}}) == {1, 2}; {x | some x in input.body.l} == {1, 2}; count({1, 1.0, 2}) == 2 }
