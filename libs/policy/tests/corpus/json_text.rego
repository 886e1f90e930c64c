# input {"body": {"x": "{\"a\":[1,2]}", "m": "{\"k\":[1,\"é\",null]}"}} -> true
# input {"body": {"x": "{\"a\":[1]}", "m": ""}} -> false
# input {"body": {"x": "{", "m": ""}} -> false

package stategate.authz

allow if { json.is_valid(input.body.x); json.unmarshal(input.body.x).a[1] == 2; json.marshal({"k": [1, "é", null]}) == input.body.m }
