# A caller whose claim `roles` has `reader` may read everything and change nothing; one with `writer` may do both.
package stategate.authz

default allow := false

# By name: a method that is new one day is no read before it is written here.
reads := {
	"/stategate.EntityService/Get",
	"/stategate.EntityService/Search",
	"/stategate.EventService/Get",
	"/stategate.EventService/Search",
	"/stategate.EventService/Stream",
}

allow if {
	is_array(input.claims.roles)
	"reader" in input.claims.roles
	input.method in reads
}

allow if {
	is_array(input.claims.roles)
	"writer" in input.claims.roles
}
