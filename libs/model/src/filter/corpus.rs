//! Documents and filters whose answers were worked out by hand from contract §5.
//!
//! They are the fixed point between the evaluator and every storage: whoever answers one of these
//! otherwise is wrong, the evaluator included. Where the answer is long, a condition on `g` keeps it
//! to one group of documents.

mod events;

pub use events::{event_cases, events};

/// A filter and what is expected of it.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The text of the filter.
    pub filter: &'static str,
    /// What it answers.
    pub expect: Expected,
}

/// What a filter answers.
#[derive(Debug, Clone, Copy)]
pub enum Expected {
    /// It matches these, in order of their keys, and nothing else.
    Keys(&'static [&'static str]),
    /// It is refused, and the problem has this in it.
    Refused(&'static str),
}

const fn keys(filter: &'static str, keys: &'static [&'static str]) -> Case {
    Case {
        filter,
        expect: Expected::Keys(keys),
    }
}

const fn refused(filter: &'static str, fragment: &'static str) -> Case {
    Case {
        filter,
        expect: Expected::Refused(fragment),
    }
}

/// The documents: a key and the values as JSON.
///
/// By the first letter of the key: `n` has scalars at `v`, `s` strings at `t`, `r` arrays at `l`, `o`
/// objects and arrays of objects at `o`, `k` unusual keys.
pub fn documents() -> Vec<(&'static str, &'static str)> {
    vec![
        ("n0", r#"{"g":"n","v":0}"#),
        ("n1", r#"{"g":"n","v":1}"#),
        ("n2", r#"{"g":"n","v":-1.5}"#),
        ("n3", r#"{"g":"n","v":1e300}"#),
        ("n4", r#"{"g":"n","v":9007199254740992}"#),
        ("n5", r#"{"g":"n","v":0.1}"#),
        ("n6", r#"{"g":"n","v":5e-324}"#),
        ("n7", r#"{"g":"n","v":"1"}"#),
        ("n8", r#"{"g":"n","v":true}"#),
        ("n9", r#"{"g":"n","v":null}"#),
        ("na", r#"{"g":"n"}"#),
        ("nb", r#"{"g":"n","v":-0.0}"#),
        ("nc", r#"{"g":"n","v":1.7976931348623157e308}"#),
        ("nd", r#"{"g":"n","v":false}"#),
        ("ne", r#"{"g":"n","v":0.30000000000000004}"#),
        ("nf", r#"{"g":"n","v":{}}"#),
        ("ng", r#"{"g":"n","v":[]}"#),
        ("s0", r#"{"g":"s","t":""}"#),
        ("s1", r#"{"g":"s","t":"a"}"#),
        ("s2", r#"{"g":"s","t":"A"}"#),
        ("s3", r#"{"g":"s","t":"ab"}"#),
        ("s4", r#"{"g":"s","t":"abc"}"#),
        ("s5", r#"{"g":"s","t":"b"}"#),
        ("s6", r#"{"g":"s","t":"\u00e9"}"#),
        ("s7", r#"{"g":"s","t":"e\u0301"}"#),
        ("s8", r#"{"g":"s","t":"\uff5e"}"#),
        ("s9", r#"{"g":"s","t":"\ud83d\ude00"}"#),
        ("sa", r#"{"g":"s","t":"100%_done"}"#),
        ("sb", r#"{"g":"s","t":"a.b"}"#),
        ("sc", r#"{"g":"s","t":"10"}"#),
        ("sd", r#"{"g":"s","t":"9"}"#),
        ("se", r#"{"g":"s","t":"line\nbreak \"q\" \\ back"}"#),
        ("sf", r#"{"g":"s","t":5}"#),
        ("r0", r#"{"g":"r","l":[]}"#),
        ("r1", r#"{"g":"r","l":[1,2,3]}"#),
        ("r2", r#"{"g":"r","l":[[1,2],[3]]}"#),
        ("r3", r#"{"g":"r","l":[null]}"#),
        ("r4", r#"{"g":"r","l":["a","b"]}"#),
        ("r5", r#"{"g":"r","l":[5,15]}"#),
        ("r6", r#"{"g":"r","l":[10]}"#),
        ("r7", r#"{"g":"r","l":10}"#),
        ("r8", r#"{"g":"r","l":null}"#),
        ("r9", r#"{"g":"r"}"#),
        ("ra", r#"{"g":"r","l":[1,2]}"#),
        ("rb", r#"{"g":"r","l":[{"x":1},{"x":2}]}"#),
        ("rc", r#"{"g":"r","l":[[]]}"#),
        ("rd", r#"{"g":"r","l":[true,"a"]}"#),
        ("o0", r#"{"g":"o","o":{"x":{"y":1}}}"#),
        ("o1", r#"{"g":"o","o":{"x":[{"y":1},{"y":2}]}}"#),
        ("o2", r#"{"g":"o","o":[{"x":{"y":1}},{"x":{"y":3}}]}"#),
        ("o3", r#"{"g":"o","o":{"x":{"y":[1,4]}}}"#),
        ("o4", r#"{"g":"o","o":{"x":[[{"y":1}]]}}"#),
        ("o5", r#"{"g":"o","o":{"x":{}}}"#),
        ("o6", r#"{"g":"o","o":{"x":null}}"#),
        ("o7", r#"{"g":"o","o":{}}"#),
        ("o8", r#"{"g":"o","o":"x"}"#),
        ("o9", r#"{"g":"o"}"#),
        ("oa", r#"{"g":"o","o":{"y":2,"x":1}}"#),
        ("ob", r#"{"g":"o","o":{"x":1,"y":2}}"#),
        ("oc", r#"{"g":"o","o":[{"x":[{"y":5}]}]}"#),
        ("od", r#"{"g":"o","o":{"x":{"y":null}}}"#),
        ("oe", r#"{"g":"o","o":[{"x":1,"y":2}]}"#),
        ("of", r#"{"g":"o","o":{"0":{"y":1}}}"#),
        ("og", r#"{"g":"o","o":[1,{"x":{"y":9}},null,"s"]}"#),
        ("k0", r#"{"g":"k","a.b":1}"#),
        ("k1", r#"{"g":"k","a":{"b":1}}"#),
        ("k2", r#"{"g":"k","$a":1}"#),
        ("k3", r#"{"g":"k","":1}"#),
        ("k4", r#"{"g":"k","":{"":2}}"#),
        ("k5", r#"{"g":"k","a":{"":1}}"#),
        ("k6", r#"{"g":"k","a\\":1}"#),
        ("k7", r#"{"g":"k","_id":1,"__proto__":{"x":1}}"#),
        ("k8", r#"{"g":"k","a'\"%":1}"#),
        ("k9", r#"{"g":"k","a":{"$b":1}}"#),
        ("ka", r#"{"g":"k","a":{"b":{"c":1}}}"#),
        ("kb", r#"{"g":"k","é":1}"#),
        ("kc", r#"{"g":"k","a":[{"b":1},{"c":2}]}"#),
        ("kd", r#"{"g":"k","a":{"$eq":1}}"#),
        ("ke", r#"{"g":"k","":[{"":3}]}"#),
        ("z0", r#"{}"#),
    ]
}

/// The filters over [`documents`].
pub fn cases() -> Vec<Case> {
    vec![
        // Everything and nothing.
        keys(
            r#""#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc",
                "nd", "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9",
                "oa", "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6",
                "r7", "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6",
                "s7", "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(
            r#"{}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc",
                "nd", "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9",
                "oa", "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6",
                "r7", "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6",
                "s7", "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(
            r#"{"$and":[{}]}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc",
                "nd", "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9",
                "oa", "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6",
                "r7", "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6",
                "s7", "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(
            r#"{"$or":[{},{"v":1}]}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc",
                "nd", "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9",
                "oa", "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6",
                "r7", "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6",
                "s7", "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(
            r#"{"$not":{"$not":{}}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc",
                "nd", "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9",
                "oa", "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6",
                "r7", "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6",
                "s7", "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(r#"{"$not":{}}"#, &[]),
        keys(r#"{"g":{"$exists":false}}"#, &["z0"]),
        keys(
            r#"{"missing":{"$exists":false}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc",
                "nd", "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9",
                "oa", "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6",
                "r7", "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6",
                "s7", "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(r#"{"missing":{"$exists":true}}"#, &[]),
        keys(r#"{"missing":null}"#, &[]),
        keys(
            r#"{"missing":{"$ne":null}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc",
                "nd", "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9",
                "oa", "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6",
                "r7", "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6",
                "s7", "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        // Equality of scalars: kinds never mix, -0 is 0, numbers are doubles.
        keys(r#"{"v":0}"#, &["n0", "nb"]),
        keys(r#"{"v":-0}"#, &["n0", "nb"]),
        keys(r#"{"v":-0.0}"#, &["n0", "nb"]),
        keys(r#"{"v":1}"#, &["n1"]),
        keys(r#"{"v":1.0}"#, &["n1"]),
        keys(r#"{"v":1e0}"#, &["n1"]),
        keys(r#" { "v" : 1 } "#, &["n1"]),
        keys(r#"{"v":"1"}"#, &["n7"]),
        keys(r#"{"v":true}"#, &["n8"]),
        keys(r#"{"v":false}"#, &["nd"]),
        keys(r#"{"v":null}"#, &["n9"]),
        keys(r#"{"v":{}}"#, &["nf"]),
        keys(r#"{"v":[]}"#, &["ng"]),
        keys(r#"{"v":{"$eq":{}}}"#, &["nf"]),
        keys(r#"{"v":{"$eq":null}}"#, &["n9"]),
        keys(r#"{"v":9007199254740992}"#, &["n4"]),
        keys(r#"{"v":9007199254740992.0}"#, &["n4"]),
        keys(r#"{"v":9007199254740993.0}"#, &["n4"]),
        keys(r#"{"v":18446744073709551616}"#, &[]),
        keys(r#"{"v":1e300}"#, &["n3"]),
        keys(r#"{"v":5e-324}"#, &["n6"]),
        keys(r#"{"v":3e-324}"#, &["n6"]),
        keys(r#"{"v":0.1}"#, &["n5"]),
        keys(r#"{"v":0.1000000000000000055511151231257827}"#, &["n5"]),
        keys(r#"{"v":0.3}"#, &[]),
        keys(r#"{"v":0.30000000000000004}"#, &["ne"]),
        keys(r#"{"v":1.7976931348623157e308}"#, &["nc"]),
        // Ordering of numbers: numbers alone.
        keys(
            r#"{"v":{"$gt":0}}"#,
            &["n1", "n3", "n4", "n5", "n6", "nc", "ne"],
        ),
        keys(
            r#"{"v":{"$gt":-0.0}}"#,
            &["n1", "n3", "n4", "n5", "n6", "nc", "ne"],
        ),
        keys(
            r#"{"v":{"$gte":0}}"#,
            &["n0", "n1", "n3", "n4", "n5", "n6", "nb", "nc", "ne"],
        ),
        keys(r#"{"v":{"$lt":0}}"#, &["n2"]),
        keys(r#"{"v":{"$lte":0}}"#, &["n0", "n2", "nb"]),
        keys(r#"{"v":{"$gt":1e300}}"#, &["nc"]),
        keys(r#"{"v":{"$gte":1e300}}"#, &["n3", "nc"]),
        keys(r#"{"v":{"$lt":5e-324}}"#, &["n0", "n2", "nb"]),
        keys(r#"{"v":{"$lte":5e-324}}"#, &["n0", "n2", "n6", "nb"]),
        keys(r#"{"v":{"$gt":"0"}}"#, &["n7"]),
        keys(r#"{"v":{"$lt":"1"}}"#, &[]),
        keys(r#"{"v":{"$lte":"1"}}"#, &["n7"]),
        keys(
            r#"{"v":{"$gte":-1.5,"$lte":0.1}}"#,
            &["n0", "n2", "n5", "n6", "nb"],
        ),
        keys(r#"{"v":{"$gt":1,"$lt":1}}"#, &[]),
        // Negations match what is missing.
        keys(
            r#"{"v":{"$ne":1}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc", "nd",
                "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9", "oa",
                "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7",
                "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7",
                "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(
            r#"{"v":{"$nin":[1]}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc", "nd",
                "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9", "oa",
                "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7",
                "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7",
                "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(
            r#"{"$not":{"v":1}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc", "nd",
                "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9", "oa",
                "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7",
                "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7",
                "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(
            r#"{"v":{"$not":{"$eq":1}}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "n0", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc", "nd",
                "ne", "nf", "ng", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9", "oa",
                "ob", "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7",
                "r8", "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7",
                "s8", "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(
            r#"{"g":"n","v":{"$ne":1}}"#,
            &[
                "n0", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc", "nd", "ne",
                "nf", "ng",
            ],
        ),
        keys(
            r#"{"g":"n","v":{"$ne":null}}"#,
            &[
                "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "na", "nb", "nc", "nd", "ne",
                "nf", "ng",
            ],
        ),
        keys(
            r#"{"g":"n","v":{"$ne":[]}}"#,
            &[
                "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc", "nd",
                "ne", "nf",
            ],
        ),
        keys(
            r#"{"g":"n","v":{"$exists":true}}"#,
            &[
                "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "nb", "nc", "nd", "ne",
                "nf", "ng",
            ],
        ),
        keys(
            r#"{"v":{"$exists":true}}"#,
            &[
                "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "nb", "nc", "nd", "ne",
                "nf", "ng",
            ],
        ),
        keys(r#"{"g":"n","v":{"$exists":false}}"#, &["na"]),
        keys(
            r#"{"v":{"$exists":false}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "na", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9", "oa", "ob",
                "oc", "od", "oe", "of", "og", "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8",
                "r9", "ra", "rb", "rc", "rd", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8",
                "s9", "sa", "sb", "sc", "sd", "se", "sf", "z0",
            ],
        ),
        keys(
            r#"{"v":{"$exists":true,"$ne":null}}"#,
            &[
                "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "nb", "nc", "nd", "ne", "nf",
                "ng",
            ],
        ),
        keys(
            r#"{"g":"n","v":{"$nin":[0,1,null]}}"#,
            &[
                "n2", "n3", "n4", "n5", "n6", "n7", "n8", "na", "nc", "nd", "ne", "nf", "ng",
            ],
        ),
        keys(
            r#"{"g":"n","v":{"$not":{"$gt":0}}}"#,
            &["n0", "n2", "n7", "n8", "n9", "na", "nb", "nd", "nf", "ng"],
        ),
        keys(
            r#"{"g":"n","v":{"$not":{"$gte":0,"$lt":1}}}"#,
            &[
                "n1", "n2", "n3", "n4", "n7", "n8", "n9", "na", "nc", "nd", "nf", "ng",
            ],
        ),
        keys(r#"{"g":"n","v":{"$not":{"$exists":true}}}"#, &["na"]),
        keys(
            r#"{"g":"n","v":{"$not":{"$exists":false}}}"#,
            &[
                "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "nb", "nc", "nd", "ne",
                "nf", "ng",
            ],
        ),
        keys(r#"{"v":{"$not":{"$not":{"$eq":1}}}}"#, &["n1"]),
        keys(r#"{"v":{"$not":{"$ne":1}}}"#, &["n1"]),
        keys(
            r#"{"g":"n","v":{"$not":{"$in":[1,"1"]}}}"#,
            &[
                "n0", "n2", "n3", "n4", "n5", "n6", "n8", "n9", "na", "nb", "nc", "nd", "ne", "nf",
                "ng",
            ],
        ),
        keys(r#"{"v":{"$not":{"$nin":[1,"1"]}}}"#, &["n1", "n7"]),
        keys(
            r#"{"g":"n","$not":{"v":1}}"#,
            &[
                "n0", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc", "nd", "ne",
                "nf", "ng",
            ],
        ),
        keys(
            r#"{"g":"n","v":{"$not":{"$prefix":""}}}"#,
            &[
                "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n8", "n9", "na", "nb", "nc", "nd", "ne",
                "nf", "ng",
            ],
        ),
        // One of several.
        keys(r#"{"v":{"$in":[1,"1",null]}}"#, &["n1", "n7", "n9"]),
        keys(r#"{"v":{"$in":[[],{}]}}"#, &["nf", "ng"]),
        keys(r#"{"v":{"$in":[true,false]}}"#, &["n8", "nd"]),
        keys(r#"{"v":{"$in":[1,1,1]}}"#, &["n1"]),
        keys(r#"{"v":{"$in":[2]}}"#, &[]),
        // Strings: byte for byte, ordered by UTF-8.
        keys(r#"{"t":""}"#, &["s0"]),
        keys(r#"{"t":"a"}"#, &["s1"]),
        keys(r#"{"t":"é"}"#, &["s6"]),
        keys(r#"{"t":"\u00e9"}"#, &["s6"]),
        keys(r#"{"t":"e\u0301"}"#, &["s7"]),
        keys(r#"{"t":"\ud83d\ude00"}"#, &["s9"]),
        keys(r#"{"t":5}"#, &["sf"]),
        keys(
            r#"{"t":{"$gt":"a"}}"#,
            &["s3", "s4", "s5", "s6", "s7", "s8", "s9", "sb", "se"],
        ),
        keys(
            r#"{"t":{"$gte":"a"}}"#,
            &["s1", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "sb", "se"],
        ),
        keys(r#"{"t":{"$lt":"a"}}"#, &["s0", "s2", "sa", "sc", "sd"]),
        keys(
            r#"{"t":{"$lte":"a"}}"#,
            &["s0", "s1", "s2", "sa", "sc", "sd"],
        ),
        keys(r#"{"t":{"$gt":"～"}}"#, &["s9"]),
        keys(r#"{"t":{"$gt":"z","$lt":"😀"}}"#, &["s6", "s8"]),
        keys(r#"{"t":{"$lt":"9"}}"#, &["s0", "sa", "sc"]),
        keys(
            r#"{"t":{"$gt":"10"}}"#,
            &[
                "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "sa", "sb", "sd", "se",
            ],
        ),
        keys(r#"{"t":{"$gt":9}}"#, &[]),
        keys(r#"{"t":{"$lt":9}}"#, &["sf"]),
        keys(
            r#"{"t":{"$gte":""}}"#,
            &[
                "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "sa", "sb", "sc", "sd",
                "se",
            ],
        ),
        keys(r#"{"t":{"$lt":""}}"#, &[]),
        keys(r#"{"t":{"$lte":""}}"#, &["s0"]),
        keys(r#"{"t":{"$in":["a","A","b"]}}"#, &["s1", "s2", "s5"]),
        keys(
            r#"{"g":"s","t":{"$nin":["a","A","b",5]}}"#,
            &[
                "s0", "s3", "s4", "s6", "s7", "s8", "s9", "sa", "sb", "sc", "sd", "se",
            ],
        ),
        keys(
            r#"{"g":{"$gt":"r"}}"#,
            &[
                "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "sa", "sb", "sc", "sd",
                "se", "sf",
            ],
        ),
        // Parts of strings: nothing is a wildcard.
        keys(
            r#"{"t":{"$prefix":""}}"#,
            &[
                "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "sa", "sb", "sc", "sd",
                "se",
            ],
        ),
        keys(r#"{"t":{"$prefix":"a"}}"#, &["s1", "s3", "s4", "sb"]),
        keys(r#"{"t":{"$prefix":"ab"}}"#, &["s3", "s4"]),
        keys(r#"{"t":{"$prefix":"1"}}"#, &["sa", "sc"]),
        keys(r#"{"t":{"$prefix":"e"}}"#, &["s7"]),
        keys(r#"{"t":{"$prefix":"A"}}"#, &["s2"]),
        keys(r#"{"t":{"$prefix":"100%"}}"#, &["sa"]),
        keys(r#"{"t":{"$prefix":"10_"}}"#, &[]),
        keys(r#"{"t":{"$prefix":"%"}}"#, &[]),
        keys(r#"{"v":{"$prefix":"1"}}"#, &["n7"]),
        keys(r#"{"v":{"$contains":""}}"#, &["n7"]),
        keys(
            r#"{"t":{"$contains":"b"}}"#,
            &["s3", "s4", "s5", "sb", "se"],
        ),
        keys(r#"{"t":{"$contains":"bc"}}"#, &["s4"]),
        keys(r#"{"t":{"$contains":"BC"}}"#, &[]),
        keys(r#"{"t":{"$contains":"abcd"}}"#, &[]),
        keys(r#"{"t":{"$contains":"%_"}}"#, &["sa"]),
        keys(r#"{"t":{"$contains":"_"}}"#, &["sa"]),
        keys(r#"{"t":{"$contains":"."}}"#, &["sb"]),
        keys(r#"{"t":{"$contains":"\n"}}"#, &["se"]),
        keys(r#"{"t":{"$contains":"\""}}"#, &["se"]),
        keys(r#"{"t":{"$contains":"\\"}}"#, &["se"]),
        keys(r#"{"t":{"$contains":"\u0301"}}"#, &["s7"]),
        keys(r#"{"t":{"$prefix":"a","$contains":"c"}}"#, &["s4"]),
        keys(
            r#"{"g":"s","t":{"$not":{"$contains":"a"}}}"#,
            &[
                "s0", "s2", "s5", "s6", "s7", "s8", "s9", "sa", "sc", "sd", "sf",
            ],
        ),
        // An array at the end: itself and its elements, one level.
        keys(r#"{"l":1}"#, &["r1", "ra"]),
        keys(r#"{"l":[1,2]}"#, &["r2", "ra"]),
        keys(r#"{"l":[1,2,3]}"#, &["r1"]),
        keys(r#"{"l":[3,2,1]}"#, &[]),
        keys(r#"{"l":[]}"#, &["r0", "rc"]),
        keys(r#"{"l":[[]]}"#, &["rc"]),
        keys(r#"{"l":null}"#, &["r3", "r8"]),
        keys(r#"{"l":10}"#, &["r6", "r7"]),
        keys(r#"{"l":[10]}"#, &["r6"]),
        keys(r#"{"l":[3]}"#, &["r2"]),
        keys(r#"{"l":3}"#, &["r1"]),
        keys(r#"{"l":[[1,2],[3]]}"#, &["r2"]),
        keys(r#"{"l":{"x":1}}"#, &["rb"]),
        keys(r#"{"l":{"x":3}}"#, &[]),
        keys(r#"{"l":[{"x":1},{"x":2}]}"#, &["rb"]),
        keys(r#"{"l":"a"}"#, &["r4", "rd"]),
        keys(r#"{"l":true}"#, &["rd"]),
        keys(r#"{"l":{"$gt":10}}"#, &["r5"]),
        keys(r#"{"l":{"$gte":10}}"#, &["r5", "r6", "r7"]),
        keys(r#"{"l":{"$lt":2}}"#, &["r1", "ra"]),
        keys(r#"{"l":{"$gt":"a"}}"#, &["r4"]),
        keys(r#"{"l":{"$prefix":"a"}}"#, &["r4", "rd"]),
        keys(r#"{"l":{"$in":["b",10,[3]]}}"#, &["r2", "r4", "r6", "r7"]),
        keys(r#"{"l":{"$in":[null]}}"#, &["r3", "r8"]),
        keys(r#"{"l":{"$in":[[1,2]]}}"#, &["r2", "ra"]),
        keys(
            r#"{"g":"r","l":{"$ne":1}}"#,
            &[
                "r0", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "rb", "rc", "rd",
            ],
        ),
        keys(
            r#"{"g":"r","l":{"$ne":null}}"#,
            &[
                "r0", "r1", "r2", "r4", "r5", "r6", "r7", "r9", "ra", "rb", "rc", "rd",
            ],
        ),
        keys(
            r#"{"g":"r","l":{"$ne":[1,2]}}"#,
            &[
                "r0", "r1", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "rb", "rc", "rd",
            ],
        ),
        keys(
            r#"{"g":"r","l":{"$nin":[1,10,"a"]}}"#,
            &["r0", "r2", "r3", "r5", "r8", "r9", "rb", "rc"],
        ),
        keys(
            r#"{"g":"r","l":{"$nin":[[1,2],[]]}}"#,
            &["r1", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "rb", "rd"],
        ),
        keys(r#"{"g":"r","l":{"$exists":false}}"#, &["r9"]),
        keys(
            r#"{"g":"r","l":{"$not":{"$gt":5}}}"#,
            &[
                "r0", "r1", "r2", "r3", "r4", "r8", "r9", "ra", "rb", "rc", "rd",
            ],
        ),
        // Several operators at one path: each may hold by another element.
        keys(r#"{"l":{"$gt":5,"$lt":15}}"#, &["r5", "r6", "r7"]),
        keys(
            r#"{"$and":[{"l":{"$gt":5}},{"l":{"$lt":15}}]}"#,
            &["r5", "r6", "r7"],
        ),
        keys(r#"{"l":{"$gt":5,"$lt":6}}"#, &["r5"]),
        keys(r#"{"l":{"$eq":1,"$ne":2}}"#, &[]),
        keys(r#"{"l":{"$eq":5,"$ne":1}}"#, &["r5"]),
        keys(r#"{"l":{"$eq":1,"$in":[3]}}"#, &["r1"]),
        keys(
            r#"{"g":"r","l":{"$not":{"$gt":5,"$lt":6}}}"#,
            &[
                "r0", "r1", "r2", "r3", "r4", "r6", "r7", "r8", "r9", "ra", "rb", "rc", "rd",
            ],
        ),
        // Arrays along the path: their objects, one level; never an index.
        keys(r#"{"l.x":2}"#, &["rb"]),
        keys(r#"{"l.x":{"$gt":1}}"#, &["rb"]),
        keys(r#"{"l.0":1}"#, &[]),
        keys(r#"{"l.x":{"$exists":true}}"#, &["rb"]),
        keys(
            r#"{"g":"r","l.x":{"$exists":false}}"#,
            &[
                "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "ra", "rc", "rd",
            ],
        ),
        keys(
            r#"{"g":"r","l.x":{"$ne":1}}"#,
            &[
                "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "ra", "rc", "rd",
            ],
        ),
        keys(r#"{"o.x.y":1}"#, &["o0", "o1", "o2", "o3"]),
        keys(r#"{"o.x.y":4}"#, &["o3"]),
        keys(r#"{"o.x.y":[1,4]}"#, &["o3"]),
        keys(r#"{"o.x.y":5}"#, &["oc"]),
        keys(r#"{"o.x.y":9}"#, &["og"]),
        keys(r#"{"o.x.y":null}"#, &["od"]),
        keys(
            r#"{"o.x.y":{"$exists":true}}"#,
            &["o0", "o1", "o2", "o3", "oc", "od", "og"],
        ),
        keys(
            r#"{"g":"o","o.x.y":{"$exists":false}}"#,
            &["o4", "o5", "o6", "o7", "o8", "o9", "oa", "ob", "oe", "of"],
        ),
        keys(
            r#"{"g":"o","o.x.y":{"$ne":1}}"#,
            &[
                "o4", "o5", "o6", "o7", "o8", "o9", "oa", "ob", "oc", "od", "oe", "of", "og",
            ],
        ),
        keys(r#"{"o.x.y":{"$gt":2}}"#, &["o2", "o3", "oc", "og"]),
        keys(r#"{"o.x.y":{"$gt":1,"$lt":3}}"#, &["o1", "o2", "o3"]),
        keys(
            r#"{"o.x.y":{"$gt":1},"o.x":{"$exists":true}}"#,
            &["o1", "o2", "o3", "oc", "og"],
        ),
        keys(
            r#"{"g":"o","o.x.y":{"$not":{"$gt":1,"$lt":3}}}"#,
            &[
                "o0", "o4", "o5", "o6", "o7", "o8", "o9", "oa", "ob", "oc", "od", "oe", "of", "og",
            ],
        ),
        keys(r#"{"o.x.y.z":1}"#, &[]),
        keys(r#"{"o.x":1}"#, &["oa", "ob", "oe"]),
        keys(r#"{"o.x":null}"#, &["o6"]),
        keys(r#"{"o.x":{"$in":[1,null]}}"#, &["o6", "oa", "ob", "oe"]),
        keys(
            r#"{"g":"o","o.x":{"$nin":[1,null]}}"#,
            &[
                "o0", "o1", "o2", "o3", "o4", "o5", "o7", "o8", "o9", "oc", "od", "of", "og",
            ],
        ),
        keys(
            r#"{"g":"o","o.x":{"$exists":false}}"#,
            &["o7", "o8", "o9", "of"],
        ),
        keys(r#"{"o.0.y":1}"#, &["of"]),
        keys(r#"{"o.0":{"$exists":true}}"#, &["of"]),
        // Objects are equal whatever the order of their keys, and only as a whole.
        keys(r#"{"o":{"x":1,"y":2}}"#, &["oa", "ob", "oe"]),
        keys(r#"{"o":{"y":2,"x":1}}"#, &["oa", "ob", "oe"]),
        keys(r#"{"o":{"x":1}}"#, &[]),
        keys(r#"{"o":{}}"#, &["o7"]),
        keys(r#"{"o.x":{}}"#, &["o5"]),
        keys(r#"{"o.x":{"y":1}}"#, &["o0", "o1", "o2"]),
        keys(r#"{"o.x":[{"y":1}]}"#, &["o4"]),
        keys(r#"{"o.x":[[{"y":1}]]}"#, &["o4"]),
        keys(r#"{"o":{"$eq":{"x":{"y":1}}}}"#, &["o0", "o2"]),
        keys(r#"{"o":[{"x":1,"y":2}]}"#, &["oe"]),
        keys(
            r#"{"o":{"$in":[{"x":1,"y":2},"x"]}}"#,
            &["o8", "oa", "ob", "oe"],
        ),
        keys(r#"{"o":"x"}"#, &["o8"]),
        keys(r#"{"o":"s"}"#, &["og"]),
        keys(r#"{"o":null}"#, &["og"]),
        keys(r#"{"g":"o","o":{"$exists":false}}"#, &["o9"]),
        keys(
            r#"{"g":"o","o":{"$ne":{"y":2,"x":1}}}"#,
            &[
                "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7", "o8", "o9", "oc", "od", "of", "og",
            ],
        ),
        // Keys that need escapes, and keys that only look as if they did.
        keys(r#"{"a.b":1}"#, &["k1", "kc"]),
        keys(r#"{"a\\.b":1}"#, &["k0"]),
        keys(r#"{"\\$a":1}"#, &["k2"]),
        keys(r#"{"":1}"#, &["k3"]),
        keys(r#"{".":2}"#, &["k4"]),
        keys(r#"{".":3}"#, &["ke"]),
        keys(r#"{"a.":1}"#, &["k5"]),
        keys(r#"{"o.":1}"#, &[]),
        keys(r#"{"..":1}"#, &[]),
        keys(r#"{"a\\\\":1}"#, &["k6"]),
        keys(r#"{"_id":1}"#, &["k7"]),
        keys(r#"{"__proto__.x":1}"#, &["k7"]),
        keys(r#"{"a'\"%":1}"#, &["k8"]),
        keys(r#"{"a.$b":1}"#, &["k9"]),
        keys(r#"{"a.\\$b":1}"#, &["k9"]),
        keys(r#"{"a.b.c":1}"#, &["ka"]),
        keys(r#"{"é":1}"#, &["kb"]),
        keys(r#"{"\u00e9":1}"#, &["kb"]),
        keys(r#"{"e\u0301":1}"#, &[]),
        keys(r#"{"a.c":2}"#, &["kc"]),
        keys(r#"{"a":{"b":1}}"#, &["k1", "kc"]),
        keys(r#"{"a.$eq":1}"#, &["kd"]),
        keys(r#"{"":{"$exists":true}}"#, &["k3", "k4", "ke"]),
        keys(
            r#"{"a":{"$exists":true}}"#,
            &["k1", "k5", "k9", "ka", "kc", "kd"],
        ),
        keys(
            r#"{"g":"k","a.b":{"$exists":false}}"#,
            &[
                "k0", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "kb", "kd", "ke",
            ],
        ),
        keys(
            r#"{"g":"k","a":{"$ne":{"b":1}}}"#,
            &[
                "k0", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kd", "ke",
            ],
        ),
        // Operators or a value: the first member decides.
        keys(r#"{"a":{"$eq":1}}"#, &[]),
        keys(r#"{"a":{"$eq":{"$eq":1}}}"#, &["kd"]),
        keys(r#"{"a":{"$eq":{"$b":1}}}"#, &["k9"]),
        keys(r#"{"a":{"$in":[{"$b":1},{"":1}]}}"#, &["k5", "k9"]),
        keys(r#"{"a":{"b":1,"$c":2}}"#, &[]),
        // Filters joined.
        keys(r#"{"$or":[{"v":1},{"t":"a"}]}"#, &["n1", "s1"]),
        keys(r#"{"$and":[{"g":"n"},{"v":1}]}"#, &["n1"]),
        keys(r#"{"$or":[{"v":1,"g":"s"},{"t":"a","g":"s"}]}"#, &["s1"]),
        keys(r#"{"g":"s","$or":[{"v":1},{"t":"a"}]}"#, &["s1"]),
        keys(
            r#"{"$not":{"$or":[{"g":"n"},{"g":"s"},{"g":"r"},{"g":"o"}]}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "z0",
            ],
        ),
        keys(
            r#"{"$not":{"$and":[{"g":{"$exists":true}},{"g":{"$ne":"k"}}]}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke", "z0",
            ],
        ),
        keys(r#"{"g":{"$nin":["n","s","r","o","k"]}}"#, &["z0"]),
        keys(
            r#"{"$and":[{"$or":[{"v":1},{"v":0}]},{"$not":{"v":0}}]}"#,
            &["n1"],
        ),
        keys(
            r#"{"$or":[{"$and":[{"g":"n"},{"v":true}]},{"$and":[{"g":"r"},{"l":true}]}]}"#,
            &["n8", "rd"],
        ),
        keys(
            r#"{"g":{"$in":["n","k"]},"$not":{"g":"n"}}"#,
            &[
                "k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "ka", "kb", "kc", "kd",
                "ke",
            ],
        ),
        keys(
            r#"{"g":"n","$not":{"g":"n","v":1}}"#,
            &[
                "n0", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "na", "nb", "nc", "nd", "ne",
                "nf", "ng",
            ],
        ),
        keys(r#"{"$not":{"$not":{"v":1}}}"#, &["n1"]),
        keys(r#"{"g":"n","v":1,"t":"a"}"#, &[]),
        // Of an empty list nothing is one, wherever the path leads, and everything is none.
        keys(r#"{"v":{"$in":[]}}"#, &[]),
        keys(r#"{"nowhere":{"$in":[]}}"#, &[]),
        keys(r#"{"l":{"$in":[]}}"#, &[]),
        keys(r#"{"o.x":{"$in":[]}}"#, &[]),
        keys(r#"{"v":1,"t":{"$nin":[]}}"#, &["n1"]),
        keys(r#"{"v":{"$eq":1,"$nin":[]}}"#, &["n1"]),
        keys(r#"{"v":{"$eq":1,"$in":[]}}"#, &[]),
        keys(r#"{"v":{"$exists":true,"$in":[]}}"#, &[]),
        keys(r#"{"v":1,"l":{"$in":[]}}"#, &[]),
        keys(r#"{"v":1,"$not":{"v":{"$in":[]}}}"#, &["n1"]),
        keys(r#"{"v":1,"$not":{"v":{"$nin":[]}}}"#, &[]),
        keys(r#"{"v":{"$eq":1,"$not":{"$in":[]}}}"#, &["n1"]),
        keys(r#"{"v":{"$eq":1,"$not":{"$nin":[]}}}"#, &[]),
        keys(r#"{"v":1,"$not":{"$not":{"v":{"$in":[]}}}}"#, &[]),
        keys(r#"{"v":1,"$not":{"$not":{"v":{"$nin":[]}}}}"#, &["n1"]),
        keys(r#"{"$or":[{"v":{"$in":[]}}]}"#, &[]),
        keys(r#"{"$or":[{"v":{"$in":[]}},{"t":{"$in":[]}}]}"#, &[]),
        keys(r#"{"$or":[{"v":{"$in":[]}},{"v":1}]}"#, &["n1"]),
        keys(r#"{"v":1,"$or":[{"t":{"$nin":[]}},{"v":2}]}"#, &["n1"]),
        keys(r#"{"$and":[{"v":{"$in":[]}},{"v":1}]}"#, &[]),
        keys(r#"{"$and":[{"v":{"$nin":[]}},{"v":1}]}"#, &["n1"]),
        keys(
            r#"{"v":1,"$not":{"$and":[{"v":{"$in":[]}},{"v":1}]}}"#,
            &["n1"],
        ),
        keys(
            r#"{"v":1,"$not":{"$or":[{"v":{"$in":[]}},{"t":1}]}}"#,
            &["n1"],
        ),
        keys(r#"{"v":1,"$not":{"$or":[{"v":{"$nin":[]}},{"t":1}]}}"#, &[]),
        // At the bounds of size.
        keys(r#"{"a":[[[[[[[1]]]]]]]}"#, &[]),
        keys(r#"{"$and":[{"$and":[{"$and":[{"v":1}]}]}]}"#, &["n1"]),
        keys(
            r#"{"v":{"$in":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,60,61,62]}}"#,
            &["n1"],
        ),
        refused(
            r#"{"v":{"$in":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,60,61,62,63]}}"#,
            r#"more than 64 nodes"#,
        ),
        refused(r#"{"a":[[[[[[[[1]]]]]]]]}"#, r#"deeper than 8 levels"#),
        refused(
            r#"{"$and":[{"$and":[{"$and":[{"$and":[{"v":1}]}]}]}]}"#,
            r#"deeper than 8 levels"#,
        ),
        // Refused: no JSON object.
        refused(r#"[]"#, r#"not a JSON object"#),
        refused(r#"5"#, r#"not a JSON object"#),
        refused(r#""x""#, r#"not a JSON object"#),
        refused(r#"null"#, r#"not a JSON object"#),
        refused(r#"{"#, r#"is not JSON"#),
        refused(r#"  "#, r#"is not JSON"#),
        refused(r#"{"a":1}x"#, r#"is not JSON"#),
        refused(r#"{'a':1}"#, r#"is not JSON"#),
        refused(r#"{"a":NaN}"#, r#"is not JSON"#),
        refused(r#"{"v":1e400}"#, r#"is not JSON"#),
        refused(r#"{"a":"\ud800"}"#, r#"is not JSON"#),
        refused(r#"{"a":1,"a":2}"#, r#"`a` stands twice"#),
        refused(r#"{"a":1,"\u0061":2}"#, r#"`a` stands twice"#),
        refused(r#"{"a":{"$eq":{"b":1,"b":2}}}"#, r#"`b` stands twice"#),
        // Refused: operators that are unknown or in the wrong place.
        refused(r#"{"$where":"1"}"#, r#"unknown operator `$where`"#),
        refused(r#"{"$nor":[{}]}"#, r#"unknown operator `$nor`"#),
        refused(r#"{"$expr":{}}"#, r#"unknown operator `$expr`"#),
        refused(
            r#"{"$text":{"$search":"x"}}"#,
            r#"unknown operator `$text`"#,
        ),
        refused(r#"{"$comment":"x"}"#, r#"unknown operator `$comment`"#),
        refused(r#"{"$a":1}"#, r#"unknown operator `$a`"#),
        refused(r#"{"$":1}"#, r#"unknown operator `$`"#),
        refused(r#"{"$a.b":1}"#, r#"unknown operator `$a.b`"#),
        refused(r#"{"$gt":1}"#, r#"`$gt` where a path belongs"#),
        refused(r#"{"$eq":{"a":1}}"#, r#"`$eq` where a path belongs"#),
        refused(
            r#"{"a":{"$regex":"x"}}"#,
            r#"unknown operator `$regex` at `a`"#,
        ),
        refused(
            r#"{"a":{"$where":"x"}}"#,
            r#"unknown operator `$where` at `a`"#,
        ),
        refused(
            r#"{"a":{"$elemMatch":{"b":1}}}"#,
            r#"unknown operator `$elemMatch` at `a`"#,
        ),
        refused(r#"{"a":{"$size":1}}"#, r#"unknown operator `$size` at `a`"#),
        refused(
            r#"{"a":{"$type":"string"}}"#,
            r#"unknown operator `$type` at `a`"#,
        ),
        refused(r#"{"a":{"$Eq":1}}"#, r#"unknown operator `$Eq` at `a`"#),
        refused(r#"{"a":{"$":1}}"#, r#"unknown operator `$` at `a`"#),
        refused(
            r#"{"a":{"$gt":1,"$foo":1}}"#,
            r#"unknown operator `$foo` at `a`"#,
        ),
        refused(r#"{"a":{"$and":[{"$gt":1}]}}"#, r#"`$and` at `a`"#),
        refused(r#"{"a":{"$or":[{"$gt":1}]}}"#, r#"`$or` at `a`"#),
        refused(
            r#"{"a":{"$gt":1,"b":2}}"#,
            r#"`b` among the operators at `a`"#,
        ),
        refused(
            r#"{"a":{"$not":{"$gt":1,"b":2}}}"#,
            r#"`b` among the operators at `a`"#,
        ),
        // Refused: operands of the wrong kind.
        refused(r#"{"$and":[]}"#, r#"non-empty array of filters"#),
        refused(r#"{"$or":[]}"#, r#"non-empty array of filters"#),
        refused(r#"{"$and":{}}"#, r#"non-empty array of filters"#),
        refused(r#"{"$or":"x"}"#, r#"non-empty array of filters"#),
        refused(r#"{"$and":[1]}"#, r#"non-empty array of filters"#),
        refused(r#"{"$or":[[{}]]}"#, r#"non-empty array of filters"#),
        refused(
            r#"{"$and":[{"a":1},null]}"#,
            r#"non-empty array of filters"#,
        ),
        refused(r#"{"$not":[]}"#, r#"`$not` that is no filter"#),
        refused(r#"{"$not":1}"#, r#"`$not` that is no filter"#),
        refused(r#"{"$not":null}"#, r#"`$not` that is no filter"#),
        refused(r#"{"a":{"$not":1}}"#, r#"`$not` at `a`"#),
        refused(r#"{"a":{"$not":{}}}"#, r#"object of operators"#),
        refused(r#"{"a":{"$not":{"b":1}}}"#, r#"object of operators"#),
        refused(r#"{"a":{"$not":[{"$gt":1}]}}"#, r#"object of operators"#),
        refused(r#"{"a":{"$gt":null}}"#, r#"`$gt` at `a`"#),
        refused(r#"{"a":{"$gte":true}}"#, r#"takes a number or a string"#),
        refused(r#"{"a":{"$lt":[]}}"#, r#"takes a number or a string"#),
        refused(r#"{"a":{"$lte":{}}}"#, r#"takes a number or a string"#),
        refused(
            r#"{"a":{"$lt":{"$gt":1}}}"#,
            r#"takes a number or a string"#,
        ),
        refused(r#"{"a":{"$in":1}}"#, r#"takes an array"#),
        refused(r#"{"a":{"$in":{"a":1}}}"#, r#"takes an array"#),
        refused(r#"{"a":{"$in":""}}"#, r#"takes an array"#),
        refused(r#"{"a":{"$nin":null}}"#, r#"takes an array"#),
        refused(r#"{"a":{"$nin":{}}}"#, r#"`$nin` at `a`"#),
        // An empty list says nothing of the path, which is read all the same.
        refused(r#"{"a\\b":{"$in":[]}}"#, r#"the escapes are"#),
        refused(
            r#"{"a":{"$in":[],"b":1}}"#,
            r#"`b` among the operators at `a`"#,
        ),
        refused(r#"{"a":{"$exists":1}}"#, r#"takes true or false"#),
        refused(r#"{"a":{"$exists":null}}"#, r#"takes true or false"#),
        refused(r#"{"a":{"$exists":"true"}}"#, r#"takes true or false"#),
        refused(r#"{"a":{"$prefix":5}}"#, r#"`$prefix` at `a`"#),
        refused(r#"{"a":{"$contains":["a"]}}"#, r#"takes a string"#),
        refused(r#"{"a":{"$prefix":null}}"#, r#"takes a string"#),
        // Refused: numbers, strings and paths that no value could have.
        refused(r#"{"v":9007199254740993}"#, r#"a double cannot hold"#),
        refused(r#"{"v":18446744073709551615}"#, r#"a double cannot hold"#),
        refused(
            r#"{"v":{"$eq":9007199254740993}}"#,
            r#"a double cannot hold"#,
        ),
        refused(
            r#"{"v":{"$gt":-9007199254740993}}"#,
            r#"a double cannot hold"#,
        ),
        refused(
            r#"{"v":{"$in":[1,9007199254740993]}}"#,
            r#"a double cannot hold"#,
        ),
        refused(r#"{"v":[{"b":9007199254740993}]}"#, r#"integer at `v`"#),
        keys(r#"{"v":"9007199254740993"}"#, &[]),
        refused(r#"{"t":"a\u0000"}"#, r#"U+0000 at `t`"#),
        refused(r#"{"t":{"b\u0000":1}}"#, r#"U+0000 at `t`"#),
        refused(r#"{"t":{"$in":["\u0000"]}}"#, r#"U+0000 at `t`"#),
        refused(r#"{"a\u0000":1}"#, r#"U+0000"#),
        refused(r#"{"a\\b":1}"#, r#"the escapes are"#),
        refused(r#"{"a\\":1}"#, r#"the escapes are"#),
        refused(r#"{"a\\\\\\":1}"#, r#"the escapes are"#),
        refused(r#"{"$and":[{"a\\b":1}]}"#, r#"the escapes are"#),
    ]
}
