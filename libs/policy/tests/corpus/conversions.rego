# input {"body": {"x": "5"}} -> true
# input {"body": {"x": 5}} -> true
# input {"body": {"x": "5.0"}} -> true
# input {"body": {"x": "five"}} -> false
# input {"body": {"x": [5]}} -> false
# input {"body": {"x": null}} -> false

package stategate.authz

allow if to_number(input.body.x) == 5
