//! The seeded schedule of everything that goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::dice::Dice;
use crate::network::{Effect, Rule};
use crate::types::{clock, sleep};
use crate::world::{Discovery, World};

/// How something that went wrong becomes right again.
#[derive(Clone, Copy, Debug)]
enum Cure {
    Start(u64),
    EndRule(u64),
    DiskRuns(u64),
    DiskIsQuick(u64),
    StoreRuns(u64),
    DiscoveryAnswers,
}

/// Breaks things at random until the given time, then mends all.
pub(crate) async fn rage(world: Arc<World>, until: Duration) {
    let mut rage = Rage {
        dice: Dice::new(world.seed, "faults"),
        // Calm seeds let much happen between two faults; wild ones pile faults up.
        pause: Dice::new(world.seed, "mood").millis(200, 3000),
        world,
        cures: BTreeMap::new(),
        count: 0,
    };
    while clock() < until {
        let next = clock() + rage.dice.between(Duration::from_millis(20), rage.pause);
        rage.mend(next.min(until)).await;
        if clock() < until {
            rage.strike().await;
        }
    }
    rage.mend(Duration::MAX).await;
}

struct Rage {
    world: Arc<World>,
    dice: Dice,
    pause: Duration,
    /// By the time they are due, and a number.
    cures: BTreeMap<(Duration, u64), Cure>,
    count: u64,
}

impl Rage {
    /// Waits until the given time, doing the cures that fall due. At the end of time it does them
    /// all at once.
    async fn mend(&mut self, until: Duration) {
        while let Some(cure) = self.cures.first_entry() {
            let due = cure.key().0;
            if due > until {
                break;
            }
            let cure = cure.remove();
            if until < Duration::MAX {
                sleep(due.saturating_sub(clock())).await;
            }
            self.cure(cure);
        }
        if until < Duration::MAX {
            sleep(until.saturating_sub(clock())).await;
        }
    }

    fn cure(&self, cure: Cure) {
        self.world.oracle.note(format_args!("{cure:?}"));
        match cure {
            Cure::Start(id) => self.world.start(id),
            Cure::EndRule(rule) => self.world.network.end(rule),
            Cure::DiskRuns(id) => {
                self.world.disk(id).inspect(|disk| disk.set_hangs(false));
            }
            Cure::DiskIsQuick(id) => {
                self.world.disk(id).inspect(|disk| disk.set_slow(false));
            }
            Cure::StoreRuns(id) => {
                self.world.store(id).inspect(|store| store.set_stuck(false));
            }
            Cure::DiscoveryAnswers => self.world.set_discovery(Discovery::Whole),
        }
    }

    fn cure_after(&mut self, wait: Duration, cure: Cure) {
        self.count += 1;
        self.cures.insert((clock() + wait, self.count), cure);
    }

    /// Lets one thing go wrong.
    async fn strike(&mut self) {
        let ids = self.world.ids();
        let Some(one) = self.dice.pick(&ids) else { return };
        let leader = self.world.leader().map_or(one, |(id, _)| id);
        let victim = if self.dice.percent(30) { leader } else { one };
        let wait = self.dice.millis(50, 4000);
        match self.dice.below(14) {
            0..=2 => self.crash(victim, wait),
            3 => self.wipe(victim, wait).await,
            4 if self.dice.percent(30) => {
                for id in ids {
                    let wait = self.dice.millis(20, 1500);
                    self.crash(id, wait);
                }
            }
            4 | 5 => self.split(&ids, wait),
            6 => self.rule(&[victim], &others(&ids, victim), Effect::Cut, wait),
            7 => self.rule(&others(&ids, victim), &[victim], Effect::Cut, wait),
            8 => self.links(&ids, wait),
            9 => self.slow(&ids, victim, wait),
            10 => self.break_disk(victim, wait),
            11 => drop(self.dice.percent(50) && self.world.kill_for_long(one)),
            12 => self.break_discovery(wait),
            _ => {
                self.world.oracle.note(format_args!("n{victim} applies nothing for {wait:?}"));
                self.world.store(victim).inspect(|store| store.set_stuck(true));
                self.cure_after(wait, Cure::StoreRuns(victim));
            }
        }
    }

    fn crash(&mut self, id: u64, wait: Duration) {
        self.world.crash(id);
        self.cure_after(wait, Cure::Start(id));
    }

    /// Waits up to a second for a moment in which the server may lose its disk.
    async fn wipe(&mut self, id: u64, wait: Duration) {
        for _ in 0..500 {
            if self.world.crash_and_wipe(id) {
                return self.cure_after(wait, Cure::Start(id));
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Parts the servers into two halves that do not hear each other, or one not the other.
    fn split(&mut self, ids: &[u64], wait: Duration) {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for id in ids {
            if self.dice.percent(50) { left.push(*id) } else { right.push(*id) }
        }
        self.rule(&left, &right, Effect::Cut, wait);
        if self.dice.percent(75) {
            self.rule(&right, &left, Effect::Cut, wait);
        }
    }

    /// Breaks some single links, each in its own way and in one direction.
    fn links(&mut self, ids: &[u64], wait: Duration) {
        for _ in 0..=self.dice.below(5) {
            let (Some(from), Some(to)) = (self.dice.pick(ids), self.dice.pick(ids)) else { return };
            let effect = match self.dice.below(3) {
                0 => Effect::Cut,
                1 => Effect::Lossy(10 + self.dice.below(60)),
                _ => Effect::Stalled,
            };
            self.rule(&[from], &[to], effect, wait);
        }
    }

    fn slow(&mut self, ids: &[u64], id: u64, wait: Duration) {
        let effect = Effect::Slow(self.dice.millis(5, 60));
        self.rule(&[id], ids, effect, wait);
        self.rule(ids, &[id], effect, wait);
    }

    fn rule(&mut self, from: &[u64], to: &[u64], effect: Effect, wait: Duration) {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let rule = Rule { from: set(from), to: set(to), effect };
        let number = self.world.network.begin(rule);
        self.world
            .oracle
            .note(format_args!("rule {number}: {from:?} -> {to:?} {effect:?} for {wait:?}"));
        self.cure_after(wait, Cure::EndRule(number));
    }

    fn break_discovery(&mut self, wait: Duration) {
        let mood = match self.dice.below(3) {
            0 => Discovery::Silent,
            1 => Discovery::Less(0),
            _ => Discovery::Less(3),
        };
        self.world.oracle.note(format_args!("discovery is {mood:?} for {wait:?}"));
        self.world.set_discovery(mood);
        self.cure_after(wait, Cure::DiscoveryAnswers);
    }

    fn break_disk(&mut self, id: u64, wait: Duration) {
        let Some(disk) = self.world.disk(id) else { return };
        let hangs = self.dice.percent(50);
        self.world.oracle.note(format_args!("n{id} has a bad disk, hangs: {hangs}, for {wait:?}"));
        if hangs {
            disk.set_hangs(true);
            self.cure_after(wait, Cure::DiskRuns(id));
        } else {
            disk.set_slow(true);
            self.cure_after(wait, Cure::DiskIsQuick(id));
        }
    }
}

fn others(ids: &[u64], but: u64) -> Vec<u64> {
    ids.iter().copied().filter(|id| *id != but).collect()
}
