//! What is held here: what the worker of each item was told, and what it is to be told next.

use std::{collections::BTreeMap, sync::Arc};

/// What happens to an item that is held here, or comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// It was assigned to this member.
    Assigned {
        /// Whether this member is its primary.
        primary: bool,
    },
    /// This member has become its primary.
    Promoted,
    /// This member is its primary no more, and goes on holding it.
    Demoted,
    /// Its value has changed.
    Updated,
    /// It is held here no more.
    Removed(Why),
}

/// Why an item is held here no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Why {
    /// It was given to other members, given back, or deleted.
    #[default]
    Unassigned,
    /// The member's lease has ended, or may have, or its key was deleted: others may hold the item
    /// already.
    Lost,
}

/// An item that is held here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub item: Arc<str>,
    /// Whether this member is its primary.
    pub primary: bool,
}

/// What is known of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The revision at which its key came to be.
    pub(super) since: u64,
    pub(super) primary: bool,
    /// Whether its member has not said anything of it.
    pub(super) blank: bool,
    /// The revision of the item's value.
    pub(super) item: u64,
}

#[derive(Debug, Default)]
struct Local {
    stands: Option<Facts>,
    told: Option<Facts>,
    busy: bool,
    /// It was lost with the lease, and whatever stands is another assignment.
    lost: bool,
}

impl Local {
    /// What is told next; and then it is told.
    fn next(&mut self) -> Option<Happening> {
        let why = if self.lost { Why::Lost } else { Why::Unassigned };
        if std::mem::take(&mut self.lost) && self.told.take().is_some() {
            return Some(Happening::Removed(why));
        }
        let (told, stands) = match (self.told, self.stands) {
            (None, None) => return None,
            (None, Some(stands)) => {
                self.told = Some(stands);
                return Some(Happening::Assigned { primary: stands.primary });
            }
            (Some(_), None) => {
                self.told = None;
                return Some(Happening::Removed(why));
            }
            (Some(told), Some(stands)) => (told, stands),
        };
        // A slot that changes takes along what was said; what is blank again was given anew.
        if stands.since != told.since && stands.blank && !told.blank {
            self.told = None;
            return Some(Happening::Removed(why));
        }
        let primary = Facts { primary: stands.primary, ..told };
        let item = Facts { item: stands.item, ..told };
        let (told, happening) = if primary != told {
            let promoted = stands.primary;
            (primary, if promoted { Happening::Promoted } else { Happening::Demoted })
        } else if item != told {
            (item, Happening::Updated)
        } else {
            self.told = Some(stands);
            return None;
        };
        self.told = Some(Facts { since: stands.since, blank: stands.blank, ..told });
        Some(happening)
    }
}

/// The items that are held here, or of which the worker has not been told that they are not.
#[derive(Debug, Default)]
pub(super) struct Locals {
    items: BTreeMap<Arc<str>, Local>,
    /// Nothing is taken, because there is no lease.
    lost: bool,
}

impl Locals {
    /// Takes note of what stands. Returns whether a worker is to be started for the item.
    pub(super) fn stands(&mut self, item: &Arc<str>, facts: Option<Facts>) -> bool {
        let facts = facts.filter(|_| !self.lost);
        if facts.is_none() && !self.items.contains_key(item) {
            return false;
        }
        let local = self.items.entry(Arc::clone(item)).or_default();
        local.stands = facts;
        !std::mem::replace(&mut local.busy, true)
    }

    /// What an item's worker does next. `None`: there is nothing to do, and it may end.
    pub(super) fn next(&mut self, item: &str) -> Option<Happening> {
        let local = self.items.get_mut(item)?;
        let next = local.next();
        local.busy = next.is_some();
        if next.is_none() && local.told.is_none() {
            self.items.remove(item);
        }
        next
    }

    /// An item's worker has ended before its work was done.
    pub(super) fn break_off(&mut self, item: &str) {
        if let Some(local) = self.items.get_mut(item) {
            local.busy = false;
            if local.told.is_none() && local.stands.is_none() {
                self.items.remove(item);
            }
        }
    }

