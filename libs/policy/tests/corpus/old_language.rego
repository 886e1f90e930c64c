# v0
# data {"banned": ["mallory"]}
# input {"claims": {"sub": "alice", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> true
# input {"claims": {"sub": "mallory", "tenant": "acme", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> false
# input {"claims": {"sub": "alice", "tenant": "x", "roles": ["reader"]}, "method": "/stategate.EntityService/Set", "metadata": {}, "body": {"domain": "acme", "type": "user", "key": "k1", "values": {"n": 1, "s": "x"}}, "client_stream": false, "server_stream": false} -> false

package stategate.authz

default allow = false
allow {
	input.claims.tenant == input.body.domain
	not banned[input.claims.sub]
}
banned[who] { who := data.banned[_] }
