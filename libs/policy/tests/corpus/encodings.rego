# input {"body": {"x": "aGVsbG8="}} -> true
# input {"body": {"x": "aGVsbG8"}} -> false

package stategate.authz

allow if { base64.decode(input.body.x) == "hello"; base64.encode("hello") == input.body.x; base64url.decode("aGk_") == "hi?"; urlquery.decode("a%2Fb+c") == "a/b c"; hex.encode("hi") == "6869" }
