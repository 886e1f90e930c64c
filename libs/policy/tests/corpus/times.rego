# input {"body": {"t": "2024-01-08T10:00:00Z"}} -> true
# input {"body": {"t": "2024-01-08T13:00:00Z"}} -> false
# input {"body": {"t": "2024-01-09T10:00:00Z"}} -> false
# input {"body": {"t": "2023-01-02T10:00:00Z"}} -> false
# input {"body": {"t": "soon"}} -> false

package stategate.authz

allow if { t := time.parse_rfc3339_ns(input.body.t); t > time.parse_rfc3339_ns("2024-01-01T00:00:00Z"); time.weekday(t) == "Monday"; [h, _, _] := time.clock(t); h < 12 }
