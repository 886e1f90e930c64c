# input {"body": {"x": "five"}} -> true
# input {"body": {"x": "5"}} -> false

package stategate.authz

allow if not to_number(input.body.x)
