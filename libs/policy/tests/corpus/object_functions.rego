# input {"body": {"o": {"x": 1, "y": 2}}} -> true
# input {"body": {"o": {"x": 1, "y": 2}, "a": null}} -> false
# input {"body": {"o": {"x": 1}}} -> false

package stategate.authz

allow if {
	object.get(input.body, "a", 7) == 7
	object.get(input.body, ["b", "c"], 8) == 8
	object.keys(input.body.o) == {"x", "y"}
	object.remove(input.body.o, ["x"]) == {"y": 2}
	object.union(input.body.o, {"z": 3}) == {"x": 1, "y": 2, "z": 3}
	object.filter(input.body.o, ["y"]) == {"y": 2}
	object.subset(input.body.o, {"x": 1})
}
