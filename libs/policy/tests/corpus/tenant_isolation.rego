# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "other", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> false
# input {} -> false
# input {"claims": {"sub": "alice", "tenant": null, "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> false

package stategate.authz

allow if input.claims.tenant == input.body.domain
