//! The pages of `docs/`, so that their code is tested and their names are linked.

#[doc = include_str!("../../docs/architecture.md")]
pub mod architecture {}
#[doc = include_str!("../../docs/operations.md")]
pub mod operations {}
#[doc = include_str!("../../docs/promoters.md")]
pub mod promoters {}
#[doc = include_str!("../../docs/rehearse.md")]
pub mod rehearse {}
#[doc = include_str!("../../docs/names.md")]
pub mod names {}
#[doc = include_str!("../../docs/decisions.md")]
pub mod decisions {}
#[doc = include_str!("../../docs/store.md")]
pub mod store {}
#[doc = include_str!("../../docs/ids.md")]
pub mod ids {}
#[doc = include_str!("../../docs/performance.md")]
pub mod performance {}
#[doc = include_str!("../../docs/changelog.md")]
pub mod changelog {}
#[cfg(feature = "allocator")]
#[doc = include_str!("../../docs/items.md")]
pub mod items {}
#[cfg(feature = "placement")]
#[doc = include_str!("../../docs/placement.md")]
pub mod placement {}
