# input {"body": {"l": [1, 1]}} -> true
# input {"body": {"l": [1, 2]}} -> false
# input {"body": {"l": [1]}} -> false

package stategate.authz

allow if { input.body.l = [x, y]; x = y }
