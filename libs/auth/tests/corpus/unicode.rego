# input {"body": {"s": "éöσ😀"}} -> true
# input {"body": {"s": "eo"}} -> false

package stategate.authz

allow if { count(input.body.s) == 4; upper(input.body.s) == "ÉÖΣ😀"; substring(input.body.s, 1, 2) == "öσ"; indexof(input.body.s, "😀") == 3; strings.reverse(input.body.s) == "😀σöé" }
