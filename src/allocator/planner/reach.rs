//! Handing primaries on along ways that are found by reading all rows in their order.
//!
//! Whoever can help is near. As the rows come by, whoever may hand a primary to somebody near, or take one
//! from there, becomes near too, one step further; and who is off and near hands one on, or takes one, one
//! step nearer, whereby the next may become off instead. Who still is far when a reading changes nothing is
//! closed: nobody of those finds any help. It needs no lists, and does not wait for the memory: where many
//! are off that is less than to look each of them up.

use super::{
    draft::Draft,
    kinds::narrow,
    primaries::{Election, End},
    problem::{Holder, primary, said},
    routes::Passing,
};

/// What all rows say of those of a part who are off.
pub(super) enum Reading {
    /// These find no help, and all are among them who are off.
    Closed(Vec<u32>),
    /// Nobody is off any more, or there is help, but it is not found so.
    Open,
}

impl<D: Draft> Election<'_, D> {
    /// Helps those of a part who are off at an end.
    pub(super) fn read_rows(&mut self, part: &[u32]) -> Reading {
        for _ in 0..ROUNDS {
            let off = part.iter().filter(|member| self.gives(**member));
            let items = off.map(|member| self.filled.loads[*member as usize] as usize);
            let items: usize = items.sum();
            if items == 0 || items < self.filled.draft.len() / MANY {
                return Reading::Open;
            }
            let before = self.left();
            let mut reach = Reach::new(self, part);
            let mut settled = false;
            // Where something was handed on, who is near is looked for anew.
            for _ in 0..READINGS {
                let changes = reach.changes;
                self.read_once(&mut reach);
                settled = reach.changes == changes || reach.handed;
                if settled || self.left() == 0 {
                    break;
                }
            }
            if settled && !reach.handed {
                let far = |member: &u32| reach.seen[*member as usize] & Seen::FAR != 0;
                return Reading::Closed(part.iter().copied().filter(far).collect());
            }
            if self.left() == before {
                return Reading::Open;
            }
        }
        Reading::Open
    }

    /// How many primaries members are off at the end at hand.
    fn left(&self) -> i64 {
        if self.end == End::Over { self.off.0 } else { self.off.1 }
    }

    fn read_once(&mut self, reach: &mut Reach) {
        let (mut from, end) = (0, self.filled.draft.len());
        let hands_over = self.end == End::Over;
        let leads_on = |seen: &[u8], row: &[Holder]| {
            let (any, crowned) = said(row, |member| seen[member as usize]);
            let (from, to) = if hands_over { (crowned, any) } else { (any, crowned) };
            (from & (Seen::FAR | Seen::OFF)).min(1) & (to & Seen::NEAR).min(1) != 0
        };
        while let Some(item) = self.filled.draft.find(from, end, |row| leads_on(&reach.seen, row)) {
            self.read(item, reach);
            if self.left() == 0 {
                return;
            }
            from = item + 1;
        }
    }

    /// Reads a row that may lead on.
    fn read(&mut self, item: usize, reach: &mut Reach) {
        let Some(giver) = primary(self.holders(item)).map(Holder::member) else { return };
        for at in 0..self.holders(item).len() {
            let taker = self.holders(item)[at].member();
            let (from, to) = if self.end == End::Over { (giver, taker) } else { (taker, giver) };
            if reach.seen[to as usize] & Seen::NEAR == 0
                || self.giver(narrow(item), taker) != Some(giver)
            {
                continue;
            }
            reach.come(from, to);
            if self.gives(from)
                && reach.steps[to as usize] < reach.steps[from as usize]
                && (self.takes(to) || !self.gives(to))
            {
                self.move_primary(item, giver, taker);
                reach.handed = true;
                reach.changes += 1;
                reach.is_off(from, self.gives(from));
                reach.is_off(to, self.gives(to));
                if reach.steps[to as usize] == 0 && !self.takes(to) {
                    reach.is_far(to);
                }
                return;
            }
        }
    }
}

/// Who is near to help.
struct Reach {
    /// By member, what is [`Seen`] of it.
    seen: Vec<u8>,
    /// By member who is near, how many steps it is from there to help.
    steps: Vec<u32>,
    /// Whether any primary was handed on.
    handed: bool,
    /// How often anything changed.
    changes: usize,
}

/// What is known of a member: it is far from all help, or near; and it is off.
struct Seen;

impl Seen {
    const FAR: u8 = 1;
    const NEAR: u8 = 2;
    const OFF: u8 = 4;
}

impl Reach {
    fn new<D: Draft>(election: &Election<'_, D>, part: &[u32]) -> Self {
        let members = election.most.len();
        let (mut seen, mut steps) = (vec![0; members], vec![u32::MAX; members]);
        for member in part {
            let (seen, steps) = (&mut seen[*member as usize], &mut steps[*member as usize]);
            if election.takes(*member) {
                (*seen, *steps) = (Seen::NEAR, 0);
            } else {
                *seen = Seen::FAR | if election.gives(*member) { Seen::OFF } else { 0 };
            }
        }
        Self { seen, steps, handed: false, changes: 0 }
    }

    /// A member may hand to one that is near, or take from there.
    fn come(&mut self, from: u32, to: u32) {
        let seen = &mut self.seen[from as usize];
        if *seen & Seen::FAR != 0 {
            *seen ^= Seen::FAR | Seen::NEAR;
            self.steps[from as usize] = self.steps[to as usize] + 1;
            self.changes += 1;
        }
    }

    fn is_off(&mut self, member: u32, is: bool) {
        let seen = &mut self.seen[member as usize];
        *seen = *seen & !Seen::OFF | if is { Seen::OFF } else { 0 };
    }

    fn is_far(&mut self, member: u32) {
        let seen = &mut self.seen[member as usize];
        *seen = *seen & !Seen::NEAR | Seen::FAR;
        self.steps[member as usize] = u32::MAX;
    }
}

/// Who has one in so many of all items has so many that reading all is less than looking at those.
const MANY: usize = 64;

/// So often it is begun anew, as long as that helps, and so often all rows are read each time.
const ROUNDS: usize = 12;
const READINGS: usize = 6;
