# The claim `roles` names a caller's roles, and a table in the data document says what a role may do with which type of
# which domain (data.json; STATEGATE_POLICY_DATA_FILE). A changed table is in force within seconds.
package stategate.authz

default allow := false

# Domain and type stand in the table as they are: `*` in a stream's is no row of it, and so refused.
allow if {
	some grant in grants
	grant.domain == input.body.domain
	grant.type == input.body.type
	some permission in grant.may
	input.method in data.permissions[permission]
}

# A transaction as a whole names no type; each of its operations is judged by the rule above.
allow if {
	input.method == "/stategate.EntityService/Transact"
	some grant in grants
	grant.domain == input.body.domain
	"write" in grant.may
}

# Only of an array: a text has no items, and an object's members are not meant.
grants := [grant |
	is_array(input.claims.roles)
	some role in input.claims.roles
	some grant in data.roles[role]
]
