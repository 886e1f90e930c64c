package own_entities_only_test

import data.stategate.authz

methods := [
	"/stategate.EntityService/Set",
	"/stategate.EntityService/Edit",
	"/stategate.EntityService/Revert",
	"/stategate.EntityService/Del",
	"/stategate.EntityService/Get",
	"/stategate.EventService/Get",
]

asked(claims, method, body) := {
	"claims": claims,
	"method": method,
	"metadata": {},
	"body": body,
	"client_stream": false,
	"server_stream": method == "/stategate.EventService/Stream",
}

ada := {"sub": "ada"}

profile(key) := {"domain": "people", "type": "profile", "key": key}

searched(filter) := {"domain": "people", "type": "profile", "queryString": filter}

test_ones_own_entity_is_ones_own if {
	every method in methods {
		authz.allow with input as asked(ada, method, profile("ada"))
	}
}

test_no_other_entity_is if {
	every method in methods {
		every key in ["bob", "Ada", "ada ", "adaa", "", "*", null, 1, ["ada"], {"ada": true}] {
			not authz.allow with input as asked(ada, method, profile(key))
		}
		not authz.allow with input as asked(ada, method, {"domain": "people", "type": "profile"})
		not authz.allow with input as asked(ada, method, {"domain": "people", "type": "salary", "key": "ada"})
		not authz.allow with input as asked(ada, method, {"domain": "shop", "type": "profile", "key": "ada"})
		not authz.allow with input as asked(ada, method, {"type": "profile", "key": "ada"})
		not authz.allow with input as asked(ada, method, {})
	}
}

test_a_caller_without_a_subject_has_nothing if {
	every claims in [{}, {"sub": ""}, {"sub": null}, {"Sub": "ada"}] {
		every key in ["", "ada", null] {
			not authz.allow with input as asked(claims, "/stategate.EntityService/Get", profile(key))
		}
		not authz.allow with input as asked(claims, "/stategate.EntityService/Get", {"domain": "people", "type": "profile"})
	}
}

test_a_subject_that_is_no_text_has_nothing if {
	every subject in [0, 1, true, ["ada"], {"ada": "ada"}] {
		not authz.allow with input as asked({"sub": subject}, "/stategate.EntityService/Get", profile(subject))
	}
}

test_a_search_of_ones_own_events_is_allowed if {
	authz.allow with input as asked(ada, "/stategate.EventService/Search", searched(`{"entity.key": "ada"}`))
	authz.allow with input as asked(ada, "/stategate.EventService/Search", searched(`{"entity.key": "ada", "method": {"$in": ["/stategate.EntityService/Set"]}}`))
}

test_any_other_search_of_events_is_refused if {
	every filter in [
		"",
		"{}",
		`{"entity.key": "bob"}`,
		`{"entity.key": {"$in": ["ada", "bob"]}}`,
		`{"entity.key": {"$ne": "bob"}}`,
		`{"entity.key": ["ada"]}`,
		`{"entity": {"key": "ada"}}`,
		`{"$or": [{"entity.key": "ada"}, {"entity.key": "bob"}]}`,
		`{"$nor": [{"entity.key": "ada"}]}`,
		`["entity.key", "ada"]`,
		`{"entity.key": "ada"`,
		"ada",
		"null",
	] {
		not authz.allow with input as asked(ada, "/stategate.EventService/Search", searched(filter))
	}
	not authz.allow with input as asked(ada, "/stategate.EventService/Search", {"domain": "people", "type": "profile"})
	not authz.allow with input as asked({}, "/stategate.EventService/Search", searched(`{"entity.key": null}`))
}

test_entities_cannot_be_searched if {
	not authz.allow with input as asked(ada, "/stategate.EntityService/Search", {"domain": "people", "type": "profile"})
	not authz.allow with input as asked(ada, "/stategate.EntityService/Search", searched(`{"entity.key": "ada"}`))
	not authz.allow with input as asked(ada, "/stategate.EntityService/Search", profile("ada"))
}

test_profiles_can_be_streamed_and_nothing_else if {
	authz.allow with input as asked(ada, "/stategate.EventService/Stream", {"domain": "people", "type": "profile"})
	authz.allow with input as asked(ada, "/stategate.EventService/Stream", profile("*"))
	every body in [
		{"domain": "*", "type": "profile"},
		{"domain": "people", "type": "*"},
		{"domain": "people", "type": "{profile,salary}"},
		{"domain": "people"},
		{},
	] {
		not authz.allow with input as asked(ada, "/stategate.EventService/Stream", body)
	}
}

# The gateway judges a transaction, and each of its operations as the call that it stands for.
test_a_transaction_is_judged_by_its_operations if {
	transact := {"domain": "people", "operations": [{"del": profile("bob")}]}
	authz.allow with input as asked(ada, "/stategate.EntityService/Transact", transact)
	not authz.allow with input as asked(ada, "/stategate.EntityService/Del", profile("bob"))
	not authz.allow with input as asked(ada, "/stategate.EntityService/Transact", {"domain": "*"})
	not authz.allow with input as asked(ada, "/stategate.EntityService/Transact", {"domain": "shop"})
}
