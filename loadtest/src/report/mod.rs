//! The report: each figure beside the limit that the gateway's parts set, as a table and as JSON.
//!
//! `lines` decides which lines there are, from the medians that `rounds` takes; `render` writes them.

mod line;
mod lines;
mod render;
mod rounds;

pub(crate) use self::{
    lines::lines,
    render::{json, table},
};
