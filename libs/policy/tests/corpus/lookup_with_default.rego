# data {"limits": {"big": {"n": 100}}}
# input {"claims": {"plan": "big"}, "body": {"n": 50}} -> true
# input {"claims": {"plan": "none"}, "body": {"n": 2}} -> false
# input {"claims": {"plan": "none"}, "body": {"n": 1}} -> true
# input {"claims": {}, "body": {"n": 1}} -> false

package stategate.authz

limits := object.get(data.limits, input.claims.plan, {"n": 1})
allow if input.body.n <= limits.n
