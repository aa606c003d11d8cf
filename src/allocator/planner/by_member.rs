//! A table by member that is read millions of times: nothing is asked at each whether there is such a member.

use std::ops::{Deref, DerefMut};

use super::holder::Holder;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ByMember<T> {
    /// A power of two, at least one more than there are members: the rest is what is said of nobody.
    of: Vec<T>,
    members: usize,
}

impl<T: Copy> ByMember<T> {
    /// What is known of each member, and of nobody.
    pub(super) fn new(of: impl Iterator<Item = T>, nobody: T) -> Self {
        let mut of: Vec<T> = of.collect();
        let members = of.len();
        of.resize((members + 1).next_power_of_two(), nobody);
        Self { of, members }
    }

    /// The same for many readings.
    #[inline]
    pub(super) fn read(&self) -> Table<'_, T> {
        // With that, the compiler knows that any number has a place under the mask.
        assert!(!self.of.is_empty(), "there is always a place for nobody");
        Table { of: &self.of, mask: self.of.len() - 1 }
    }
}

impl<T: Copy + Default> Default for ByMember<T> {
    fn default() -> Self {
        Self::new(std::iter::empty(), T::default())
    }
}

impl<T> Deref for ByMember<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.of[..self.members]
    }
}

impl<T> DerefMut for ByMember<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.of[..self.members]
    }
}

/// The table, to be read.
#[derive(Clone, Copy)]
pub(super) struct Table<'t, T> {
    of: &'t [T],
    mask: usize,
}

impl<T: Copy> Table<'_, T> {
    /// What is known of a holder, which is one of the members; of a vacant place, what is said of nobody.
    #[inline]
    pub(super) fn of(self, holder: Holder) -> T {
        debug_assert!(holder == Holder::VACANT || holder.member() as usize <= self.mask);
        self.of[holder.bits() as usize & self.mask]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_has_its_own_and_a_vacant_place_is_nobodys() {
        for members in [0, 1, 2, 3, 4, 7, 8, 9] {
            let table = ByMember::new(0..members, u32::MAX);
            assert_eq!(table.to_vec(), (0..members).collect::<Vec<u32>>());
            let of = |holder: Holder| table.read().of(holder);
            for member in 0..members {
                let holder = Holder::new(member);
                assert_eq!([of(holder), of(holder.primary().consistent())], [member; 2]);
            }
            assert_eq!(of(Holder::VACANT), u32::MAX);
        }
    }
}
