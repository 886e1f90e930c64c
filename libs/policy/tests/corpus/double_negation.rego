# input {"body": {"ok": 1}} -> true
# input {"body": {}} -> false

package stategate.authz

denied if not input.body.ok
allow if not denied
