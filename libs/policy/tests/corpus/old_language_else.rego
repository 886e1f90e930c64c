# v0
# input {"body": {"banned": true, "list": [2, 3]}} -> false
# input {"body": {"list": [2, 3]}} -> true
# input {"body": {"list": [1, 2]}} -> false

package stategate.authz

allow = false {
	input.body.banned
} else = true {
	count([x | x := input.body.list[_]; x > 1]) > 1
}
