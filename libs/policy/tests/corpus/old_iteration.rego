# input {"body": {"list": [{"tags": []}, {"tags": ["no", "ok"]}]}} -> true
# input {"body": {"list": [{"tags": ["no"]}]}} -> false
# input {"body": {"list": {"a": {"tags": ["ok"]}}}} -> true

package stategate.authz

allow if input.body.list[_].tags[_] == "ok"
