# input {"body": {"p": "a/*", "s": "a/b"}} -> true
# input {"body": {"p": "a/*", "s": "a/b/c"}} -> false
# input {"body": {"p": "a/**", "s": "a/b/c"}} -> true
# input {"body": {"p": "{a,b}/?", "s": "b/x"}} -> true
# input {"body": {"p": "[!a]/b", "s": "a/b"}} -> false
# input {"body": {"p": "*", "s": ""}} -> true

package stategate.authz

allow if glob.match(input.body.p, ["/"], input.body.s)
