package tenant_isolation_test

import data.stategate.authz

methods := [
	"/stategate.EntityService/Set",
	"/stategate.EntityService/Edit",
	"/stategate.EntityService/Revert",
	"/stategate.EntityService/Del",
	"/stategate.EntityService/Transact",
	"/stategate.EntityService/Get",
	"/stategate.EntityService/Search",
	"/stategate.EventService/Search",
	"/stategate.EventService/Get",
	"/stategate.EventService/Stream",
]

asked(claims, method, body) := {
	"claims": claims,
	"method": method,
	"metadata": {},
	"body": body,
	"client_stream": false,
	"server_stream": method == "/stategate.EventService/Stream",
}

acme := {"sub": "ada", "tenant": "acme"}

test_a_tenant_has_its_own_state if {
	every method in methods {
		authz.allow with input as asked(acme, method, {"domain": "acme", "type": "user", "key": "1"})
	}
}

test_a_tenant_has_no_state_of_another if {
	every method in methods {
		not authz.allow with input as asked(acme, method, {"domain": "globex", "type": "user", "key": "1"})
	}
}

test_names_are_compared_whole_and_as_they_are if {
	every domain in ["Acme", "acme ", "acme/", "acme\u0000", "acm", "acmee", "", null, 1, ["acme"], {"acme": true}] {
		not authz.allow with input as asked(acme, "/stategate.EntityService/Get", {"domain": domain, "type": "user"})
	}
}

test_a_call_without_a_domain_is_nobodys if {
	not authz.allow with input as asked(acme, "/stategate.EntityService/Get", {"type": "user", "key": "1"})
	not authz.allow with input as asked(acme, "/stategate.EntityService/Get", {})
	not authz.allow with input as {"claims": acme}
}

test_a_stream_of_several_domains_is_refused if {
	every domain in ["*", "**", "acm?", "acme*", "{acme,globex}", "[a-z]cme", "\\acme", "a[!b]me"] {
		not authz.allow with input as asked(acme, "/stategate.EventService/Stream", {"domain": domain, "type": "*"})
	}
}

test_a_stream_of_all_types_of_ones_own_domain_is_allowed if {
	authz.allow with input as asked(acme, "/stategate.EventService/Stream", {"domain": "acme", "type": "*", "key": "*"})
}

test_a_tenant_whose_name_is_a_glob_has_nothing if {
	every name in ["*", "ac*", "acm?", "{acme,globex}", "[a]cme", "acm[e", "acme]", "a}", "\\acme"] {
		every method in methods {
			not authz.allow with input as asked({"tenant": name}, method, {"domain": name, "type": "user", "key": "1"})
		}
	}
}

test_a_caller_without_a_tenant_has_nothing if {
	every claims in [{}, {"sub": "ada"}, {"Tenant": "acme"}, {"tenant": ""}, {"tenant": null}, {"tenant": ["acme"]}] {
		not authz.allow with input as asked(claims, "/stategate.EntityService/Get", {"domain": "acme", "type": "user"})
		not authz.allow with input as asked(claims, "/stategate.EntityService/Get", {"domain": "", "type": "user"})
		not authz.allow with input as asked(claims, "/stategate.EntityService/Get", {"type": "user"})
	}
}

test_a_tenant_that_is_no_text_has_nothing if {
	every tenant in [0, 1, true, false, null, ["acme"], {"acme": "acme"}] {
		not authz.allow with input as asked({"tenant": tenant}, "/stategate.EntityService/Get", {"domain": tenant})
		not authz.allow with input as asked({"tenant": tenant}, "/stategate.EntityService/Get", {"domain": "acme"})
	}
}

# The gateway judges a transaction, and each of its operations as the call that it stands for.
test_a_transaction_of_ones_own_domain_is_allowed if {
	authz.allow with input as asked(acme, "/stategate.EntityService/Transact", {
		"domain": "acme",
		"operations": [{"set": {"domain": "acme", "type": "user", "key": "1", "values": {}}}],
	})
	authz.allow with input as asked(acme, "/stategate.EntityService/Set", {
		"domain": "acme",
		"type": "user",
		"key": "1",
		"values": {},
	})
}

test_an_operation_in_another_domain_is_refused if {
	not authz.allow with input as asked(acme, "/stategate.EntityService/Del", {"domain": "globex", "type": "user", "key": "1"})
	not authz.allow with input as asked(acme, "/stategate.EntityService/Transact", {
		"domain": "globex",
		"operations": [{"del": {"domain": "acme", "type": "user", "key": "1"}}],
	})
}

test_what_is_written_plays_no_part if {
	not authz.allow with input as asked(acme, "/stategate.EntityService/Set", {
		"domain": "globex",
		"type": "user",
		"key": "acme",
		"values": {"domain": "acme", "tenant": "acme"},
	})
}

test_metadata_plays_no_part if {
	request := asked({"tenant": "globex"}, "/stategate.EntityService/Get", {"domain": "acme", "type": "user", "key": "1"})
	not authz.allow with input as object.union(request, {"metadata": {"tenant": "acme", "x-tenant": "acme"}})
}
