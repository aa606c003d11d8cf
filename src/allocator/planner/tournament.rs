//! The zones of one class of items as a tournament: the one that lacks most wins.

/// See the [module](self). A change costs as many matches as there are rounds.
#[derive(Clone, Debug)]
pub(super) struct Tournament {
    /// By zone, how many replicas are still to come there; less than none, if there are too many.
    need: Vec<i64>,
    /// What the winner of each match lacks, and who that is: `winner[1]` won the final, and
    /// `winner[n]` the match between `winner[2n]` and `winner[2n + 1]`; in the end come the zones
    /// themselves, up to a power of two. Who does not take part is [`OUT`].
    winner: Vec<(i64, usize)>,
    /// Decides between equals, so that zones do not take turns in an order that items follow too.
    coin: u64,
}

const OUT: i64 = i64::MIN / 4;

impl Tournament {
    pub(super) fn new(need: &[i64], open: impl Iterator<Item = bool>) -> Self {
        let zones = need.len().next_power_of_two();
        let mut winner = vec![(OUT, 0); zones];
        let entry =
            |((zone, need), open): ((usize, &i64), bool)| (if open { *need } else { OUT }, zone);
        winner.extend(need.iter().enumerate().zip(open).map(entry));
        winner.resize(2 * zones, (OUT, 0));
        let mut tournament = Self { need: need.to_vec(), winner, coin: 1 };
        for game in (1..zones).rev() {
            tournament.play(game);
        }
        tournament
    }

    #[inline]
    fn play(&mut self, game: usize) {
        let (left, right) = (self.winner[2 * game], self.winner[2 * game + 1]);
        self.coin = self.coin.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        // Half a replica for the left or for nobody: no branch, because nobody can guess it.
        let stays = 2 * left.0 + i64::from(self.coin >> 63 == 0) > 2 * right.0;
        self.winner[game] = if stays { left } else { right };
    }

    #[inline]
    fn set(&mut self, zone: usize, need: i64) {
        let place = self.winner.len() / 2 + zone;
        self.winner[place].0 = need;
        let mut game = place / 2;
        while game > 0 {
            self.play(game);
            game /= 2;
        }
    }

    /// Of those that take part, the zone that lacks most.
    #[inline]
    pub(super) fn best(&self) -> Option<usize> {
        let (need, zone) = self.winner[1];
        (need != OUT).then_some(zone)
    }

    /// How many replicas are still to come to a zone.
    pub(super) fn need(&self, zone: usize) -> i64 {
        self.need[zone]
    }

    /// Changes that.
    #[inline]
    pub(super) fn change(&mut self, zone: usize, by: i64) {
        self.need[zone] += by;
        let place = self.winner.len() / 2 + zone;
        if self.winner[place].0 != OUT {
            self.set(zone, self.need[zone]);
        }
    }

    /// Takes a zone out.
    pub(super) fn hide(&mut self, zone: usize) {
        self.set(zone, OUT);
    }

    /// Brings it back.
    pub(super) fn show(&mut self, zone: usize) {
        self.set(zone, self.need[zone]);
    }
}
