//! What a member may hold: its limit and share, and what its standing leaves of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::planner::{Primaries, Seat};

/// What a member may hold, as judged from outside: by its health, or by a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// As many items as its limit says.
    #[default]
    Full,
    /// The same, but it becomes the primary of no item whose primary it is not.
    NoNewPrimaries,
    /// The same, but it is the primary of no item that anybody else holds too.
    NoPrimaries,
    /// What it holds, and nothing new; it becomes no primary either.
    NothingNew,
    /// So many items fewer than its limit says, and of what is left it is the primary only where nobody
    /// else holds the item.
    Shed(u32),
    /// Nothing.
    Gone,
}

impl Standing {
    /// What is left of a limit, of a member that holds so many items.
    pub fn limit(self, limit: u32, load: u32) -> u32 {
        match self {
            Self::Full | Self::NoNewPrimaries | Self::NoPrimaries => limit,
            Self::NothingNew => limit.min(load),
            Self::Shed(items) => limit.saturating_sub(items),
            Self::Gone => 0,
        }
    }

    /// Of which items it may become the primary.
    pub fn primaries(self) -> Primaries {
        match self {
            Self::Full | Self::Shed(0) => Primaries::Any,
            Self::NoNewPrimaries
            | Self::NoPrimaries
            | Self::NothingNew
            | Self::Shed(_)
            | Self::Gone => Primaries::Kept,
        }
    }

    /// Whether it takes away items that a member holds.
    pub fn takes(self) -> bool {
        matches!(self, Self::Shed(1..) | Self::Gone)
    }

    /// Whether it may stay the primary of items that others hold too.
    pub fn keeps_primaries(self) -> bool {
        !matches!(self, Self::NoPrimaries | Self::Shed(1..) | Self::Gone)
    }
}

/// In words, for people; nothing for a full one.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => Ok(()),
            Self::NoNewPrimaries => f.write_str("gets no new primaries"),
            Self::NoPrimaries => f.write_str("hands its primaries over"),
            Self::NothingNew => f.write_str("gets nothing new"),
            Self::Shed(items) => write!(f, "sheds {items}"),
            Self::Gone => f.write_str("holds nothing by its standing"),
        }
    }
}

/// What decides how much a member is to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Post {
    /// The number of its zone, from zero.
    pub zone: u32,
    /// How many items it may hold.
    pub limit: u32,
    /// Its weight when items are shared out. `None`, or no weight at all (negative, not a number):
    /// its limit.
    pub share: Option<f64>,
    /// Of which items it may become the primary.
    pub primaries: Primaries,
}

impl Post {
    /// Whether its share is one.
    pub fn has_sane_share(&self) -> bool {
        self.share.is_none_or(|share| share.is_finite() && share >= 0.0)
    }

    fn weight(&self) -> f64 {
        let share = self.share.filter(|_| self.has_sane_share());
        share.unwrap_or(f64::from(self.limit))
    }
}

/// The seats of members, with all that they may hold.
pub fn seats(posts: &[Post]) -> Vec<Seat> {
    // Shares are whole numbers to the planner; where one is a fraction, thousandths are counted.
    let fractions = posts.iter().any(|post| post.weight().fract() != 0.0);
    let scale = if fractions { 1000.0 } else { 1.0 };
    let seat = |post: &Post| Seat {
        zone: post.zone,
        limit: post.limit,
        share: whole(post.weight() * scale),
        primaries: post.primaries,
    };
    posts.iter().map(seat).collect()
}

/// The nearest whole number that a share can be.
fn whole(share: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let whole = share.round() as u32;
    whole
}
