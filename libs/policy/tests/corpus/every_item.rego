# input {"body": {"items": [], "owner": "a"}} -> true
# input {"body": {"items": [{"owner": "a"}], "owner": "a"}} -> true
# input {"body": {"items": [{"owner": "a"}, {"owner": "b"}], "owner": "a"}} -> false
# input {"body": {"owner": "a"}} -> false

package stategate.authz

allow if every item in input.body.items { item.owner == input.body.owner }
