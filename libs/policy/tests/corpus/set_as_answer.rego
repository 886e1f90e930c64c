# input {"body": {"l": [true]}} -> false
# input {"body": {"l": []}} -> false

package stategate.authz

allow contains x if some x in input.body.l
