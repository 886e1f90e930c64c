package own_entities_only_response_test

import data.stategate.authz

answered(claims, method, body) := {
	"claims": claims,
	"method": method,
	"metadata": {},
	"body": body,
	"client_stream": false,
	"server_stream": method == "/stategate.EventService/Stream",
}

ada := {"sub": "ada"}

entity(key) := {"domain": "people", "type": "profile", "key": key, "values": {"key": "ada"}, "version": "1"}

event(key) := {
	"id": "1b4e28ba-2fa1-4d2b-883f-0016d3cca427",
	"entity": {"domain": "people", "type": "profile", "key": key, "values": {}},
	"claims": {"sub": "ada"},
	"method": "/stategate.EntityService/Set",
	"version": "1",
	"position": "1",
}

test_ones_own_entity_is_shown if {
	authz.allow with input as answered(ada, "/stategate.EntityService/Get", entity("ada"))
	not authz.allow with input as answered(ada, "/stategate.EntityService/Get", entity("bob"))
}

test_of_another_type_nothing_is_shown if {
	foreign := object.union(entity("ada"), {"type": "salary"})
	not authz.allow with input as answered(ada, "/stategate.EntityService/Get", foreign)
	not authz.allow with input as answered(ada, "/stategate.EntityService/Search", {"entities": [foreign]})
}

test_answers_with_nothing_in_them_are_sent if {
	authz.allow with input as answered(ada, "/stategate.EntityService/Set", {})
	authz.allow with input as answered(ada, "/stategate.EventService/Search", {})
}

test_a_page_with_something_of_others_is_not_shown if {
	authz.allow with input as answered(ada, "/stategate.EntityService/Search", {"entities": [entity("ada")]})
	not authz.allow with input as answered(ada, "/stategate.EntityService/Search", {"entities": [entity("ada"), entity("bob")]})
	authz.allow with input as answered(ada, "/stategate.EventService/Search", {"events": [event("ada"), event("ada")]})
	not authz.allow with input as answered(ada, "/stategate.EventService/Search", {"events": [event("bob"), event("ada")]})
	not authz.allow with input as answered(ada, "/stategate.EntityService/Transact", {"events": [event("bob")]})
}

test_events_of_others_are_left_out_of_a_stream if {
	authz.allow with input as answered(ada, "/stategate.EventService/Stream", event("ada"))
	not authz.allow with input as answered(ada, "/stategate.EventService/Stream", event("bob"))
	not authz.allow with input as answered(ada, "/stategate.EventService/Stream", event("*"))
}

test_a_caller_without_a_subject_is_shown_nothing if {
	every claims in [{}, {"sub": null}, {"sub": ["ada"]}, {"sub": 1}, {"name": "ada"}] {
		not authz.allow with input as answered(claims, "/stategate.EntityService/Get", entity("ada"))
		not authz.allow with input as answered(claims, "/stategate.EventService/Stream", event("ada"))
		not authz.allow with input as answered(claims, "/stategate.EntityService/Set", {})
	}
}
