//! A member that holds an item, and what is asked of a row of them.
//!
//! Nearly all of it is asked without a branch: of millions of rows nobody can guess where somebody was lost,
//! or who is the primary.

use std::collections::BTreeSet;

/// A member that holds an item, in one word: its number, whether it is the item's primary, and
/// whether it is consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(u32);

impl Holder {
    const PRIMARY: u32 = 1 << 31;
    const CONSISTENT: u32 = 1 << 30;

    /// Nobody yet.
    pub(super) const VACANT: Self = Self(u32::MAX);

    /// No place of a row, and a row that is elsewhere, in a list of rows of one length.
    pub(super) const NONE: Self = Self(Self::CONSISTENT - 1);
    pub(super) const ELSEWHERE: Self = Self(Self::CONSISTENT | Self::NONE.0);

    /// The largest number that a member can have.
    pub const MEMBER_MAX: u32 = Self::CONSISTENT - 2;

    /// The same if it `stays`, else nobody.
    #[inline]
    pub(super) fn or_vacant(self, stays: bool) -> Self {
        Self(self.0 | u32::from(stays).wrapping_sub(1))
    }

    /// What both have in common.
    #[inline]
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// A replica at `member`, at most [`Holder::MEMBER_MAX`], that is not consistent yet.
    pub fn new(member: u32) -> Self {
        debug_assert!(member <= Self::MEMBER_MAX);
        Self(member & (Self::CONSISTENT - 1))
    }

    /// The same as the item's primary.
    #[must_use]
    pub fn primary(self) -> Self {
        Self(self.0 | Self::PRIMARY)
    }

    /// The same, as the item's primary if it is to `become` it.
    #[inline]
    pub(super) fn primary_if(self, become_it: bool) -> Self {
        Self(self.0 | u32::from(become_it) << 31)
    }

    /// The same at another member.
    pub(super) fn at(self, member: u32) -> Self {
        Self(self.0 & !(Self::CONSISTENT - 1) | member)
    }

    /// The same as a replica that is no primary.
    #[must_use]
    pub fn replica(self) -> Self {
        Self(self.0 & !Self::PRIMARY)
    }

    /// The same, consistent.
    #[must_use]
    pub fn consistent(self) -> Self {
        Self(self.0 | Self::CONSISTENT)
    }

    /// The member's number.
    pub fn member(self) -> u32 {
        self.0 & (Self::CONSISTENT - 1)
    }

    /// Whether it is the item's primary.
    pub fn is_primary(self) -> bool {
        self.0 & Self::PRIMARY != 0
    }

    /// Whether (one or zero) it is the same member as `before`, and if so, whether it is the primary no
    /// more.
    #[inline]
    pub(super) fn after(self, before: Self) -> (u32, u32) {
        // What is zero borrows.
        let differ = self.0 ^ before.0;
        let same = (differ & (Self::CONSISTENT - 1)).wrapping_sub(1) >> 31;
        (same, same & (differ & before.0) >> 31)
    }

    /// What tells holders apart, in the lowest bits the member's number; of nobody all bits.
    #[inline]
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// Whether it is consistent.
    pub fn is_consistent(self) -> bool {
        self.0 & Self::CONSISTENT != 0
    }
}

/// Rows of at most so many holders are compared pair by pair.
const SHORT: usize = 32;

