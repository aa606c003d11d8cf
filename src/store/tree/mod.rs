//! An ordered map of keys whose clones share what they have in common.

mod keys;
mod map;
mod row;
mod walk;

pub(crate) use map::{Keyed, Tree};
