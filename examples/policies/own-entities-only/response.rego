# What is answered or delivered is the caller's own. In a stream this is what keeps the events of others away.
package stategate.authz

default allow := false

allow if {
	is_string(input.claims.sub)
	every entity in entities {
		entity.type == "profile"
		entity.key == input.claims.sub
	}
}

# Of an entity, of an event, of a page of entities, and of a page of events or a transaction. Set and Del answer
# nothing, which is nobody else's.
entities contains {"type": input.body.type, "key": input.body.key}

entities contains {"type": input.body.entity.type, "key": input.body.entity.key}

entities contains {"type": entity.type, "key": entity.key} if some entity in input.body.entities

entities contains {"type": event.entity.type, "key": event.entity.key} if some event in input.body.events
