# What is answered or delivered is the tenant's own. The policy of requests sees to that already; this one holds should
# it have a mistake, and it holds for every event of a stream.
package stategate.authz

default allow := false

allow if {
	is_string(input.claims.tenant)
	every domain in domains {
		domain == input.claims.tenant
	}
}

# Of an entity, of an event, of a page of entities, and of a page of events or a transaction. Set and Del answer
# nothing, which is nobody else's.
domains contains input.body.domain

domains contains input.body.entity.domain

domains contains entity.domain if some entity in input.body.entities

domains contains event.entity.domain if some event in input.body.events
