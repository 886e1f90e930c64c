# input {"body": {"s": "éöσ😀"}} -> true
# input {"body": {"s": "😀"}} -> false

package stategate.authz

allow if substring(input.body.s, 1, 2) == "öσ"
