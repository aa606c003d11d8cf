//! What the planner knows of a member, and by what rule it spreads items over zones.

use serde::{Deserialize, Serialize};

/// How the replicas of one item are spread over zones.
///
/// Each rule caps how many replicas of an item one zone takes, by how many the item wants. Where not all
/// replicas can be placed within it, more are placed, as few beyond it as possible, and the plan says how
/// many items break the rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneRule {
    /// At least two zones: no zone takes all the replicas of an item that wants two or more.
    #[default]
    Two,
    /// As many zones as possible: no second replica in a zone while another zone has none. Of an item that
    /// wants more replicas than there are zones none has more than its part, rounded up, with up to three
    /// zones; with more zones that is so as far as the rule asks for it already.
    Spread,
    /// At most so many replicas in a zone, at least one.
    MaxPerZone(u32),
}

impl ZoneRule {
    /// How many replicas of an item that wants so many one zone may take, if so many zones are open to it.
    pub fn cap(self, replication: u32, zones: u32) -> u32 {
        match self {
            Self::Two => replication.saturating_sub(1).max(1),
            Self::Spread => {
                let part = replication.div_ceil(zones.max(1)).max(1);
                // Where that leaves no zone out. Otherwise each second replica counts, and no zone is left
                // out for one either.
                let leaves_none_out = part.saturating_mul(zones.saturating_sub(1)) < replication;
                if leaves_none_out { part } else { 1 }
            }
            Self::MaxPerZone(cap) => cap.max(1),
        }
    }

    /// Whether an item that has so many replicas breaks the rule by so many that are beyond the cap: all
    /// that cannot be but beyond it are no breach of a rule that only asks for as many zones as possible.
    pub(super) fn is_broken(self, beyond: u64, replicas: u64, within: u64) -> bool {
        match self {
            Self::Spread => beyond > replicas.saturating_sub(within),
            Self::Two | Self::MaxPerZone(_) => beyond > 0,
        }
    }
}

/// Whether a member may become the primary of items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Primaries {
    /// Of every item that it holds.
    #[default]
    Any,
    /// Only of those whose primary it is already, unless nobody else holds the item.
    Kept,
}

/// What the planner knows of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    /// The number of its zone, from zero.
    pub zone: u32,
    /// How many items it may hold, after all that its standing takes away; zero for one that is gone.
    pub limit: u32,
    /// Its weight when items are shared out; zero counts as one. Usually the limit.
    pub share: u32,
    /// Whether it may become a primary.
    pub primaries: Primaries,
}

impl Seat {
    /// A member of `zone` that may hold `limit` items, and whose share is its limit.
    pub fn new(zone: u32, limit: u32) -> Self {
        Self { zone, limit, share: limit, primaries: Primaries::Any }
    }

    /// The same with at most this limit. Who gives up a part of its limit gives up as much of its share.
    #[must_use]
    pub fn lowered(self, limit: u32) -> Self {
        let limit = limit.min(self.limit);
        let share = u64::from(self.share) * u64::from(limit) / u64::from(self.limit.max(1));
        Self { limit, share: u32::try_from(share).unwrap_or(self.share), ..self }
    }

    /// The same with at most this limit, and the same share.
    #[must_use]
    pub fn limited(self, limit: u32) -> Self {
        Self { limit: limit.min(self.limit), ..self }
    }
}
