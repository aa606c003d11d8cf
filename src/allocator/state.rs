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
    /// The same, and nothing new: what [`Shed`](Self::Shed) and [`NothingNew`](Self::NothingNew) both leave.
    ShedOnly(u32),
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
            Self::ShedOnly(items) => limit.saturating_sub(items).min(load),
            Self::Gone => 0,
        }
    }

    /// What is left of a seat, of a member that holds so many items. Its share shrinks with what is taken from
    /// it; who only gets nothing new keeps its share of all.
    pub(super) fn of(self, seat: Seat, load: u32) -> Seat {
        seat.lowered(self.keeps(seat.limit)).limited(self.limit(seat.limit, load))
    }

    /// What is left of a limit, however many items the member holds.
    pub(super) fn keeps(self, limit: u32) -> u32 {
        self.limit(limit, u32::MAX)
    }

    /// Of which items it may become the primary.
    pub fn primaries(self) -> Primaries {
        match self {
            Self::Full | Self::Shed(0) => Primaries::Any,
            Self::NoNewPrimaries
            | Self::NoPrimaries
            | Self::NothingNew
            | Self::Shed(_)
            | Self::ShedOnly(_)
            | Self::Gone => Primaries::Kept,
        }
    }

    /// Whether it gets no item that it does not hold.
    pub fn gets_nothing_new(self) -> bool {
        matches!(self, Self::NothingNew | Self::ShedOnly(_) | Self::Gone)
    }

    /// Whether it takes away items that a member holds.
    pub fn takes(self) -> bool {
        matches!(self, Self::Shed(1..) | Self::ShedOnly(1..) | Self::Gone)
    }

    /// Whether it may stay the primary of items that others hold too.
    pub fn keeps_primaries(self) -> bool {
        !matches!(self, Self::NoPrimaries | Self::Shed(1..) | Self::ShedOnly(_) | Self::Gone)
    }

    /// What is left where two words are said: never more than either of them leaves.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (less, more) = if self.rank() <= other.rank() { (self, other) } else { (other, self) };
        match (less, more) {
            (Self::NoPrimaries, Self::NothingNew) => Self::ShedOnly(0),
            (Self::NothingNew | Self::ShedOnly(_), Self::Shed(items)) => Self::ShedOnly(items),
            _ => more,
        }
    }

    /// How much it takes: the more, the greater.
    pub fn rank(self) -> (u8, u32, u8) {
        match self {
            Self::Full | Self::Shed(0) => (0, 0, 0),
            Self::NoNewPrimaries => (1, 0, 0),
            Self::NoPrimaries => (2, 0, 0),
            Self::NothingNew => (3, 0, 0),
            Self::Shed(items) => (4, items, 0),
            Self::ShedOnly(items) => (4, items, 1),
            Self::Gone => (5, 0, 0),
        }
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
            Self::ShedOnly(0) => f.write_str("gets nothing new, and hands its primaries over"),
            Self::ShedOnly(items) => write!(f, "sheds {items}, and gets nothing new"),
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
    let scale = scale(posts);
    let seat = |post: &Post| Seat {
        zone: post.zone,
        limit: post.limit,
        share: whole(post.weight() * scale),
        primaries: post.primaries,
    };
    posts.iter().map(seat).collect()
}

/// By what shares are multiplied, which are whole numbers to the planner: by one, if they are that and fit,
/// else by the power of ten with which the largest has seven digits.
fn scale(posts: &[Post]) -> f64 {
    let most = posts.iter().map(Post::weight).fold(0.0, f64::max);
    let are_whole = posts.iter().all(|post| post.weight().fract() == 0.0);
    if are_whole && most <= f64::from(u32::MAX) {
        return 1.0;
    }
    // The very smallest and largest numbers have no such power.
    10f64.powf((DIGITS - 1.0 - most.log10().floor()).min(f64::from(f64::MAX_10_EXP)))
}

/// So many digits has the largest share where not all are whole numbers.
const DIGITS: f64 = 7.0;

/// The nearest whole number that a share can be.
fn whole(share: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let whole = share.round() as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_any_size_are_as_unequal_as_they_were_told() {
        let shares = |told: &[f64]| {
            let post = |share: &f64| Post { limit: 9, share: Some(*share), ..Post::default() };
            let seats = seats(&told.iter().map(post).collect::<Vec<Post>>());
            seats.iter().map(|seat| seat.share).collect::<Vec<u32>>()
        };
        assert_eq!(shares(&[1.0, 2.0, 0.0]), [1, 2, 0]);
        assert_eq!(shares(&[1.5, 0.5]), [1_500_000, 500_000]);
        // Bytes of a disk, and parts of one.
        assert_eq!(shares(&[2e12, 1e12]), [2_000_000, 1_000_000]);
        assert_eq!(shares(&[5_000_000.5, 10_000_001.0]), [500_000, 1_000_000]);
        assert_eq!(shares(&[1e-9, 3e-9]), [1_000_000, 3_000_000]);
        assert_eq!(shares(&[1e308, 1e300]), [1_000_000, 0]);
        assert_eq!(shares(&[f64::MIN_POSITIVE, 0.0, 5e-324]), [2, 0, 0]);
        // What is no weight counts as if it were not told.
        assert_eq!(shares(&[-1.0, f64::NAN, f64::INFINITY, 18.0]), [9, 9, 9, 18]);
    }

    #[test]
    fn two_words_leave_no_more_than_either_of_them() {
        let all = [
            Standing::Full,
            Standing::NoNewPrimaries,
            Standing::NoPrimaries,
            Standing::NothingNew,
            Standing::Shed(0),
            Standing::Shed(3),
            Standing::Shed(9),
            Standing::ShedOnly(0),
            Standing::ShedOnly(3),
            Standing::ShedOnly(9),
            Standing::Gone,
        ];
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))) {
            let both = a.and(b);
            for (limit, load) in [(10, 0), (10, 4), (10, 10), (2, 2)] {
                let least = a.limit(limit, load).min(b.limit(limit, load));
                assert_eq!(both.limit(limit, load), least, "{a:?} and {b:?}");
            }
            let any = a.primaries() == Primaries::Any && b.primaries() == Primaries::Any;
            assert_eq!(both.primaries() == Primaries::Any, any, "{a:?} and {b:?}");
            let keeps = a.keeps_primaries() && b.keeps_primaries();
            assert_eq!(both.keeps_primaries(), keeps, "{a:?} and {b:?}");
            assert_eq!(both.takes(), a.takes() || b.takes(), "{a:?} and {b:?}");
        }
    }
}
