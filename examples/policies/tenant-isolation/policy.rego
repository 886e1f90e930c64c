# Every caller has the state of one tenant, and no other: the claim `tenant` names it, and it is the domain of
# all of the tenant's entities.
package stategate.authz

default allow := false

# Whatever is called names one domain: that of the entity, of the search, of the stream or of the transaction. The
# operations of a transaction are judged one by one as well, each with its own domain.
allow if {
	input.body.domain == tenant
}

# A tenant has a plain name. A stream takes its domain as a glob, and a tenant that is called `*` would have them all.
tenant := input.claims.tenant if {
	is_string(input.claims.tenant)
	input.claims.tenant != ""
	not regex.match(`[*?\[\]{}\\]`, input.claims.tenant)
}
