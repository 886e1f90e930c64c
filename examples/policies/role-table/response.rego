# A request names one domain and one type, and nothing of another is in its answer: whoever may ask may see. Who may
# write sees what Edit, Revert and Transact answer, too.
package stategate.authz

allow := true
