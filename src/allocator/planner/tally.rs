//! What is held, counted as rows are set: so it need not be counted again for each plan from there.
//!
//! Counted is what stands whatever members may hold: a member that is lost, or that comes, changes none of
//! it. Items are counted by kind, because a plan has to tell those apart.

/// How many replicas an item wants, and the number of its set of zones, as in a
/// [`Problem`](super::Problem).
pub(super) type Kind = (u32, u32);

/// A replica, as it is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub member: u32,
    pub is_primary: bool,
    pub is_consistent: bool,
}

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// In order.
    kinds: Vec<OfKind>,
    members: usize,
    /// Replicas that are not consistent.
    pub raw: u64,
    /// Whether there were more kinds than are counted.
    too_many: bool,
}

/// Items of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OfKind {
    pub kind: Kind,
    pub items: u32,
    of_member: Vec<Count>,
}

/// What a member holds: replicas in the lower half, and in the upper those of them that are primaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count(u64);

/// Of more kinds than this nothing is counted.
const KINDS_MAX: usize = 8;

impl Tally {
    /// Of so many members, and no items yet.
    pub(super) fn of_nothing(members: usize) -> Self {
        Self { members, ..Self::default() }
    }

    /// Where nobody counts.
    pub(super) fn unknown() -> Self {
        Self { too_many: true, ..Self::default() }
    }

    /// The kinds, if they are counted.
    pub(super) fn kinds(&self) -> Option<&[OfKind]> {
        (!self.too_many).then_some(&self.kinds)
    }

    /// How many replicas are wanted, if that is counted.
    pub(super) fn wanted(&self) -> Option<u64> {
        let wanted = |of_kind: &OfKind| u64::from(of_kind.kind.0) * u64::from(of_kind.items);
        self.kinds().map(|kinds| kinds.iter().map(wanted).sum())
    }

    /// Makes room for one more member.
    pub(super) fn add_member(&mut self) {
        self.members += 1;
        self.kinds.iter_mut().for_each(|kind| kind.of_member.push(Count::default()));
    }

    /// Counts one more item.
    #[inline]
    pub(super) fn add(&mut self, kind: Kind, row: impl Iterator<Item = Held>) {
        let Some(at) = self.find(kind) else { return };
        let OfKind { items, of_member, .. } = &mut self.kinds[at];
        *items += 1;
        for held in row {
            of_member[held.member as usize].0 += Count::of(held);
            self.raw += u64::from(!held.is_consistent);
        }
    }

    /// Counts an item of one kind as one of another.
    pub(super) fn change(&mut self, from: Kind, to: Kind, row: impl Iterator<Item = Held> + Clone) {
        let Some(at) = self.find(from).filter(|_| from != to) else { return };
        let OfKind { items, of_member, .. } = &mut self.kinds[at];
        *items -= 1;
        for held in row.clone() {
            of_member[held.member as usize].0 -= Count::of(held);
            self.raw -= u64::from(!held.is_consistent);
        }
        if *items == 0 {
            self.kinds.remove(at);
        }
        self.add(to, row);
    }

    /// Where a kind is counted, if all are.
    #[inline]
    fn find(&mut self, kind: Kind) -> Option<usize> {
        if self.too_many {
            return None;
        }
        self.kinds.iter().position(|other| other.kind == kind).or_else(|| self.begin(kind))
    }

    /// Begins to count a kind.
    #[cold]
    fn begin(&mut self, kind: Kind) -> Option<usize> {
        if self.kinds.len() == KINDS_MAX {
            *self = Self::unknown();
            return None;
        }
        let at = self.kinds.partition_point(|other| other.kind < kind);
        let of_member = vec![Count::default(); self.members];
        self.kinds.insert(at, OfKind { kind, items: 0, of_member });
        Some(at)
    }
}

impl OfKind {
    /// By member: replicas, and those of them that are primaries.
    pub(super) fn of_member(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.of_member.iter().map(|count| count.both())
    }
}

impl Count {
    #[inline]
    fn of(held: Held) -> u64 {
        1 | u64::from(held.is_primary) << 32
    }

    fn both(self) -> (u32, u32) {
        // Each item is counted in 32 bits, and for each member once.
        let half = |half: u64| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        (half(self.0), half(self.0 >> 32))
    }
}
