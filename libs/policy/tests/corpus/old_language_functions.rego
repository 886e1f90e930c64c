# v0
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"owner": "alice"}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"owners": ["alice"]}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {}, "client_stream": false, "server_stream": false} -> false

package stategate.authz

allow { is_owner(input.claims.sub, input.body) }
is_owner(who, body) { body.owner == who }
is_owner(who, body) = true { body.owners[_] == who }
names[n] = v { v := input.body.names[n] }
