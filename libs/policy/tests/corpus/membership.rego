# input {"body": {"list": ["x"], "object": {"k": 1, "l": 2}}} -> true
# input {"body": {"list": ["x"], "object": {"k": 2}}} -> false
# input {"body": {"list": "x", "object": {}}} -> false

package stategate.authz

allow if { "x" in input.body.list; "k", 1 in input.body.object; 2 in input.body.object }
