//! What helps to write a policy: its tests run as OPA runs them, and a decision with its reasons.
//!
//! The machine that decides in the gateway has no `with` and tells nothing but the result, so that the kit works
//! with the engine's interpreter. Wherever both can answer, both are asked, and a difference is an error: a
//! test that passes here says what the gateway will decide.

mod calls;
mod explain;
mod testing;
mod workbench;

pub use self::{
    explain::{Definition, Explanation, Outcome, Seen, explain},
    testing::{Suite, Tested, Verdict},
    workbench::{defines_allow, refusals},
};
