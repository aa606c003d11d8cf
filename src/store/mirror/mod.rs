//! A watched range of keys, decoded, in memory: readers hold immutable views of whole revisions.

mod driver;
mod handle;
mod shared;
mod view;

pub use handle::{Changes, Mirror};
pub use shared::{Options, Status};
pub use view::{Change, Entry, View};
