//! What stands in the log, and how it is applied: each proposal once, and time only by who leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::store::{
    error::Refusal,
    machine::{self, Command, Config, Machine, Outcome, Restore, SnapshotError},
    txn::{OpResponse, TxnResponse},
};

/// How long the answers to a client are kept after its last command, in the machine's time: far
/// longer than any deadline within which it may ask again.
const SESSION_AGE: Duration = Duration::from_secs(600);

/// An answer that is larger, in bytes, is not kept: who asks again hears that it was done.
const ANSWER_LEN: usize = 1 << 20;

/// How many sessions a part of a snapshot holds.
const PART_LEN: usize = 64;

/// What the host writes into its log for the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// From here on time is told by the node that drew this number.
    Lead(u64),
    /// A command of a client.
    Propose(Proposal),
}

impl Entry {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        match self {
            Self::Propose(Proposal { command: Command::Txn(txn), .. }) => 64 + txn.size(),
            Self::Propose(_) | Self::Lead(_) => 64,
        }
    }
}

/// A command of a client. Who sends it again sends the same client and number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Who sends it: a number that no other client has.
    pub client: u64,
    /// Which of its commands this is.
    pub number: u64,
    /// The client waits for no answer to a command of a lesser number.
    pub floor: u64,
    /// When, as the node that leads tells the time.
    pub stamp: Stamp,
    /// What is to be done.
    pub command: Command,
}

/// A moment, and who says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The number of the last [`Entry::Lead`] that its author has applied.
    pub leader: u64,
    /// The machine's time.
    pub at: Duration,
}

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// What the command did, now or when it first came, or why it was refused.
    Done(Result<Outcome, Refusal>),
    /// It was done when it first came, and the answer is not kept.
    Forgotten,
    /// Somebody else tells the time by now: it was not done, and is to be stamped again.
    Stale,
}

/// Who leads, and what was answered to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sessions {
    pub(super) leader: u64,
    clients: BTreeMap<u64, Session>,
    /// The same clients by when they were heard of last.
    used: BTreeSet<(Duration, u64)>,
}

/// What one client was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    floor: u64,
    used: Duration,
    /// `None`: it was done, and the answer was too large.
    answers: BTreeMap<u64, Option<Result<Outcome, Refusal>>>,
}

impl Sessions {
    /// Applies an entry. The same entries give the same answers and the same machine everywhere.
    pub(super) fn apply(&mut self, entry: Entry, machine: &mut Machine) -> Applied {
        let proposal = match entry {
            Entry::Lead(leader) => {
                self.leader = leader;
                return Applied::Done(Ok(Outcome::Done));
            }
            Entry::Propose(proposal) => proposal,
        };
        let Proposal { client, number, floor, stamp, command } = proposal;
        if let Some(session) = self.clients.get(&client) {
            match session.answers.get(&number) {
                Some(Some(answer)) => return Applied::Done(answer.clone()),
                Some(None) => return Applied::Forgotten,
                None if number < session.floor => return Applied::Forgotten,
                None => {}
            }
        }
        // One that led before may think that more time has passed than has for those who follow
        // it; a lease must not end by that.
        if stamp.leader != self.leader {
            return Applied::Stale;
        }
        let answer = machine.apply(command, stamp.at);
        self.note(client, number, floor, &answer, machine.now());
        Applied::Done(answer)
    }

    fn note(
        &mut self,
        client: u64,
        number: u64,
        floor: u64,
        answer: &Result<Outcome, Refusal>,
        now: Duration,
    ) {
        let session = self.clients.entry(client).or_default();
        self.used.remove(&(session.used, client));
        session.used = now;
        session.floor = session.floor.max(floor);
        session.answers = session.answers.split_off(&session.floor);
        let kept = (answer_len(answer) <= ANSWER_LEN).then(|| answer.clone());
        session.answers.insert(number, kept);
        self.used.insert((now, client));
        while let Some((used, client)) = self.used.first().copied()
            && used.saturating_add(SESSION_AGE) < now
        {
            self.used.pop_first();
            self.clients.remove(&client);
        }
    }
}

fn answer_len(answer: &Result<Outcome, Refusal>) -> usize {
    match answer {
        Ok(Outcome::Txn(done)) => response_len(done),
        Ok(Outcome::Lease { .. } | Outcome::Done) | Err(_) => 32,
    }
}

fn response_len(done: &TxnResponse) -> usize {
    let parts = done.responses.iter().map(|part| match part {
        OpResponse::Range(read) => {
            read.items.iter().map(|kv| 64 + kv.key.len() + kv.value.len()).sum()
        }
        OpResponse::Txn(nested) => response_len(nested),
        OpResponse::Put | OpResponse::Delete(_) => 16,
    });
    32 + parts.sum::<usize>()
}

/// A part of a snapshot. The parts come in a fixed order, and all are needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part(Content);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Content {
    Machine(machine::Part),
    Sessions(Vec<(u64, Session)>),
    End { leader: u64, sessions: usize },
}

pub(super) fn parts(machine: &Machine, sessions: &Sessions) -> impl Iterator<Item = Part> {
    let end = Content::End { leader: sessions.leader, sessions: sessions.clients.len() };
    let mut clients = sessions.clients.iter().peekable();
    let clients = std::iter::from_fn(move || {
        clients.peek()?;
        let mut part = Vec::new();
        let mut filled = 0;
        // Large answers get a part of their own.
        while part.len() < PART_LEN
            && filled < ANSWER_LEN
            && let Some((client, session)) = clients.next()
        {
            filled += session.answers.values().flatten().map(answer_len).sum::<usize>();
            part.push((*client, session.clone()));
        }
        Some(Content::Sessions(part))
    });
    machine.snapshot().map(Content::Machine).chain(clients).chain([end]).map(Part)
}

pub(super) fn restore(
    config: Config,
    parts: impl IntoIterator<Item = Part>,
) -> Result<(Machine, Sessions), SnapshotError> {
    let mut restore = Restore::new(config);
    let mut sessions = Sessions::default();
    let mut ended = false;
    for part in parts {
        if ended {
            return Err(SnapshotError("a part follows the last"));
        }
        match part.0 {
            Content::Machine(part) => restore.push(part)?,
            Content::Sessions(clients) => {
                for (client, session) in clients {
                    sessions.used.insert((session.used, client));
                    if sessions.clients.insert(client, session).is_some() {
                        return Err(SnapshotError("a client is there twice"));
                    }
                }
            }
            Content::End { leader, sessions: count } => {
                if sessions.clients.len() != count {
                    return Err(SnapshotError("parts are missing"));
                }
                sessions.leader = leader;
                ended = true;
            }
        }
    }
    if !ended {
        return Err(SnapshotError("parts are missing"));
    }
    Ok((restore.finish()?, sessions))
}
