# input {"body": {"s": "éöσ"}} -> true
# input {"body": {"s": "eo"}} -> false

package stategate.authz

allow if { count(input.body.s) == 3; upper(input.body.s) == "ÉÖΣ"; startswith(input.body.s, "éö") }
