//! The zones of one class of items as a tournament: the one that lacks most wins.

/// See the [module](self). A change costs as many matches as there are rounds.
#[derive(Clone, Debug)]
pub(super) struct Tournament {
    /// By zone, how many replicas are still to come there; less than none, if there are too many.
    need: Vec<i64>,
    /// By zone, whether it does not take part.
    hidden: Vec<bool>,
    /// The winners of all matches: `winner[1]` of the final, and `winner[n]` of the match between
    /// `winner[2n]` and `winner[2n + 1]`.
    winner: Vec<u32>,
}

impl Tournament {
    pub(super) fn new(need: &[i64], open: impl Iterator<Item = bool>) -> Self {
        let zones = need.len().next_power_of_two();
        let mut need = need.to_vec();
        need.resize(zones, 0);
        let mut hidden: Vec<bool> = open.map(|open| !open).collect();
        hidden.resize(zones, true);
        let mut winner: Vec<u32> = (0..).take(zones).collect();
        winner.splice(0..0, std::iter::repeat_n(0, zones));
        let mut tournament = Self { need, hidden, winner };
        for game in (1..zones).rev() {
            tournament.play(game);
        }
        tournament
    }

    fn play(&mut self, game: usize) {
        let (left, right) = (self.winner[2 * game], self.winner[2 * game + 1]);
        let rank = |zone: u32| (!self.hidden[zone as usize], self.need[zone as usize]);
        self.winner[game] = if rank(left) >= rank(right) { left } else { right };
    }

    fn replay(&mut self, zone: usize) {
        let mut game = (self.need.len() + zone) / 2;
        while game > 0 {
            self.play(game);
            game /= 2;
        }
    }

    /// Of those that take part, the zone that lacks most.
    pub(super) fn best(&self) -> Option<usize> {
        let best = self.winner[1] as usize;
        (!self.hidden[best]).then_some(best)
    }

    /// How many replicas are still to come to a zone.
    pub(super) fn need(&self, zone: usize) -> i64 {
        self.need[zone]
    }

    /// Changes that.
    pub(super) fn change(&mut self, zone: usize, by: i64) {
        self.need[zone] += by;
        self.replay(zone);
    }

    /// Takes a zone out.
    pub(super) fn hide(&mut self, zone: usize) {
        self.hidden[zone] = true;
        self.replay(zone);
    }

    /// Brings it back.
    pub(super) fn show(&mut self, zone: usize) {
        self.hidden[zone] = false;
        self.replay(zone);
    }
}