    /// Nothing is held any more. Returns the items whose workers are to be started.
    pub(super) fn lose(&mut self) -> Vec<Arc<str>> {
        self.lost = true;
        for local in self.items.values_mut() {
            local.lost |= local.told.is_some();
        }
        let names: Vec<Arc<str>> = self.items.keys().cloned().collect();
        names.into_iter().filter(|name| self.stands(name, None)).collect()
    }

    /// There is a lease again.
    pub(super) fn take(&mut self) {
        self.lost = false;
    }

    /// Whether nothing is held, and no worker has anything to do.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn held(&self) -> Vec<Held> {
        let held = |(item, local): (&Arc<str>, &Local)| {
            Some(Held { item: Arc::clone(item), primary: local.stands?.primary })
        };
        self.items.iter().filter_map(held).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(since: u64, primary: bool, blank: bool, item: u64) -> Facts {
        Facts { since, primary, blank, item }
    }

    fn told(locals: &mut Locals, item: &Arc<str>, facts: Option<Facts>) -> Vec<Happening> {
        if !locals.stands(item, facts) {
            return Vec::new();
        }
        std::iter::from_fn(|| locals.next(item)).collect()
    }

    #[test]
    fn a_worker_is_told_of_one_thing_after_another() {
        let (mut locals, item) = (Locals::default(), Arc::from("i"));
        let assigned = Happening::Assigned { primary: false };
        assert_eq!(told(&mut locals, &item, Some(facts(5, false, true, 1))), [assigned]);
        assert_eq!(told(&mut locals, &item, Some(facts(5, false, false, 1))), []);
        let both = [Happening::Promoted, Happening::Updated];
        assert_eq!(told(&mut locals, &item, Some(facts(9, true, false, 2))), both);
        let again = [Happening::Removed(Why::Unassigned), Happening::Assigned { primary: true }];
        assert_eq!(told(&mut locals, &item, Some(facts(12, true, true, 2))), again);
        assert_eq!(told(&mut locals, &item, None), [Happening::Removed(Why::Unassigned)]);
        assert!(locals.is_empty());
    }

    #[test]
    fn what_comes_and_goes_while_a_worker_is_busy_is_not_told() {
        let (mut locals, item) = (Locals::default(), Arc::from("i"));
        assert!(locals.stands(&item, Some(facts(5, false, true, 1))));
        assert!(locals.next(&item).is_some());
        assert!(!locals.stands(&item, Some(facts(6, true, true, 1))), "it is busy");
        assert!(!locals.stands(&item, Some(facts(7, false, true, 1))));
        assert_eq!(locals.next(&item), None);
        assert_eq!(locals.held(), [Held { item, primary: false }]);
    }

    #[test]
    fn after_a_loss_nothing_is_taken_any_more() {
        let (mut locals, item) = (Locals::default(), Arc::from("i"));
        told(&mut locals, &item, Some(facts(5, true, true, 1)));
        assert_eq!(locals.lose(), [Arc::clone(&item)]);
        assert_eq!(locals.next(&item), Some(Happening::Removed(Why::Lost)));
        assert_eq!(locals.next(&item), None);
        assert!(!locals.stands(&item, Some(facts(8, true, true, 1))));
        assert!(locals.is_empty());
    }

    #[test]
    fn what_was_lost_while_a_worker_was_busy_is_told_as_lost_before_it_comes_again() {
        let (mut locals, item) = (Locals::default(), Arc::from("i"));
        assert!(locals.stands(&item, Some(facts(5, false, true, 1))));
        assert!(locals.next(&item).is_some());
        assert_eq!(locals.lose(), [] as [Arc<str>; 0], "its worker is busy");
        locals.take();
        assert!(!locals.stands(&item, Some(facts(9, true, true, 1))));
        let told: Vec<_> = std::iter::from_fn(|| locals.next(&item)).collect();
        let again = Happening::Assigned { primary: true };
        assert_eq!(told, [Happening::Removed(Why::Lost), again]);
    }
}
