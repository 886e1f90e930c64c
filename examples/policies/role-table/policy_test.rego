package role_table_test

import data.stategate.authz

asked(roles, method, body) := {
	"claims": {"sub": "ada", "roles": roles},
	"method": method,
	"metadata": {},
	"body": body,
	"client_stream": false,
	"server_stream": method == "/stategate.EventService/Stream",
}

invoice := {"domain": "accounting", "type": "invoice", "key": "2026-1"}

customer := {"domain": "accounting", "type": "customer", "key": "7"}

test_a_role_may_do_what_the_table_says if {
	every method in array.concat(data.permissions.read, data.permissions.write) {
		authz.allow with input as asked(["bookkeeper"], method, invoice)
	}
	every method in data.permissions.read {
		authz.allow with input as asked(["bookkeeper"], method, customer)
		authz.allow with input as asked(["auditor"], method, customer)
	}
}

test_a_role_may_do_nothing_else if {
	every method in data.permissions.write {
		not authz.allow with input as asked(["bookkeeper"], method, customer)
		not authz.allow with input as asked(["auditor"], method, invoice)
	}
	every method in data.permissions.read {
		not authz.allow with input as asked(["bookkeeper"], method, {"domain": "shop", "type": "order", "key": "1"})
	}
}

test_permissions_of_several_roles_add_up if {
	authz.allow with input as asked(["auditor", "sales"], "/stategate.EntityService/Set", customer)
	not authz.allow with input as asked(["auditor", "sales"], "/stategate.EntityService/Set", invoice)
}

# A row of `sales` for one domain and a row of `bookkeeper` for another do not make a third.
test_rows_are_not_mixed if {
	not authz.allow with input as asked(["bookkeeper", "sales"], "/stategate.EntityService/Get", {
		"domain": "shop",
		"type": "invoice",
		"key": "1",
	})
}

test_without_a_known_role_nothing_is_allowed if {
	every roles in [[], ["nobody"], ["Bookkeeper"], ["bookkeeper "], [null], [0], [["bookkeeper"]], [{"bookkeeper": true}]] {
		not authz.allow with input as asked(roles, "/stategate.EntityService/Get", invoice)
	}
}

test_roles_that_are_no_array_are_none if {
	every roles in ["bookkeeper", null, 0, true, {"bookkeeper": true}, {"0": "bookkeeper"}] {
		not authz.allow with input as asked(roles, "/stategate.EntityService/Get", invoice)
	}
	not authz.allow with input as {"claims": {"sub": "ada"}, "method": "/stategate.EntityService/Get", "body": invoice}
	not authz.allow with input as {"method": "/stategate.EntityService/Get", "body": invoice}
}

test_streams_name_one_domain_and_one_type if {
	authz.allow with input as asked(["auditor"], "/stategate.EventService/Stream", {"domain": "accounting", "type": "invoice"})
	every body in [
		{"domain": "*", "type": "*"},
		{"domain": "accounting", "type": "*"},
		{"domain": "*", "type": "invoice"},
		{"domain": "accounting", "type": "{invoice,salary}"},
		{"domain": "accounting"},
		{"type": "invoice"},
		{},
	] {
		not authz.allow with input as asked(["auditor"], "/stategate.EventService/Stream", body)
	}
}

# The gateway judges a transaction, and each of its operations as the call that it stands for.
test_a_transaction_is_for_those_who_write_in_its_domain if {
	transact := {"domain": "accounting", "operations": [{"set": customer}]}
	authz.allow with input as asked(["bookkeeper"], "/stategate.EntityService/Transact", transact)
	authz.allow with input as asked(["sales"], "/stategate.EntityService/Transact", transact)
	not authz.allow with input as asked(["auditor"], "/stategate.EntityService/Transact", transact)
	not authz.allow with input as asked(["bookkeeper"], "/stategate.EntityService/Transact", {"domain": "shop"})
	not authz.allow with input as asked(["bookkeeper"], "/stategate.EntityService/Set", customer)
	not authz.allow with input as asked(["bookkeeper"], "/stategate.EntityService/Set", {
		"domain": "shop",
		"type": "invoice",
		"key": "1",
	})
}

test_methods_that_are_not_in_the_table_are_refused if {
	every method in ["/stategate.EntityService/Erase", "", "Get", "/stategate.EntityService/get", null, 1, ["/stategate.EntityService/Get"]] {
		not authz.allow with input as asked(["bookkeeper", "sales", "auditor"], method, invoice)
	}
}

test_the_table_decides if {
	request := asked(["intern"], "/stategate.EntityService/Get", invoice)
	not authz.allow with input as request
	authz.allow with input as request
		with data.roles as {"intern": [{"domain": "accounting", "type": "invoice", "may": ["read"]}]}
	not authz.allow with input as asked(["bookkeeper"], "/stategate.EntityService/Get", invoice) with data.roles as {}
}
