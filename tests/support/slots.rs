//! Which changes of slots there may be.

/// Whether these changes of an item's slots, from the old one to the new one, are those of one
/// transaction that changes its primary, or none: a replica takes slot 0, and who had that, if it stays,
/// takes its.
pub(crate) fn only_the_primary_changes(renamed: &[(u32, u32)]) -> bool {
    match *renamed {
        [] | [(_, 0)] => true,
        [(0, given), (left, 0)] | [(left, 0), (0, given)] => given == left,
        _ => false,
    }
}
