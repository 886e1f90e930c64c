# input {"body": {"l": [1, 2]}} -> true
# input {"body": {"l": [2, 1]}} -> false

package stategate.authz

allow if { array.concat(input.body.l, [3]) == [1, 2, 3]; array.slice(input.body.l, 1, 2) == [2]; array.slice(input.body.l, -1, 99) == [1, 2]; array.reverse(input.body.l) == [2, 1] }
