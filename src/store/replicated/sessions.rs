//! What stands in the log, and how it is applied: each proposal once, and time only by who leads.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::store::{
    error::Refusal,
    machine::{self, Command, Machine, Outcome, Restore, SnapshotError},
    txn::{OpResponse, TxnResponse},
};

/// How long the answers to a client are kept after its last command, in the machine's time: far
/// longer than any deadline within which it may ask again. What arrives later than that is not
/// done, since it may have been done before.
const SESSION_AGE: Duration = Duration::from_secs(600);

/// An answer that is larger, in bytes, is not kept: who asks again hears that it was done.
const ANSWER_LEN: usize = 1 << 20;

/// How many answers a part of a snapshot holds.
const PART_LEN: usize = 1_024;

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
    /// The machine's time that the client had seen at a moment when the command was surely not done
    /// yet.
    pub since: Duration,
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
    /// It came so late that it may have been done before and the answer be forgotten: it was not
    /// done now.
    Late,
}

/// Who leads, and what was answered to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sessions {
    pub(super) leader: u64,
    clients: BTreeMap<u64, Session>,
    /// The same clients by when they were heard of last.
    used: BTreeSet<(Duration, u64)>,
}

/// What one client was answered; at least once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        let Proposal { client, number, floor, since, stamp, command } = proposal;
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
        // Its client had seen a time at which it was not done yet; so if answers are forgotten that
        // were given since, the machine has come to a time that is later still. How late it is now
        // does not matter: in a quiet store nobody tells the copies the time.
        if machine.now() > since.saturating_add(SESSION_AGE) {
            return Applied::Late;
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
        // It waits for the answer to this one.
        session.floor = session.floor.max(floor.min(number));
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
    Answers(Vec<Kept>),
    End { leader: u64, answers: usize },
}

/// One answer to a client, and what else is known of that client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    client: u64,
    floor: u64,
    used: Duration,
    number: u64,
    answer: Option<Result<Outcome, Refusal>>,
}

impl Kept {
    fn len(&self) -> usize {
        self.answer.as_ref().map_or(0, answer_len)
    }
}

impl Sessions {
    /// How many answers there are.
    fn answers(&self) -> usize {
        self.clients.values().map(|session| session.answers.len()).sum()
    }

    fn kept(&self) -> impl Iterator<Item = Kept> {
        self.clients.iter().flat_map(|(client, session)| {
            let (client, floor, used) = (*client, session.floor, session.used);
            let answers = session.answers.iter();
            answers.map(move |(number, answer)| Kept {
                client,
                floor,
                used,
                number: *number,
                answer: answer.clone(),
            })
        })
    }

    fn keep(&mut self, kept: Kept) -> Result<(), SnapshotError> {
        let Kept { client, floor, used, number, answer } = kept;
        let session = self.clients.entry(client).or_insert_with(|| {
            self.used.insert((used, client));
            Session { floor, used, answers: BTreeMap::new() }
        });
        let one = (session.floor, session.used) == (floor, used) && number >= floor;
        if !one || session.answers.insert(number, answer).is_some() {
            let what = format!("the answers to client {client} do not fit together");
            return Err(SnapshotError(format!("{what}: number {number} found")));
        }
        Ok(())
    }
}

pub(super) fn parts(machine: &Machine, sessions: &Sessions) -> impl Iterator<Item = Part> {
    let end = Content::End { leader: sessions.leader, answers: sessions.answers() };
    let mut kept = sessions.kept().peekable();
    let answers = std::iter::from_fn(move || {
        kept.peek()?;
        let mut part: Vec<Kept> = Vec::new();
        let mut filled = 0;
        // Large answers get a part of their own.
        while let Some(next) =
            kept.next_if(|next| part.is_empty() || filled + next.len() <= ANSWER_LEN)
        {
            filled += next.len();
            part.push(next);
            if part.len() >= PART_LEN {
                break;
            }
        }
        Some(Content::Answers(part))
    });
    machine.snapshot().map(Content::Machine).chain(answers).chain([end]).map(Part)
}

pub(super) fn restore(
    parts: impl IntoIterator<Item = Part>,
) -> Result<(Machine, Sessions), SnapshotError> {
    let mut restore = Restore::new();
    let mut sessions = Sessions::default();
    let mut ended = false;
    for part in parts {
        if ended {
            return Err(SnapshotError("a part follows the last".to_owned()));
        }
        match part.0 {
            Content::Machine(part) => restore.push(part)?,
            Content::Answers(answers) => {
                answers.into_iter().try_for_each(|kept| sessions.keep(kept))?;
            }
            Content::End { leader, answers } => {
                let found = sessions.answers();
                if found != answers {
                    let what = format!("{found} answers found, {answers} expected");
                    return Err(SnapshotError(what));
                }
                sessions.leader = leader;
                ended = true;
            }
        }
    }
    if !ended {
        return Err(SnapshotError("its last part is missing".to_owned()));
    }
    Ok((restore.finish()?, sessions))
}
