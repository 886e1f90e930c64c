# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"owner": "alice"}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"owners": ["x", "alice"]}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"owner": "bob"}, "client_stream": false, "server_stream": false} -> false

package stategate.authz

allow if owner(input.body, input.claims.sub)
owner(body, who) if body.owner == who
owner(body, who) if who in body.owners
