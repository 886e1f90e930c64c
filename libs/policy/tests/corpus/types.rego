# input {"body": {"s": "", "n": 0, "b": false, "a": [], "o": {}, "z": null}} -> true
# input {"body": {"s": 1, "n": 0, "b": false, "a": [], "o": {}, "z": null}} -> false

package stategate.authz

allow if { is_string(input.body.s); is_number(input.body.n); is_boolean(input.body.b); is_array(input.body.a); is_object(input.body.o); is_null(input.body.z); type_name(input.body.n) == "number" }
