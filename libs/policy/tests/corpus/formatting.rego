# input {"body": {"s": "a", "n": 1, "l": [1, "x"], "r": "a:1:[1, \"x\"]"}} -> true
# input {"body": {"s": "a", "n": 1, "l": [], "r": "a:1:"}} -> false

package stategate.authz

allow if sprintf("%s:%d:%v", [input.body.s, input.body.n, input.body.l]) == input.body.r
