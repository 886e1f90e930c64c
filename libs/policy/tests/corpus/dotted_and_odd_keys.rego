# input {"body": {"a.b": {"$c": {"": 1}}}, "metadata": {"x-region": "eu"}} -> true
# input {"body": {"a": {"b": 1}}, "metadata": {"x-region": "eu"}} -> false

package stategate.authz

allow if { input.body["a.b"]["$c"][""] == 1; input.metadata["x-region"] == "eu" }
