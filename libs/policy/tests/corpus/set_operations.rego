# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["a", "b"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["a", "b", "c"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["a"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> false
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["a", "b", "banned"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> false
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["a", "b", "c", "d"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> false

package stategate.authz

have := {role | some role in input.claims.roles}
need := {"a", "b"}
allow if {
	need - have == set()
	have & {"banned"} == set()
	count(have | need) < 4
}
