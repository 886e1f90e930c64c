# Whoever may ask may see.
package stategate.authz

allow := true
