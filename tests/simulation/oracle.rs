//! What must hold of every run, checked at every event, and the trace of those events.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use raft_autopilot::autopilot::{Record, Step};

use crate::autopilot::number;
use crate::dice::mix;
use crate::memberships::Memberships;
pub(crate) use crate::memberships::{Claim, Goal};
use crate::types::{LogId, Membership, clock};

/// The all-knowing observer of one run: it sees every leader, every applied entry and every
/// acknowledged write, keeps the text trace, and remembers the first thing that went wrong.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    trace: String,
    /// Every message, folded into one word; written into the trace once a second.
    messages: u64,
    message_count: u64,
    checks: u64,
    leaders: BTreeMap<u64, u64>,
    /// By log index: the term of the entry applied there, and the digest of all up to it.
    applied: BTreeMap<u64, (u64, u64)>,
    /// By key: the value and the log index of every write that a client was told is done.
    acked: BTreeMap<u64, (u64, u64)>,
    memberships: Memberships,
    /// By leader and server: when the leader sent what the server acknowledged last.
    contacts: BTreeMap<(u64, u64), Duration>,
    /// By leader and server: when the server acknowledged to it first since it leads this time.
    met: BTreeMap<(u64, u64), Duration>,
    /// By leader and server: the boot that the last answered probe told, and when.
    probes: BTreeMap<(u64, u64), (u64, Duration)>,
    violation: Option<String>,
}

/// What a run amounted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) leaders: usize,
    pub(crate) applied: usize,
    pub(crate) acked: usize,
    pub(crate) crashes: usize,
    pub(crate) lost_disks: usize,
    /// Links that were cut, in one direction each.
    pub(crate) partitions: usize,
    pub(crate) snapshots_installed: usize,
    pub(crate) messages: u64,
    pub(crate) checks: u64,
    /// Steps that autopilot applied, by kind, and those of them that came into effect.
    pub(crate) votes: usize,
    pub(crate) removals: usize,
    pub(crate) additions: usize,
    pub(crate) joints_finished: usize,
    pub(crate) transfers: usize,
    pub(crate) steps_done: usize,
    /// Joint memberships that were committed.
    pub(crate) joints: usize,
    /// Verbs that were done.
    pub(crate) verbs_done: usize,
    /// Where servers work: how often one lost something by its health, and got something back.
    pub(crate) lowered: usize,
    pub(crate) returned: usize,
    /// How often a leader would have taken more than it may, and found that another one writes.
    pub(crate) held: usize,
    pub(crate) superseded: usize,
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, one| Self {
            leaders: sum.leaders + one.leaders,
            applied: sum.applied + one.applied,
            acked: sum.acked + one.acked,
            crashes: sum.crashes + one.crashes,
            lost_disks: sum.lost_disks + one.lost_disks,
            partitions: sum.partitions + one.partitions,
            snapshots_installed: sum.snapshots_installed + one.snapshots_installed,
            messages: sum.messages + one.messages,
            checks: sum.checks + one.checks,
            votes: sum.votes + one.votes,
            removals: sum.removals + one.removals,
            additions: sum.additions + one.additions,
            joints_finished: sum.joints_finished + one.joints_finished,
            transfers: sum.transfers + one.transfers,
            steps_done: sum.steps_done + one.steps_done,
            joints: sum.joints + one.joints,
            verbs_done: sum.verbs_done + one.verbs_done,
            lowered: sum.lowered + one.lowered,
            returned: sum.returned + one.returned,
            held: sum.held + one.held,
            superseded: sum.superseded + one.superseded,
        })
    }
}

impl Tally {
    /// What never happened, of all that a run of many seeds must have seen.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let seen = [
            ("crashes", self.crashes),
            ("lost disks", self.lost_disks),
            ("partitions", self.partitions),
            ("installed snapshots", self.snapshots_installed),
            ("changes of votes", self.votes),
            ("removals", self.removals),
            ("additions", self.additions),
            ("joint memberships", self.joints),
            ("joint memberships finished for another", self.joints_finished),
            ("transfers", self.transfers),
            ("steps done", self.steps_done),
            ("orders carried out", self.verbs_done),
        ];
        never(&seen)
    }

    /// The same of a run in which servers work.
    pub(crate) fn missing_of_work(&self) -> Vec<&'static str> {
        never(&[
            ("crashes", self.crashes),
            ("partitions", self.partitions),
            ("something taken by health", self.lowered),
            ("something given back", self.returned),
            ("a hold because too many looked bad", self.held),
            ("a leader that was superseded", self.superseded),
        ])
    }
}

