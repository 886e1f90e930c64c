# input {"body": {"part": "a", "index": 1, "tree": {"a": [{}, {"ok": true}]}}} -> true
# input {"body": {"part": "a", "index": 0, "tree": {"a": [{}, {"ok": true}]}}} -> false
# input {"body": {"part": "b", "index": 1, "tree": {"a": []}}} -> false
# input {"body": {"part": "a", "index": -1, "tree": {"a": [{"ok": true}]}}} -> false

package stategate.authz

allow if {
	part := input.body.part
	input.body.tree[part][input.body.index].ok
}
