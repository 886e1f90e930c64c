package role_table_response_test

import data.stategate.authz

test_whoever_may_ask_may_see if {
	authz.allow with input as {"claims": {"roles": ["auditor"]}, "method": "/stategate.EntityService/Get", "body": {}}
}
