# input {"body": {"banned": true, "n": 99}} -> false
# input {"body": {"n": 11}} -> true
# input {"body": {"n": 1, "flag": true}} -> true
# input {"body": {"n": 1, "flag": false}} -> false
# input {"body": {"n": 1}} -> false

package stategate.authz

allow := false if {
	input.body.banned
} else := true if {
	input.body.n > 10
} else := input.body.flag
