# input {"body": {"v": "1.2.3"}} -> true
# input {"body": {"v": "1.10.0"}} -> true
# input {"body": {"v": "1.2.3-rc1"}} -> false
# input {"body": {"v": "x"}} -> false

package stategate.authz

allow if semver.compare(input.body.v, "1.2.3") >= 0
