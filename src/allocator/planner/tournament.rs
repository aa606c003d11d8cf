//! The zones of one class of items as a tournament: the one that lacks most wins.

/// See the [module](self). A change costs as many matches as there are rounds.
#[derive(Clone, Debug)]
pub(super) struct Tournament {
    /// By zone, how many replicas are still to come there; less than none, if there are too many.
    need: Vec<i64>,
    /// What the winner of each match lacks: the first won the final, and number `n` the match between the
    /// four from `4 n + 1` on; in the end come the zones themselves, up to a power of four. Who does not
    /// take part is [`OUT`].
    lacks: Vec<i64>,
    /// And which zone that is.
    winner: Vec<u32>,
    /// Where those are.
    zones: usize,
    /// Decides between equals, so that zones do not take turns in an order that items follow too.
    coin: u64,
}

const OUT: i64 = i64::MIN / 4;

/// So many play a match.
const EACH: usize = 4;

impl Tournament {
    pub(super) fn new(need: &[i64], open: impl Iterator<Item = bool>) -> Self {
        let mut matches = 0;
        let mut round = 1;
        while round < need.len() {
            matches += round;
            round *= EACH;
        }
        let mut lacks = vec![OUT; matches];
        lacks.extend(need.iter().zip(open).map(|(need, open)| if open { *need } else { OUT }));
        lacks.resize(matches + round, OUT);
        let mut winner = vec![0; matches];
        winner.extend((0..).take(round));
        let need = need.to_vec();
        let mut tournament = Self { need, lacks, winner, zones: matches, coin: 1 };
        for game in (0..matches).rev() {
            tournament.play(game);
        }
        tournament
    }

    #[inline]
    fn play(&mut self, game: usize) {
        self.coin = self.coin.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        let first = EACH * game + 1;
        let Some(four) = self.lacks[first..].first_chunk::<EACH>() else { return };
        // Of equals the first from the coin on: no branch, because nobody can guess who wins.
        let coin = (self.coin >> 62) as usize;
        let (mut best, mut most) = (coin, four[coin]);
        for at in [coin + 1, coin + 2, coin + 3].map(|at| at % EACH) {
            let better = four[at] > most;
            (best, most) = if better { (at, four[at]) } else { (best, most) };
        }
        (self.lacks[game], self.winner[game]) = (most, self.winner[first + best]);
    }

    #[inline]
    fn set(&mut self, zone: usize, need: i64) {
        let mut place = self.zones + zone;
        self.lacks[place] = need;
        while place > 0 {
            place = (place - 1) / EACH;
            self.play(place);
        }
    }

    /// Of those that take part, the zone that lacks most.
    #[inline]
    pub(super) fn best(&self) -> Option<usize> {
        (self.lacks[0] != OUT).then_some(self.winner[0] as usize)
    }

    /// How many replicas are still to come to a zone.
    pub(super) fn need(&self, zone: usize) -> i64 {
        self.need[zone]
    }

    /// Changes that.
    #[inline]
    pub(super) fn change(&mut self, zone: usize, by: i64) {
        self.need[zone] += by;
        let place = self.zones + zone;
        if self.lacks[place] != OUT {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_lacks_most_wins_however_many_take_part() {
        for zones in [1, 2, 3, 4, 5, 16, 17, 70] {
            let mut needs: Vec<i64> = (0..zones).map(|zone| zone * 7 % 5).collect();
            let open = |zone: usize| zone % 4 != 3;
            let mut tournament = Tournament::new(&needs, (0..needs.len()).map(open));
            let mut hidden: Option<usize> = None;
            for turn in 0..200 {
                let takes_part = |zone: &usize| open(*zone) && Some(*zone) != hidden;
                let most = (0..needs.len()).filter(takes_part).map(|zone| needs[zone]).max();
                let best = tournament.best();
                assert_eq!(best.map(|zone| needs[zone]), most, "{zones} zones, turn {turn}");
                assert!(best.iter().all(takes_part), "{zones} zones, turn {turn}");
                if let Some(zone) = hidden.take() {
                    tournament.show(zone);
                } else if let Some(zone) = best {
                    tournament.change(zone, -1);
                    needs[zone] -= 1;
                    if turn % 3 == 0 {
                        tournament.hide(zone);
                        hidden = Some(zone);
                    }
                }
            }
        }
    }

    #[test]
    fn equals_do_not_win_in_turns() {
        let mut tournament = Tournament::new(&[1_000; 3], [true; 3].into_iter());
        let mut after = [[0; 3]; 3];
        let mut last = 0;
        while let Some(zone) = tournament.best().filter(|zone| tournament.need(*zone) > 0) {
            tournament.change(zone, -1);
            after[last][zone] += 1;
            last = zone;
        }
        assert!((0..3).all(|zone| after[zone].iter().all(|times| *times > 50)), "{after:?}");
    }
}
