# input {"body": {"s": "éöσ😀"}} -> true
# input {"body": {"s": "😀"}} -> false

package stategate.authz

allow if upper(input.body.s) == "ÉÖΣ😀"
