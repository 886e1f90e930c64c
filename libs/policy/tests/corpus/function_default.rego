# input {"body": {"role": "admin"}} -> true
# input {"body": {"role": "writer"}} -> true
# input {"body": {"role": "x"}} -> false
# input {"body": {}} -> false

package stategate.authz

default level(_) := 0
level(role) := 2 if role == "admin"
level(role) := 1 if role == "writer"
allow if level(input.body.role) >= 1