fn never(seen: &[(&'static str, usize)]) -> Vec<&'static str> {
    seen.iter().filter(|(_, times)| *times == 0).map(|(what, _)| *what).collect()
}

impl Oracle {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one line of the trace.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        self.book().note(&text);
    }

    /// Records that an invariant broke; only the first counts.
    pub(crate) fn violated(&self, text: impl std::fmt::Display) {
        self.book().violated(&text);
    }

    /// The run ended in a panic. There is no clock any more to write it into the trace with.
    pub(crate) fn panicked(&self) {
        self.book().violation.get_or_insert_with(|| "the simulation panicked".to_owned());
    }

    /// A message was sent: not a line each, but part of the trace all the same.
    pub(crate) fn message(&self, from: u64, to: u64, kind: &str, fate: u64) {
        let mut book = self.book();
        let at = u64::try_from(clock().as_nanos()).unwrap_or(u64::MAX);
        let kind = kind.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte));
        let words = [at, from, to, kind, fate];
        book.messages = words.into_iter().fold(book.messages, mix);
        book.message_count += 1;
    }

    /// Closes a second of the trace.
    pub(crate) fn second(&self) {
        let mut book = self.book();
        let line = format!("messages {} digest {:016x}", book.message_count, book.messages);
        book.note(&line);
    }

    /// A server acts as the leader of a term: there is at most one for each.
    pub(crate) fn leads(&self, term: u64, id: u64) {
        let mut book = self.book();
        book.checks += 1;
        match book.leaders.get(&term) {
            Some(known) if *known == id => {}
            Some(known) => {
                let text = format!("two leaders in term {term}: {known} and {id}");
                book.violated(&text);
            }
            None => {
                book.leaders.insert(term, id);
                book.met.retain(|(leader, _), _| *leader != id);
                book.note(&format_args!("n{id} leads term {term}"));
            }
        }
    }

    /// A server applied an entry, or holds a snapshot that ends with it: everybody's history up to
    /// one index is the same.
    pub(crate) fn applied(&self, id: u64, log_id: &LogId, digest: u64) {
        let mut book = self.book();
        book.checks += 1;
        let seen = (log_id.leader_id.term, digest);
        match book.applied.get(&log_id.index) {
            Some(known) if *known == seen => {}
            Some(known) => {
                let text = format!(
                    "n{id} applied another history: at {} {seen:x?} instead of {known:x?}",
                    log_id.index
                );
                book.violated(&text);
            }
            None => {
                book.applied.insert(log_id.index, seen);
                book.note(&format_args!("n{id} applied {log_id} {digest:016x}"));
            }
        }
    }

    /// A client was told that its write is done.
    pub(crate) fn acked(&self, key: u64, value: u64, log_id: &LogId) {
        let mut book = self.book();
        book.checks += 1;
        book.note(&format_args!("acked {key}={value} at {log_id}"));
        book.acked.insert(key, (value, log_id.index));
        if book.applied.get(&log_id.index).is_none_or(|known| known.0 != log_id.leader_id.term) {
            let text = format!("acked {key}={value} at {log_id}, which nobody applied");
            book.violated(&text);
        }
    }

    /// Every acknowledged write is in the state of this server.
    pub(crate) fn holds_every_acked_write(&self, id: u64, data: &BTreeMap<u64, u64>) {
        let mut book = self.book();
        book.checks += 1;
        let lost = book.acked.iter().find(|(key, (value, _))| data.get(key) != Some(value));
        if let Some((key, (value, index))) = lost {
            let text = format!("n{id} lost the acknowledged write {key}={value} at {index}");
            book.violated(&text);
        }
    }

    /// A membership was applied for the first or the hundredth time.
    pub(crate) fn membership(&self, log_id: &LogId, membership: &Membership) {
        let mut book = self.book();
        if book.applied.contains_key(&log_id.index) {
            return;
        }
        book.checks += 1;
        let configs = membership.get_joint_config();
        let nodes: Vec<_> = membership.nodes().map(|(id, _)| *id).collect();
        book.note(&format_args!("membership {log_id}: {configs:?} of {nodes:?}"));
        if let Err(text) = book.memberships.commit(log_id, membership) {
            book.violated(&text);
        }
    }

    /// A record was applied for the first or the hundredth time.
    pub(crate) fn recorded(&self, log_id: &LogId, record: &Record) {
        let mut book = self.book();
        if !book.applied.contains_key(&log_id.index) {
            book.note(&format_args!("record {log_id}: {record:?}"));
            if let Record::Health(reports) = record {
                for report in reports {
                    book.memberships.names(number(&report.server));
                }
            }
        }
    }

    /// Autopilot is about to apply a step; the number stands for it.
    pub(crate) fn claims(&self, claim: Claim, step: &Step) -> Option<u64> {
        let mut book = self.book();
        book.checks += 1;
        book.memberships.claims(claim, step)
    }

    pub(crate) fn unclaimed(&self, number: u64) {
        self.book().memberships.unclaimed(number);
    }

    pub(crate) fn fulfilled(&self, number: u64) {
        let mut book = self.book();
        if let Err(text) = book.memberships.fulfilled(number) {
            book.violated(&text);
        }
    }

    /// A server is told that it was removed.
    pub(crate) fn dismissed(&self, id: u64) {
        let mut book = self.book();
        book.checks += 1;
        if book.memberships.has(id) {
            book.violated(&format_args!("n{id} is dismissed and is a member"));
        }
    }

    /// Whether a server belongs to the last membership.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.book().memberships.has(id)
    }

    /// Whether a server was ever the only voter.
    pub(crate) fn was_alone(&self, id: u64) -> bool {
        self.book().memberships.alone.contains(&id)
    }

    /// Whether a server ever voted.
    pub(crate) fn was_voter(&self, id: u64) -> bool {
        self.book().memberships.voted.contains(&id)
    }

    /// Whoever must not return.
    pub(crate) fn gone(&self) -> Vec<u64> {
        self.book().memberships.gone()
    }

    /// A server acknowledged what a leader sent at the given time.
    pub(crate) fn acknowledged(&self, (leader, id): (u64, u64), sent: Duration) {
        let mut book = self.book();
        let last = book.contacts.entry((leader, id)).or_default();
        *last = sent.max(*last);
        book.met.entry((leader, id)).or_insert(sent);
    }

    /// Whether a server had acknowledged something to a leader, in this leadership, before a time.
    pub(crate) fn met_before(&self, leader: u64, id: u64, time: Duration) -> bool {
        self.book().met.get(&(leader, id)).is_some_and(|met| *met < time)
    }

    /// When a leader sent what a server acknowledged last.
    pub(crate) fn contact(&self, leader: u64, id: u64) -> Option<Duration> {
        self.book().contacts.get(&(leader, id)).copied()
    }

    /// A server answered a leader's probe.
    pub(crate) fn probed(&self, pair: (u64, u64), boot: u64) {
        self.book().probes.insert(pair, (boot, clock()));
    }

    /// The boot that a server's last answer told a leader, and when.
    pub(crate) fn last_probe(&self, leader: u64, id: u64) -> Option<(u64, Duration)> {
        self.book().probes.get(&(leader, id)).copied()
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.book().violation.clone()
    }

    pub(crate) fn trace(&self) -> String {
        self.book().trace.clone()
    }

    pub(crate) fn tally(&self) -> Tally {
        let book = self.book();
        let steps = |kind| book.memberships.steps.get(kind).copied().unwrap_or_default();
        Tally {
            leaders: book.leaders.len(),
            applied: book.applied.len(),
            acked: book.acked.len(),
            crashes: book.trace.matches(" crashes\n").count(),
            lost_disks: book.trace.matches(" loses its disk\n").count(),
            partitions: book.trace.matches(" Cut for ").count(),
            snapshots_installed: book.trace.matches(" installed a snapshot ").count(),
            messages: book.message_count,
            checks: book.checks,
            votes: steps("votes"),
            removals: steps("remove"),
            additions: steps("add"),
            joints_finished: steps("finish-joint"),
            transfers: steps("transfer"),
            steps_done: book.memberships.fulfilled,
            joints: book.memberships.joints,
            verbs_done: book.trace.matches(" is answered: Ok").count(),
            lowered: book.trace.matches(" loses by its health: ").count(),
            returned: book.trace.matches(" gets back: ").count(),
            held: book.trace.matches(" holds: TooMany").count(),
            superseded: book.trace.matches(" holds: Superseded").count(),
        }
    }
}

impl Book {
    fn note(&mut self, text: &dyn std::fmt::Display) {
        let at = clock();
        writeln!(self.trace, "{:>2}.{:06} {text}", at.as_secs(), at.subsec_micros())
            .expect("a string takes every line");
    }

    fn violated(&mut self, text: &dyn std::fmt::Display) {
        self.note(&format_args!("VIOLATION {text}"));
        self.violation.get_or_insert_with(|| text.to_string());
    }
}
