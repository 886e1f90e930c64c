# input {"body": {"s": "Abc-Def"}} -> true
# input {"body": {"s": "abc-def"}} -> false
# input {"body": {"s": ""}} -> false
# input {"body": {"s": null}} -> false

package stategate.authz

allow if {
	s := input.body.s
	lower(s) == "abc-def"
	upper(s) == "ABC-DEF"
	split(s, "-") == ["Abc", "Def"]
	concat("+", split(s, "-")) == "Abc+Def"
	replace(s, "-", "") == "AbcDef"
	trim(s, "Af") == "bc-De"
	substring(s, 4, -1) == "Def"
	indexof(s, "D") == 4
	contains(s, "c-D")
	endswith(s, "ef")
	trim_prefix(s, "Abc") == "-Def"
	trim_space("  x ") == "x"
	strings.reverse(s) == "feD-cbA"
}
