package tenant_isolation_response_test

import data.stategate.authz

answered(claims, method, body) := {
	"claims": claims,
	"method": method,
	"metadata": {},
	"body": body,
	"client_stream": false,
	"server_stream": method == "/stategate.EventService/Stream",
}

acme := {"sub": "ada", "tenant": "acme"}

entity(domain) := {"domain": domain, "type": "user", "key": "1", "values": {}, "version": "1"}

event(domain) := {
	"id": "1b4e28ba-2fa1-4d2b-883f-0016d3cca427",
	"entity": {"domain": domain, "type": "user", "key": "1", "values": {}},
	"claims": {"tenant": "acme"},
	"method": "/stategate.EntityService/Set",
	"version": "1",
	"position": "1",
}

test_an_entity_of_ones_own_is_shown if {
	authz.allow with input as answered(acme, "/stategate.EntityService/Get", entity("acme"))
	authz.allow with input as answered(acme, "/stategate.EntityService/Edit", entity("acme"))
}

test_an_entity_of_another_is_not if {
	not authz.allow with input as answered(acme, "/stategate.EntityService/Get", entity("globex"))
}

test_answers_with_nothing_in_them_are_sent if {
	authz.allow with input as answered(acme, "/stategate.EntityService/Set", {})
	authz.allow with input as answered(acme, "/stategate.EntityService/Search", {})
	authz.allow with input as answered(acme, "/stategate.EventService/Search", {"events": []})
}

test_a_page_is_shown_if_all_of_it_is_ones_own if {
	authz.allow with input as answered(acme, "/stategate.EntityService/Search", {"entities": [entity("acme"), entity("acme")]})
	not authz.allow with input as answered(acme, "/stategate.EntityService/Search", {"entities": [entity("acme"), entity("globex")]})
	authz.allow with input as answered(acme, "/stategate.EventService/Search", {"events": [event("acme")]})
	not authz.allow with input as answered(acme, "/stategate.EventService/Search", {"events": [event("globex"), event("acme")]})
}

test_an_event_is_delivered_if_it_is_ones_own if {
	authz.allow with input as answered(acme, "/stategate.EventService/Stream", event("acme"))
	not authz.allow with input as answered(acme, "/stategate.EventService/Stream", event("globex"))
	not authz.allow with input as answered(acme, "/stategate.EventService/Get", event("globex"))
}

test_the_events_of_a_transaction_are_ones_own if {
	authz.allow with input as answered(acme, "/stategate.EntityService/Transact", {"events": [event("acme"), event("acme")]})
	not authz.allow with input as answered(acme, "/stategate.EntityService/Transact", {"events": [event("acme"), event("globex")]})
}

test_who_wrote_it_plays_no_part if {
	not authz.allow with input as answered({"tenant": "globex"}, "/stategate.EventService/Stream", event("acme"))
}

test_a_caller_without_a_tenant_is_shown_nothing if {
	every claims in [{}, {"sub": "ada"}, {"tenant": null}, {"tenant": ["acme"]}, {"tenant": 1}] {
		not authz.allow with input as answered(claims, "/stategate.EntityService/Get", entity("acme"))
		not authz.allow with input as answered(claims, "/stategate.EventService/Stream", event("acme"))
		not authz.allow with input as answered(claims, "/stategate.EntityService/Set", {})
	}
}
