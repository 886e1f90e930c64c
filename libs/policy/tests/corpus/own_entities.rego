# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"type": "profile", "key": "alice"}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"type": "profile", "key": "bob"}, "client_stream": false, "server_stream": false} -> false
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["admin"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> true

package stategate.authz

allow if {
	input.body.type == "profile"
	input.body.key == input.claims.sub
}
allow if "admin" in input.claims.roles
