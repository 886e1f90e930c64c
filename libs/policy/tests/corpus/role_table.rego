# data {"roles": {"writer": ["/stategate.EntityService/*"], "reader": ["/stategate.EntityService/Get", "/stategate.EntityService/Search"]}}
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["writer"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> false
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Get", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": []}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> false
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["nobody", "writer"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> true

package stategate.authz

allow if {
	some role in input.claims.roles
	some pattern in data.roles[role]
	glob.match(pattern, ["/"], input.method)
}
