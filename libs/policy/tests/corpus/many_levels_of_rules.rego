# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "x", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> false
# input {"claims": {"sub": "alice", "tenant": "x", "roles": ["admin"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "values": {"frozen": true}}, "client_stream": false, "server_stream": false} -> false
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Get", "metadata": {}, "body": {"domain": "acme", "values": {"frozen": true}}, "client_stream": false, "server_stream": false} -> true

package stategate.authz

is_admin if "admin" in input.claims.roles
same_tenant if input.claims.tenant == input.body.domain
may_write if { same_tenant; not input.body.values.frozen }
may_write if is_admin
may_read if same_tenant
may_read if is_admin
allow if { input.method == "/stategate.EntityService/Get"; may_read }
allow if { input.method != "/stategate.EntityService/Get"; may_write }