/// The holders without a second mention of a member, a member that is not there, and a second
/// primary. `None`: there is nothing of that.
pub(super) fn sanitised(holders: &[Holder], members: usize) -> Option<Vec<Holder>> {
    let known = |holder: &Holder| (holder.member() as usize) < members;
    let primaries = holders.iter().filter(|holder| holder.is_primary()).count();
    let distinct = if holders.len() <= SHORT {
        let differs = |(at, holder): (usize, &Holder)| {
            holders[..at].iter().all(|earlier| earlier.member() != holder.member())
        };
        holders.iter().enumerate().all(differs)
    } else {
        let mut members: Vec<u32> = holders.iter().map(|holder| holder.member()).collect();
        members.sort_unstable();
        members.windows(2).all(|pair| pair[0] != pair[1])
    };
    if distinct && primaries <= 1 && holders.iter().all(known) {
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut sane: Vec<Holder> = Vec::new();
    for holder in holders.iter().filter(|holder| known(holder)) {
        if seen.insert(holder.member()) {
            let second = holder.is_primary() && sane.iter().any(|other| other.is_primary());
            sane.push(if second { holder.replica() } else { *holder });
        }
    }
    Some(sane)
}

/// Does something with a row; with one of three places, as most have, so that the compiler knows their
/// number, and loops over them ask nothing at each.
#[inline]
pub(super) fn unrolled<R>(row: &[Holder], act: impl Fn(&[Holder]) -> R) -> R {
    match row {
        [one, two, three] => act(&[*one, *two, *three]),
        row => act(row),
    }
}

/// What `of` says of any holder of a row, all together, and what it says of the primary; without a branch,
/// because nobody can guess who that is.
#[inline]
pub(super) fn said(row: &[Holder], of: impl Fn(Holder) -> u8) -> (u8, u8) {
    row.iter().fold((0, 0), |(any, crowned), holder| {
        let said = of(*holder);
        (any | said, crowned | if holder.is_primary() { said } else { 0 })
    })
}

/// The places of a row that suit, of the first 64, each a bit: all are found before anything is done with
/// one, because nobody can guess where they are.
#[inline]
pub(super) fn places(row: &[Holder], suits: impl Fn(Holder) -> bool) -> u64 {
    unrolled(row, |row| {
        let places = row.iter().take(64).zip(0..);
        places.fold(0, |all, (holder, at)| all | u64::from(suits(*holder)) << at)
    })
}

/// The first place of a row, from one on, that suits.
#[inline]
pub(super) fn first(row: &[Holder], from: usize, suits: impl Fn(Holder) -> bool) -> Option<usize> {
    // Of a row from its beginning, which has mostly one that suits, all are asked.
    if from == 0 && row.len() <= 64 {
        let places = places(row, suits);
        return (places != 0).then(|| places.trailing_zeros() as usize);
    }
    (from..row.len()).find(|at| suits(row[*at]))
}

/// The item's primary, among its holders; found without a branch, because nobody can guess where it is.
#[inline]
pub(super) fn primary(holders: &[Holder]) -> Option<Holder> {
    let most =
        unrolled(holders, |holders| holders.iter().fold(0, |most, holder| holder.0.max(most)));
    (most & Holder::PRIMARY != 0).then_some(Holder(most))
}

/// Whether it is seen at once that all in a row held the item before, each in its place.
#[inline]
pub(super) fn stays(row: &[Holder], held: &[Holder]) -> bool {
    let stays = |(holder, before): (&Holder, &Holder)| holder.after(*before).0;
    let all = |row: &[Holder], held: &[Holder]| {
        row.iter().zip(held).map(stays).fold(1, |all, one| all & one) != 0
    };
    match (<&[_; 3]>::try_from(row), <&[_; 3]>::try_from(held)) {
        (Ok(row), Ok(held)) => all(row, held),
        _ => row.len() <= held.len() && all(row, held),
    }
}

/// Whether a member is among the holders.
pub(super) fn holds(holders: &[Holder], member: u32) -> bool {
    unrolled(holders, |holders| {
        holders.iter().fold(false, |any, holder| any | (holder.member() == member))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_suits_is_found_in_rows_of_any_length() {
        for len in [0, 1, 3, 64, 65, 130] {
            let row: Vec<Holder> = (0..len).map(Holder::new).collect();
            for from in [0, 1, 64, 129] {
                for sought in [0, 2, 63, 64, 129] {
                    let found = first(&row, from, |holder| holder.member() == sought);
                    let is_there = sought < len && from <= sought as usize;
                    assert_eq!(found, is_there.then_some(sought as usize), "{len} {from}");
                }
            }
        }
    }
}
