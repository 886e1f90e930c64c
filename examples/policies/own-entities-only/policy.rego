# Every person has one entity, `people/profile/` and the `sub` of their token, and may do with it what they like.
package stategate.authz

default allow := false

profile if {
	input.body.domain == "people"
	input.body.type == "profile"
}

own(key) if {
	is_string(input.claims.sub)
	input.claims.sub != ""
	key == input.claims.sub
}

allow if {
	input.method in {
		"/stategate.EntityService/Set",
		"/stategate.EntityService/Edit",
		"/stategate.EntityService/Revert",
		"/stategate.EntityService/Del",
		"/stategate.EntityService/Get",
		"/stategate.EventService/Get",
	}
	profile
	own(input.body.key)
}

# Each operation is judged by the rule above.
allow if {
	input.method == "/stategate.EntityService/Transact"
	input.body.domain == "people"
}

# A search is of one's own events only if its filter says so. Were it left to the policy of answers, a refusal would
# tell that somebody else has what was searched for. All members of a filter must hold, so others may stand beside.
allow if {
	input.method == "/stategate.EventService/Search"
	profile
	own(json.unmarshal(input.body.queryString)["entity.key"])
}

# Of a stream, the policy of answers leaves out the events of others one by one, and nobody hears of them.
allow if {
	input.method == "/stategate.EventService/Stream"
	profile
}
