# data {"prefixes": ["acme/", "beta/"]}
# input {"body": {"key": "acme/x"}} -> true
# input {"body": {"key": "other/x"}} -> false
# input {"body": {"key": ["z", "beta/"]}} -> true

package stategate.authz

allow if strings.any_prefix_match(input.body.key, data.prefixes)
