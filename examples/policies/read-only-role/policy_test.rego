package read_only_role_test

import data.stategate.authz

reads := [
	"/stategate.EntityService/Get",
	"/stategate.EntityService/Search",
	"/stategate.EventService/Get",
	"/stategate.EventService/Search",
	"/stategate.EventService/Stream",
]

writes := [
	"/stategate.EntityService/Set",
	"/stategate.EntityService/Edit",
	"/stategate.EntityService/Revert",
	"/stategate.EntityService/Del",
	"/stategate.EntityService/Transact",
]

asked(claims, method) := {
	"claims": claims,
	"method": method,
	"metadata": {},
	"body": {"domain": "acme", "type": "user", "key": "1"},
	"client_stream": false,
	"server_stream": method == "/stategate.EventService/Stream",
}

test_a_reader_reads if {
	every method in reads {
		authz.allow with input as asked({"roles": ["reader"]}, method)
	}
}

test_a_reader_does_not_write if {
	every method in writes {
		not authz.allow with input as asked({"roles": ["reader"]}, method)
	}
}

test_a_writer_does_both if {
	every method in array.concat(reads, writes) {
		authz.allow with input as asked({"roles": ["writer"]}, method)
		authz.allow with input as asked({"roles": ["reader", "writer"]}, method)
	}
}

test_others_do_nothing if {
	every method in array.concat(reads, writes) {
		every claims in [{}, {"roles": []}, {"roles": ["Reader"]}, {"role": "reader"}, {"sub": "reader"}] {
			not authz.allow with input as asked(claims, method)
		}
	}
}

test_roles_that_are_no_array_are_none if {
	every roles in ["reader", "writer", null, 0, true, {"reader": "reader"}, {"0": "writer"}, [["writer"]]] {
		not authz.allow with input as asked({"roles": roles}, "/stategate.EntityService/Get")
		not authz.allow with input as asked({"roles": roles}, "/stategate.EntityService/Set")
	}
}

test_a_method_that_nobody_knows_is_no_read if {
	every method in ["/stategate.EntityService/Erase", "/stategate.EntityService/Get/", "Get", "", null, ["/stategate.EntityService/Get"]] {
		not authz.allow with input as asked({"roles": ["reader"]}, method)
	}
	not authz.allow with input as {"claims": {"roles": ["reader"]}}
}

# An operation of a transaction is judged as the call that it stands for, which is a write.
test_a_reader_cannot_write_within_a_transaction if {
	request := asked({"roles": ["reader"]}, "/stategate.EntityService/Transact")
	not authz.allow with input as object.union(request, {"body": {
		"domain": "acme",
		"operations": [{"del": {"domain": "acme", "type": "user", "key": "1"}}],
	}})
	not authz.allow with input as asked({"roles": ["reader"]}, "/stategate.EntityService/Del")
}
