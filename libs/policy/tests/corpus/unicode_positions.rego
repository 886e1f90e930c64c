# input {"body": {"s": "éöσ😀"}} -> true
# input {"body": {"s": "😀"}} -> false

package stategate.authz

allow if indexof(input.body.s, "😀") == 3
