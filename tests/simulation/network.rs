//! A simulated network between processes: latency, loss, delay, one-way cuts and stalled links.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use openraft::alias;
use openraft::type_config::TypeConfigExt;

use crate::dice::Dice;
use crate::oracle::Oracle;
use crate::process::spawn_in_the_world;
use crate::types::{Raft, TypeConfig, sleep};

/// The id that clients send from; no rule of the network names it.
pub(crate) const CLIENTS: u64 = 0;

/// Everything between the servers. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Network {
    inner: Arc<Mutex<Inner>>,
    oracle: Arc<Oracle>,
}

struct Inner {
    dice: Dice,
    listening: BTreeMap<u64, Raft>,
    rules: BTreeMap<u64, Rule>,
    next_rule: u64,
    /// Whoever waits for a rule to end; dropping a sender wakes its receiver.
    held: Vec<alias::OneshotSenderOf<TypeConfig, ()>>,
}

/// What happens to messages from any of some servers to any of some others.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) from: BTreeSet<u64>,
    pub(crate) to: BTreeSet<u64>,
    pub(crate) effect: Effect,
}

/// What a rule does to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It vanishes.
    Cut,
    /// It vanishes with this probability, in hundredths.
    Lossy(u64),
    /// It takes so much longer.
    Slow(Duration),
    /// It is held until the rule ends, and arrives then.
    Stalled,
}

/// Why a call had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing listens there, or it died while it worked on the answer.
    Refused,
    /// There was no answer within the time to live; the request may still arrive.
    TimedOut,
}

impl Network {
    pub(crate) fn new(seed: u64, oracle: Arc<Oracle>) -> Self {
        let inner = Inner {
            dice: Dice::new(seed, "network"),
            listening: BTreeMap::new(),
            rules: BTreeMap::new(),
            next_rule: 0,
            held: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), oracle }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// Connects a process.
    pub(crate) fn listen(&self, id: u64, raft: Raft) {
        self.inner().listening.insert(id, raft);
    }

    /// Disconnects a process: its handle is gone, and calls to it are refused.
    pub(crate) fn hang_up(&self, id: u64) {
        let gone = self.inner().listening.remove(&id);
        drop(gone);
    }

    /// The process of a server, if one is up.
    pub(crate) fn raft(&self, id: u64) -> Option<Raft> {
        self.inner().listening.get(&id).cloned()
    }

    /// Every process that is up, by id.
    pub(crate) fn rafts(&self) -> BTreeMap<u64, Raft> {
        self.inner().listening.clone()
    }

    /// Lets a rule begin; the number ends it.
    pub(crate) fn begin(&self, rule: Rule) -> u64 {
        let mut inner = self.inner();
        inner.next_rule += 1;
        let number = inner.next_rule;
        inner.rules.insert(number, rule);
        number
    }

    pub(crate) fn end(&self, rule: u64) {
        let held = {
            let mut inner = self.inner();
            inner.rules.remove(&rule);
            std::mem::take(&mut inner.held)
        };
        drop(held);
    }

    /// Calls `handler` on the process at `to` and brings its answer back, each way at the mercy of
    /// the network. Waits at most `ttl`; the request is delivered later all the same.
    pub(crate) async fn call<T, H>(
        &self,
        (from, to): (u64, u64),
        kind: &'static str,
        ttl: Duration,
        handler: H,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        H: FnOnce(Raft) -> BoxFuture<'static, Option<T>> + Send + 'static,
    {
        let (answer, answered) = TypeConfig::oneshot();
        let network = self.clone();
        spawn_in_the_world(async move {
            if !network.travel(from, to, kind).await {
                return drop_later(answer, ttl).await;
            }
            let served = match network.raft(to) {
                Some(raft) => handler(raft).await,
                None => None,
            };
            if network.travel(to, from, "answer").await {
                drop(openraft::async_runtime::OneshotSender::send(answer, served));
            } else {
                drop_later(answer, ttl).await;
            }
        });
        match TypeConfig::timeout(ttl, answered).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(_) => Err(Failure::Refused),
            Err(_) => Err(Failure::TimedOut),
        }
    }

    /// Takes one message over a link. False if it vanished on the way.
    async fn travel(&self, from: u64, to: u64, kind: &str) -> bool {
        let Some(latency) = self.inner().depart(from, to) else {
            self.oracle.message(from, to, kind, u64::MAX);
            return false;
        };
        self.oracle.message(from, to, kind, u64::try_from(latency.as_nanos()).unwrap_or(0));
        sleep(latency).await;
        while self.has(from, to, Effect::Stalled) {
            let (hold, released) = TypeConfig::oneshot();
            self.inner().held.push(hold);
            drop(released.await);
        }
        !self.has(from, to, Effect::Cut)
    }

    fn has(&self, from: u64, to: u64, effect: Effect) -> bool {
        self.inner().rules(from, to).any(|rule| rule.effect == effect)
    }
}

/// Keeps the caller waiting as a lost message does.
async fn drop_later<T>(answer: T, ttl: Duration) {
    sleep(ttl + Duration::from_millis(1)).await;
    drop(answer);
}

impl Inner {
    fn rules(&self, from: u64, to: u64) -> impl Iterator<Item = &Rule> {
        self.rules.values().filter(move |rule| rule.from.contains(&from) && rule.to.contains(&to))
    }

    /// The latency of one message, or none if it is lost.
    fn depart(&mut self, from: u64, to: u64) -> Option<Duration> {
        let effects: Vec<_> = self.rules(from, to).map(|rule| rule.effect).collect();
        let (least, most) = (Duration::from_micros(200), Duration::from_micros(2500));
        let mut latency = self.dice.between(least, most);
        for effect in effects {
            match effect {
                Effect::Cut => return None,
                Effect::Lossy(chance) if self.dice.percent(chance) => return None,
                Effect::Slow(more) => latency += self.dice.between(more / 2, more),
                Effect::Lossy(_) | Effect::Stalled => {}
            }
        }
        Some(latency)
    }
}

/// Sends a message without waiting for an answer.
pub(crate) fn forget(call: impl Future<Output = ()> + Send + 'static) {
    spawn_in_the_world(call);
}
