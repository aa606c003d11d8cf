//! What stands at one revision, as far as the plan needs it: standings, limits, and who may leave.

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
    /// Since when it wants to leave, in any unit: the oldest goes first. `None`: it does not.
    pub exiting: Option<u64>,
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

/// What is left of each member's limit and share, after its standing and its wish to leave. Who gives
/// up a part of its limit gives up as much of its share.
pub fn seats(posts: &[Post], replication: &[u32]) -> Vec<Seat> {
    let stand = |post: &Post| post.standing.apply(Seat::new(post.zone, post.limit));
    let mut seats: Vec<Seat> = posts.iter().map(stand).collect();
    let limits: Vec<u32> = seats.iter().map(|seat| seat.limit).collect();
    let mut exiting: Vec<usize> = (0..posts.len()).collect();
    exiting.retain(|at| posts[*at].exiting.is_some());
    exiting.sort_by_key(|at| posts[*at].exiting);
    // Shares are whole numbers to the planner; where one is a fraction, thousandths are counted.
    let fractions = posts.iter().any(|post| post.weight().fract() != 0.0);
    let scale = if fractions { 1000.0 } else { 1.0 };
    let shed = shed(&limits, &exiting, replication);
    for ((seat, post), shed) in seats.iter_mut().zip(posts).zip(shed) {
        seat.limit -= shed;
        let left = f64::from(seat.limit) / f64::from(post.limit.max(1));
        seat.share = whole(post.weight() * scale * left);
    }
    seats
}

/// The nearest whole number that a share can be.
fn whole(share: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let whole = share.round() as u32;
    whole
}

/// How much of its limit each exiting member gives up now.
///
/// `exiting` are the numbers of the members that want to leave, the oldest first; it goes first. All
/// together give up no more than is spare beyond the replicas wanted, and as many members stay as
/// the item with most replicas needs. Who is not granted anything yet goes on working, and is asked
/// again when the picture changes. A member without a limit counts for nothing, and of a limit
/// counts what the number of items can fill.
pub fn shed(limits: &[u32], exiting: &[usize], replication: &[u32]) -> Vec<u32> {
    let items = u32::try_from(replication.len()).unwrap_or(u32::MAX);
    let fill = |member: usize| u64::from(limits[member].min(items));
    let slots: u64 = (0..limits.len()).map(fill).sum();
    let wanted: u64 = replication.iter().map(|wanted| u64::from(*wanted)).sum();
    let most = replication.iter().copied().max().unwrap_or(0) as usize;
    let working = limits.iter().filter(|limit| **limit > 0).count();
    let mut leave = working.saturating_sub(most);
    let mut spare = slots.saturating_sub(wanted);
    let mut shed = vec![0; limits.len()];
    for member in exiting.iter().copied().filter(|member| limits.get(*member) > Some(&0)) {
        if leave == 0 || spare == 0 {
            break;
        }
        let granted = fill(member).min(spare);
        // Where all that it could fill goes, the whole limit does.
        let kept = u32::try_from(fill(member) - granted).unwrap_or(0);
        shed[member] = limits[member] - kept;
        spare -= granted;
        leave -= 1;
    }
    shed
}
