package read_only_role_response_test

import data.stategate.authz

test_whoever_may_ask_may_see if {
	authz.allow with input as {"claims": {"roles": ["reader"]}, "method": "/stategate.EntityService/Get", "body": {}}
}
