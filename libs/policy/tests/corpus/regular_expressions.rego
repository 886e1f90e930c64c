# input {"body": {"s": "abc-12", "r": "abc-##"}} -> true
# input {"body": {"s": "abc", "r": "abc"}} -> true
# input {"body": {"s": "test", "r": "test"}} -> false
# input {"body": {"s": "ABC", "r": "ABC"}} -> false
# input {"body": {"s": "abc\n", "r": "abc\n"}} -> false

package stategate.authz

allow if { regex.match(`^[a-z]+(-\d+)?$`, input.body.s); not regex.match("^test", input.body.s) }
