# input {"body": {"s": "éöσ😀"}} -> true
# input {"body": {"s": "😀"}} -> false

package stategate.authz

allow if strings.reverse(input.body.s) == "😀σöé"
