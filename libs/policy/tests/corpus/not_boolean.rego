# input {"body": {"x": true}} -> true
# input {"body": {"x": "true"}} -> false
# input {"body": {"x": 1}} -> false
# input {"body": {"x": [true]}} -> false
# input {"body": {"x": null}} -> false

package stategate.authz

allow := input.body.x
