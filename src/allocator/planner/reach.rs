//! Handing primaries on along ways that are found by reading all rows in their order.
//!
//! Whoever can help is near. As the rows come by, whoever may hand a primary to somebody near, or take one
//! from there, becomes near too, one step further; and who is off and near hands one on, or takes one, one
//! step nearer, whereby the next may become off instead. Who still is far when a reading changes nothing is
//! closed: nobody of those finds any help. It needs no lists, and does not wait for the memory: where many
//! are off that is less than to look each of them up.
//!
//! Mostly those who stay far have few rows in which they might be helped, as they are the primaries of nearly
//! all that they hold. Such rows are listed as they come by, and then only those are read until nothing changes
//! there: if all who are far or off were listed, they are closed, and nothing else has to be read for that.

use super::{
    by_member::{ByMember, Table},
    draft::Draft,
    holder::{Holder, primary},
    kinds::narrow,
    primaries::{Election, End},
    routes::Passing,
};

/// What all rows say of those of a part who are off.
pub(super) enum Reading {
    /// These find no help, and all are among them who are off; and, if that is known, the items of which one
    /// of them may hand a primary to another one, and perhaps others.
    Closed(Vec<u32>, Option<Vec<u32>>),
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
                self.list(&mut reach, part);
                self.read_once(&mut reach);
                self.read_listed(&mut reach);
                let far = part.iter().copied().filter(|member| reach.has_no_help(*member));
                let far: Vec<u32> = far.collect();
                if far.iter().all(|member| reach.is_listed(*member)) && self.left() > 0 {
                    return Reading::Closed(far, Some(reach.rows));
                }
                settled = reach.changes == changes || reach.handed;
                if settled || self.left() == 0 {
                    break;
                }
            }
            if settled && !reach.handed {
                let far = |member: &u32| reach.seen[*member as usize] & Seen::FAR != 0;
                return Reading::Closed(part.iter().copied().filter(far).collect(), None);
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

    /// Has the rows listed in which those of a part who are far or off might get something, of those who are the
    /// primaries of nearly all that they hold.
    fn list(&self, reach: &mut Reach, part: &[u32]) {
        reach.rows.clear();
        reach.seen.iter_mut().for_each(|seen| *seen &= !Seen::LISTED);
        let few = |member: &u32| {
            let load = i64::from(self.filled.loads[*member as usize]);
            FEW * (load - self.primaries(*member)) <= load
        };
        let lists = self.end == End::Under;
        for member in part.iter().filter(|member| lists && few(member)) {
            if reach.has_no_help(*member) {
                reach.seen[*member as usize] |= Seen::LISTED;
            }
        }
    }

    /// Reads those that were listed, until nothing changes.
    fn read_listed(&mut self, reach: &mut Reach) {
        let rows = std::mem::take(&mut reach.rows);
        let mut changes = usize::MAX;
        while changes != reach.changes && self.left() > 0 {
            changes = reach.changes;
            for item in &rows {
                self.read(*item as usize, reach);
            }
        }
        reach.rows = rows;
    }

    fn read_once(&mut self, reach: &mut Reach) {
        let (mut from, end) = (0, self.filled.draft.len());
        let hands_over = self.end == End::Over;
        let ends = |seen: Table<'_, u8>, row: &[Holder]| {
            let (others, crowned) = said_apart(row, |holder| seen.of(holder));
            if hands_over { (crowned, others) } else { (others, crowned) }
        };
        // Where few look for help, nobody of most rows does: then that is guessed well.
        let looks = Seen::FAR | Seen::OFF | Seen::LISTED;
        let looking = reach.seen.iter().filter(|seen| **seen & looks != 0).count();
        let few = looking < reach.seen.len() / 16;
        let leads_on = |seen: Table<'_, u8>, row: &[Holder]| {
            if few && row.iter().fold(0, |all, holder| all | seen.of(*holder)) & looks == 0 {
                return false;
            }
            let (from, to) = ends(seen, row);
            let leads = (from & (Seen::FAR | Seen::OFF)).min(1) & (to & Seen::NEAR).min(1);
            (leads | from & Seen::LISTED) != 0
        };
        loop {
            let seen = reach.seen.read();
            let found = self.filled.draft.find(from, end, |row| leads_on(seen, row));
            let Some(item) = found else { return };
            if ends(seen, self.holders(item)).0 & Seen::LISTED != 0 {
                reach.rows.push(narrow(item));
            }
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
    seen: ByMember<u8>,
    /// By member who is near, how many steps it is from there to help.
    steps: Vec<u32>,
    /// Whether any primary was handed on.
    handed: bool,
    /// How often anything changed.
    changes: usize,
    /// The rows in which those who are listed might be helped.
    rows: Vec<u32>,
}

/// What is known of a member: it is far from all help, or near; and it is off; and its rows are listed, for as long
/// as it is far or off.
struct Seen;

impl Seen {
    const FAR: u8 = 1;
    const NEAR: u8 = 2;
    const OFF: u8 = 4;
    const LISTED: u8 = 8;
}

impl Reach {
    fn new<D: Draft>(election: &Election<'_, D>, part: &[u32]) -> Self {
        let members = election.most.len();
        let mut seen = ByMember::new(std::iter::repeat_n(0, members), 0);
        let mut steps = vec![u32::MAX; members];
        for member in part {
            let (seen, steps) = (&mut seen[*member as usize], &mut steps[*member as usize]);
            if election.takes(*member) {
                (*seen, *steps) = (Seen::NEAR, 0);
            } else {
                *seen = Seen::FAR | if election.gives(*member) { Seen::OFF } else { 0 };
            }
        }
        Self { seen, steps, handed: false, changes: 0, rows: Vec::new() }
    }

    /// Whether a member is far, or was not helped though it is near.
    fn has_no_help(&self, member: u32) -> bool {
        self.seen[member as usize] & (Seen::FAR | Seen::OFF) != 0
    }

    /// Whether a member is far, and was so when its rows were listed, and since.
    fn is_listed(&self, member: u32) -> bool {
        let both = Seen::FAR | Seen::LISTED;
        self.seen[member as usize] & both == both
    }

    /// A member may hand to one that is near, or take from there.
    fn come(&mut self, from: u32, to: u32) {
        let seen = &mut self.seen[from as usize];
        if *seen & Seen::FAR != 0 {
            *seen ^= Seen::FAR | Seen::NEAR;
            if *seen & Seen::OFF == 0 {
                *seen &= !Seen::LISTED;
            }
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

/// Up to one in so many of a member's rows are few.
const FEW: i64 = 4;

/// So often it is begun anew, as long as that helps, and so often all rows are read each time.
const ROUNDS: usize = 12;
const READINGS: usize = 6;

/// What `of` says of all holders of a row but the primary, together, and what it says of the primary; without a
/// branch too.
#[inline]
fn said_apart(row: &[Holder], of: impl Fn(Holder) -> u8) -> (u8, u8) {
    row.iter().fold((0, 0), |(others, crowned), holder| {
        let said = of(*holder);
        let crowns = if holder.is_primary() { u8::MAX } else { 0 };
        (others | said & !crowns, crowned | said & crowns)
    })
}
