//! A naive model of the store's machine, and what both are done to and compared by.

use std::{collections::BTreeMap, time::Duration};

use raft_autopilot::{
    codec,
    store::{
        Bytes, Event, KeyRange, KeyValue, LeaseId, Limits, Op, OpResponse, RangeRequest, Refusal,
        Relation, Target, Txn, TxnResponse,
        machine::{Command, Config, Machine, Outcome, Part, Restore},
    },
};

const HISTORY_LEN: usize = 40;
const HISTORY_AGE: Duration = Duration::from_secs(60);

pub(crate) fn config() -> Config {
    let limits = Limits { operations: 9, bytes: 1_500 };
    Config { limits, history_len: HISTORY_LEN, history_age: HISTORY_AGE }
}

type State = BTreeMap<Bytes, KeyValue>;

/// Every state that ever stood, and nothing clever.
#[derive(Clone)]
struct Model {
    /// By revision; the first is of revision 0.
    states: Vec<(Duration, State)>,
    leases: BTreeMap<LeaseId, (Duration, Duration)>,
    last_lease: u64,
    compacted: u64,
    now: Duration,
    config: Config,
}

impl Model {
    fn new() -> Self {
        let empty = (Duration::ZERO, State::new());
        Self {
            states: vec![empty.clone(), empty],
            leases: BTreeMap::new(),
            last_lease: 0,
            compacted: 0,
            now: Duration::ZERO,
            config: config(),
        }
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn state(&self) -> &State {
        &self.states.last().unwrap().1
    }

    fn apply(&mut self, command: &Command, at: Duration) -> Result<Outcome, Refusal> {
        self.now = self.now.max(at);
        let mut due: Vec<_> =
            self.leases.iter().filter(|(_, l)| l.1 <= self.now).map(|(id, l)| (l.1, *id)).collect();
        due.sort();
        for (_, id) in due {
            self.end(id);
        }
        let outcome = match command {
            Command::Txn(txn) => self.txn(txn).map(Outcome::Txn),
            Command::Grant { id, ttl } => self.grant(*id, *ttl),
            Command::KeepAlive(id) => match self.leases.get_mut(id) {
                Some((ttl, deadline)) => {
                    *deadline = self.now + *ttl;
                    Ok(Outcome::Lease { id: *id, ttl: *ttl })
                }
                None => Err(Refusal::LeaseNotFound(*id)),
            },
            Command::Revoke(id) if self.leases.contains_key(id) => {
                self.end(*id);
                Ok(Outcome::Done)
            }
            Command::Revoke(id) => Err(Refusal::LeaseNotFound(*id)),
            Command::Compact(revision) if *revision > self.revision() => {
                Err(Refusal::Ahead { requested: *revision, current: self.revision() })
            }
            Command::Compact(revision) if *revision <= self.compacted => {
                Err(Refusal::Compacted { compacted: self.compacted })
            }
            Command::Compact(revision) => {
                self.compacted = *revision;
                Ok(Outcome::Done)
            }
            Command::Configure(config) => {
                self.config = *config;
                Ok(Outcome::Done)
            }
            Command::Tick => Ok(Outcome::Done),
        };
        while self.compacted < self.revision()
            && (self.revision() - self.compacted > self.config.history_len as u64
                || self.states[self.compacted as usize + 1].0 + self.config.history_age < self.now)
        {
            self.compacted += 1;
        }
        outcome
    }

    fn grant(&mut self, id: Option<LeaseId>, ttl: Duration) -> Result<Outcome, Refusal> {
        let id = id.unwrap_or_else(|| {
            let free = |id: &u64| !self.leases.contains_key(&LeaseId(*id));
            self.last_lease = (self.last_lease + 1..=u64::MAX).find(free).unwrap();
            LeaseId(self.last_lease)
        });
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists(id));
        }
        self.leases.insert(id, (ttl, self.now + ttl));
        Ok(Outcome::Lease { id, ttl })
    }

    fn end(&mut self, id: LeaseId) {
        self.leases.remove(&id);
        let mut state = self.state().clone();
        state.retain(|_, kv| kv.lease != id);
        self.commit(state);
    }

    fn commit(&mut self, state: State) {
        if state != *self.state() {
            self.states.push((self.now, state));
        }
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnResponse, Refusal> {
        txn.check(&self.config.limits)?;
        let before = self.state().clone();
        self.check(&before, txn)?;
        let mut state = before.clone();
        let next = self.revision() + 1;
        let mut response = self.execute(&before, &mut state, txn, next);
        self.commit(state);
        stamp(&mut response, self.revision());
        Ok(response)
    }

    fn check(&self, before: &State, txn: &Txn) -> Result<(), Refusal> {
        let chosen = if holds(before, txn) { &txn.success } else { &txn.failure };
        for op in chosen {
            match op {
                Op::Range(RangeRequest { revision: Some(revision), .. }) => {
                    if *revision > self.revision() {
                        let current = self.revision();
                        return Err(Refusal::Ahead { requested: *revision, current });
                    }
                    if *revision < self.compacted {
                        return Err(Refusal::Compacted { compacted: self.compacted });
                    }
                }
                Op::Put { lease, .. }
                    if *lease != LeaseId::NONE && !self.leases.contains_key(lease) =>
                {
                    return Err(Refusal::LeaseNotFound(*lease));
                }
                Op::Txn(txn) => self.check(before, txn)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn execute(&self, before: &State, state: &mut State, txn: &Txn, next: u64) -> TxnResponse {
        let succeeded = holds(before, txn);
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let mut responses = Vec::new();
        for op in ops {
            responses.push(match op {
                Op::Range(read) => {
                    let state = match read.revision {
                        Some(revision) => &self.states[revision as usize].1,
                        None => &*state,
                    };
                    let (items, more) = range(state, read);
                    let items = items.into_iter().map(Into::into).collect();
                    OpResponse::Range(raft_autopilot::store::RangeResponse {
                        revision: 0,
                        items,
                        more,
                    })
                }
                Op::Put { key, value, lease } => {
                    let old = state.get(key);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: old.map_or(next, |kv| kv.create_revision),
                        mod_revision: next,
                        version: old.map_or(1, |kv| kv.version + 1),
                        lease: *lease,
                    };
                    state.insert(key.clone(), kv);
                    OpResponse::Put
                }
                Op::Delete(range) => {
                    let len = state.len();
                    state.retain(|key, _| !range.contains(key));
                    OpResponse::Delete((len - state.len()) as u64)
                }
                Op::Txn(txn) => OpResponse::Txn(self.execute(before, state, txn, next)),
            });
        }
        TxnResponse { revision: 0, succeeded, responses }
    }

    /// What the last revisions did to a range, by comparing the states one by one.
    fn events(&self, range: &KeyRange, from: u64) -> Vec<(u64, Vec<Event>)> {
        let mut all = Vec::new();
        for revision in from.max(1)..=self.revision() {
            let (old, new) =
                (&self.states[revision as usize - 1].1, &self.states[revision as usize].1);
            let gone = old.keys().filter(|key| !new.contains_key(*key)).cloned().map(Event::Delete);
            let put = new.values().filter(|kv| old.get(&kv.key) != Some(kv));
            let put = put.map(|kv| Event::Put(kv.clone().into()));
            let mut events: Vec<Event> = gone.chain(put).collect();
            events.retain(|event| range.contains(event.key()));
            events.sort_by(|a, b| a.key().cmp(b.key()));
            if !events.is_empty() {
                all.push((revision, events));
            }
        }
        all
    }
}

fn range(state: &State, read: &RangeRequest) -> (Vec<KeyValue>, bool) {
    let mut items: Vec<KeyValue> =
        state.values().filter(|kv| read.range.contains(&kv.key)).cloned().collect();
    let limit = read.limit.unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    if read.keys_only {
        for kv in &mut items {
            kv.value = Bytes::default();
        }
    }
    (items, more)
}

fn holds(before: &State, txn: &Txn) -> bool {
    txn.compares.iter().all(|compare| {
        let absent = KeyValue {
            key: Bytes::default(),
            value: Bytes::default(),
            create_revision: 0,
            mod_revision: 0,
            version: 0,
            lease: LeaseId::NONE,
        };
        let standing: Vec<&KeyValue> =
            before.values().filter(|kv| compare.range.contains(&kv.key)).collect();
        if standing.is_empty() && matches!(compare.target, Target::Value(_)) {
            return false;
        }
        let standing = if standing.is_empty() { vec![&absent] } else { standing };
        standing.into_iter().all(|kv| {
            let order = match &compare.target {
                Target::CreateRevision(named) => kv.create_revision.cmp(named),
                Target::ModRevision(named) => kv.mod_revision.cmp(named),
                Target::Version(named) => kv.version.cmp(named),
                Target::Value(named) => kv.value.cmp(named),
                Target::Lease(named) => kv.lease.cmp(named),
            };
            match compare.relation {
                Relation::Equal => order.is_eq(),
                Relation::NotEqual => order.is_ne(),
                Relation::Greater => order.is_gt(),
                Relation::Less => order.is_lt(),
            }
        })
    })
}

fn stamp(response: &mut TxnResponse, revision: u64) {
    response.revision = revision;
    for part in &mut response.responses {
        match part {
            OpResponse::Range(read) => read.revision = revision,
            OpResponse::Txn(nested) => stamp(nested, revision),
            OpResponse::Put | OpResponse::Delete(_) => {}
        }
    }
}

fn through_a_snapshot(machine: &Machine) -> Machine {
    let mut restore = Restore::new();
    for part in machine.snapshot() {
        let frame = codec::encode(&part).unwrap();
        restore.push(codec::decode::<Part>(&frame).unwrap()).unwrap();
    }
    let copy = restore.finish().unwrap();
    assert!(copy.snapshot().eq(machine.snapshot()));
    copy
}

fn compare(machine: &Machine, model: &Model, ranges: &[KeyRange], reads: &[RangeRequest]) {
    assert_eq!(machine.revision(), model.revision());
    assert_eq!(machine.compacted(), model.compacted);
    for read in reads {
        let found = machine.range(read);
        let txn = Txn::new([Op::Range(read.clone())]);
        // In a transaction it has limits, which may be none at all.
        let limits = machine.config().limits;
        if limits.operations > 0 && txn.size() <= limits.bytes {
            assert_eq!(found.is_ok(), machine.read(&txn).unwrap().is_ok());
        }
        match read.revision {
            Some(revision) if revision > model.revision() => {
                assert!(matches!(found, Err(Refusal::Ahead { .. })));
            }
            Some(revision) if revision < model.compacted => {
                assert!(matches!(found, Err(Refusal::Compacted { .. })));
            }
            revision => {
                let found = found.unwrap();
                let revision = revision.unwrap_or(model.revision());
                let (items, more) = range(&model.states[revision as usize].1, read);
                assert!(found.items.iter().map(|kv| &**kv).eq(&items), "{read:?}");
                assert_eq!((found.more, found.revision), (more, model.revision()));
            }
        }
    }
    for range in ranges {
        assert!(matches!(
            machine.events(range, model.compacted, 9),
            Err(Refusal::Compacted { .. })
        ));
        let mut from = model.compacted + 1;
        let mut found = Vec::new();
        while from <= model.revision() {
            let (some, seen) = machine.events(range, from, 3).unwrap();
            assert!(seen >= from);
            from = seen + 1;
            found.extend(some.into_iter().map(|mut some| {
                some.events.sort_by(|a, b| a.key().cmp(b.key()));
                (some.revision, some.events)
            }));
        }
        assert_eq!(found, model.events(range, model.compacted + 1));
    }
    for id in (1..6).map(LeaseId) {
        let found = machine.lease(id, model.now).ok();
        let expected = model.leases.get(&id).map(|(ttl, deadline)| {
            let keys = model.state().values().filter(|kv| kv.lease == id);
            (
                *ttl,
                deadline.saturating_sub(model.now),
                keys.map(|kv| kv.key.clone()).collect::<Vec<_>>(),
            )
        });
        assert_eq!(found.map(|found| (found.ttl, found.remaining, found.keys)), expected);
    }
    assert_eq!(machine.next_deadline(), model.leases.values().map(|lease| lease.1).min());
}

/// Does all of it to both, and finds them equal, also after the way through a snapshot.
pub(crate) fn follow(steps: Vec<(Command, u64)>, ranges: &[KeyRange], reads: &[RangeRequest]) {
    let (mut machine, mut model) = (Machine::new(config()), Model::new());
    let mut clock = 0;
    for (at, (command, pause)) in steps.into_iter().enumerate() {
        // Now and then time seems to run backwards.
        clock = if pause % 17 == 0 { clock - clock.min(1_000) } else { clock + pause };
        let now = Duration::from_millis(clock);
        let outcome = machine.apply(command.clone(), now);
        assert_eq!(outcome, model.apply(&command, now), "{command:?}");
        if at % 10 == 9 {
            compare(&machine, &model, ranges, reads);
        }
        if at % 30 == 29 {
            machine = through_a_snapshot(&machine);
        }
    }
    compare(&machine, &model, ranges, reads);
}
