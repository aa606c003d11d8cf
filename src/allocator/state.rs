//! What a member may hold: its limit and share, and what its standing leaves of them.

use serde::{Deserialize, Serialize};

use super::problem::{Primaries, Seat};

/// What a member may hold, as judged from outside: by its health, or by a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// As many items as its limit says.
    #[default]
    Full,
    /// The same, but it becomes the primary of no item whose primary it is not.
    NoNewPrimaries,
    /// So many items fewer than its limit says.
    Shed(u32),
    /// Nothing: what it holds counts as lost.
    Gone,
}

impl Standing {
    /// What is left of a seat.
    pub fn apply(self, seat: Seat) -> Seat {
        match self {
            Self::Full => seat,
            Self::NoNewPrimaries => Seat { primaries: Primaries::Kept, ..seat },
            Self::Shed(items) => Seat { limit: seat.limit.saturating_sub(items), ..seat },
            Self::Gone => Seat { limit: 0, ..seat },
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
    /// What it may hold, as judged from outside.
    pub standing: Standing,
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

/// What is left of each member's limit and share after its standing. Who may hold less has as much
/// less of its share.
pub fn seats(posts: &[Post]) -> Vec<Seat> {
    // Shares are whole numbers to the planner; where one is a fraction, thousandths are counted.
    let fractions = posts.iter().any(|post| post.weight().fract() != 0.0);
    let scale = if fractions { 1000.0 } else { 1.0 };
    let seat = |post: &Post| {
        let seat = post.standing.apply(Seat::new(post.zone, post.limit));
        let left = f64::from(seat.limit) / f64::from(post.limit.max(1));
        Seat { share: whole(post.weight() * scale * left), ..seat }
    };
    posts.iter().map(seat).collect()
}

/// The nearest whole number that a share can be.
fn whole(share: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let whole = share.round() as u32;
    whole
}
