# input {"body": {"left": [1, 2], "right": [0, 1]}} -> true
# input {"body": {"left": [1], "right": [1]}} -> false
# input {"body": {"left": [], "right": [1]}} -> false

package stategate.authz

allow if {
	some i, a in input.body.left
	some j, c in input.body.right
	a == c
	i < j
}
