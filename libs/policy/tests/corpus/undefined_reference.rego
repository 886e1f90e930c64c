# input {"body": {"a": {"b": {"c": null}}}} -> true
# input {"body": {"a": {"b": {}}}} -> false
# input {"body": {"a": 1}} -> false
# input {"body": {}} -> false

package stategate.authz

x := input.body.a.b.c
allow if x == null
