//! Publishes verdicts while this node leads, and tells the allocator what is published.

use std::{collections::BTreeMap, mem::discriminant, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    decide::{Decision, Facts, Hold, Stood, decide},
    notice::{Keys, Notice, Term},
    policy::Policy,
    yielding::limits,
};
use crate::{
    allocator::{self, Judgement, MemberKey, Standing, Standings, Workload},
    autopilot::{self, ConfigError, Running, State, View, Why},
    runtime::{Runtime, sleep_until},
    store::{
        Compare, KeyRange, KeyValue, Op, RangeRequest, Store, StoreError, Txn,
        mirror::{self, Mirror},
    },
};

/// The first pause after the store has failed.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// The longest.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How many notices go into one transaction.
const BATCH: usize = 50;

/// How placement works.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the keys of notices begin with: a prefix of its own, beside the allocator's root and not
    /// below it; the same for all servers.
    pub prefix: String,
    /// How much of the limits of all members health may lower at once, in percent, at most 100; 0:
    /// none. Where more look bad, nobody loses anything, because it is more likely that whoever
    /// looks is cut off. Default 34 (ours: one of three). No policy can take more.
    pub max_share_percent: u8,
    /// How notices are followed.
    pub mirror: mirror::Options,
}

impl Options {
    /// Notices under a prefix, with all else by default.
    pub fn new(prefix: impl Into<String>) -> Self {
        let mirror = mirror::Options::default();
        Self { prefix: prefix.into(), max_share_percent: 34, mirror }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.max_share_percent <= 100 {
            return Ok(());
        }
        let found = self.max_share_percent.to_string();
        let expected = "must be from 0 to 100".to_owned();
        Err(ConfigError { field: "max_share_percent", found, expected })
    }
}

/// What is published, and why not more, for people.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The notices that stand, by member.
    pub notices: BTreeMap<MemberKey, Notice>,
    /// Why health takes nothing from anybody, by the word of this node while it leads.
    pub hold: Option<Hold>,
    /// Servers that cannot be members, and why, by the same word.
    pub nameless: Vec<String>,
    /// Servers whose votes count in another zone than their work, by the same word.
    pub astray: Vec<String>,
    /// Why notices cannot be written or followed just now; what stands goes on.
    pub failing: Option<String>,
}

/// Placement on one node, to be run for the node's whole life.
#[derive(Debug)]
pub struct Placement<S, R, P> {
    store: S,
    runtime: R,
    policy: P,
    keys: Keys,
    options: Options,
    standings: watch::Sender<Option<Standings>>,
    published: watch::Sender<Arc<Published>>,
}

/// What a node sees of placement. Its clones are the same.
#[derive(Clone, Debug)]
pub struct Handle {
    standings: watch::Receiver<Option<Standings>>,
    published: watch::Receiver<Arc<Published>>,
}

impl Handle {
    /// What members may hold, for [`Leading::standings`](crate::allocator::Leading::standings); `None`
    /// before the notices were first read.
    pub fn standings(&self) -> watch::Receiver<Option<Standings>> {
        self.standings.clone()
    }

    /// What is published.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }
}

impl<S: Store, R: Runtime, P: Policy> Placement<S, R, P> {
    /// Placement that has not begun, and its handle. The allocator is made with
    /// [`Handle::standings`].
    ///
    /// # Errors
    /// One of the options breaks a rule of validity. Nothing was started.
    pub fn new(
        store: S,
        runtime: R,
        policy: P,
        options: Options,
    ) -> Result<(Self, Handle), ConfigError> {
        options.validate()?;
        let (standings, judged) = watch::channel(None);
        let (published, shown) = watch::channel(Arc::default());
        let keys = Keys::new(&options.prefix);
        let placement = Self { store, runtime, policy, keys, options, standings, published };
        Ok((placement, Handle { standings: judged, published: shown }))
    }

    /// Follows what is published, and publishes while this node leads; until the store is refused for
    /// good, which ends the following and drains nobody.
    pub async fn run<W: Workload>(
        self,
        autopilot: autopilot::Handle,
        members: allocator::Handle<W>,
    ) -> StoreError {
        let mut pause = BACKOFF_FIRST;
        let notices = loop {
            match self.open().await {
                Ok(notices) => break notices,
                Err(error @ StoreError::Refused(_)) => return error,
                Err(error) => self.fail(Some(&error)),
            }
            self.runtime.sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MAX);
        };
        let error = tokio::select! {
            biased;
            error = self.listen(&notices) => error,
            error = Box::pin(self.lead(&notices, autopilot, members)) => error,
        };
        self.fail(Some(&error));
        error
    }

    async fn open(&self) -> Result<Mirror<Notice>, StoreError> {
        Mirror::open(
            self.store.clone(),
            self.runtime.clone(),
            KeyRange::prefix(format!("{}servers/", self.keys.prefix())),
            |kv: &KeyValue| serde_json::from_slice(&kv.value).map_err(|error| error.to_string()),
            self.options.mirror.clone(),
        )
        .await
    }

    fn fail(&self, error: Option<&StoreError>) {
        let failing = error.map(ToString::to_string);
        if self.published.borrow().failing != failing {
            self.published.send_modify(|published| Arc::make_mut(published).failing = failing);
        }
    }

    /// Tells the allocator what stands. What stands no more, or cannot be read, is remembered, unless it
    /// took nothing: nobody gets or loses anything because a notice is missing.
    async fn listen(&self, notices: &Mirror<Notice>) -> StoreError {
        let mut changes = notices.changes_from_empty();
        if notices.view().iter().next().is_none() {
            self.standings.send_replace(Some(Arc::default()));
        }
        loop {
            let (seen, view) = match changes.next().await {
                Ok(views) => views,
                Err(error) => return error,
            };
            let mut known: BTreeMap<MemberKey, Judgement> =
                self.standings.borrow().as_deref().cloned().unwrap_or_default();
            let mut shown = self.published.borrow().notices.clone();
            for change in seen.changes(&view) {
                let Some(member) = self.keys.member(change.key) else { continue };
                let nothing = known.get(&member).is_some_and(|j| j.standing == Standing::Full);
                if change.after.is_none() && nothing {
                    known.remove(&member);
                    shown.remove(&member);
                }
                let Some(notice) = change.after.and_then(|entry| entry.value.as_ref()) else {
                    continue;
                };
                let why = notice.why.as_str().into();
                known.insert(member.clone(), Judgement { standing: notice.standing, why });
                shown.insert(member, (**notice).clone());
            }
            self.standings.send_replace(Some(Arc::new(known)));
            self.published.send_modify(|published| Arc::make_mut(published).notices = shown);
        }
    }

    /// Publishes while this node leads.
    async fn lead<W: Workload>(
        &self,
        notices: &Mirror<Notice>,
        autopilot: autopilot::Handle,
        members: allocator::Handle<W>,
    ) -> StoreError {
        let mut views = autopilot.watch();
        let mut office = Office::default();
        let mut pause = BACKOFF_FIRST;
        loop {
            let view = Arc::clone(&views.borrow_and_update());
            let standing = notices.view();
            let done = self.publish(&mut office, notices, &autopilot, &view, &members).await;
            let again = match done {
                Ok(again) => {
                    self.fail(None);
                    pause = BACKOFF_FIRST;
                    again
                }
                Err(error @ StoreError::Refused(_)) => return error,
                Err(error) => {
                    tracing::warn!("verdicts are published later: {error}");
                    self.fail(Some(&error));
                    let now = pause;
                    pause = (pause * 2).min(BACKOFF_MAX);
                    Some(now)
                }
            };
            let again = again.map(|after| self.runtime.now().saturating_add(after));
            tokio::select! {
                biased;
                changed = views.changed() => {
                    if changed.is_err() {
                        // Autopilot has ended here; what stands is followed on.
                        std::future::pending::<()>().await;
                    }
                }
                // Somebody else has written, or has spoiled a notice.
                changed = notices.changed(&standing) => {
                    if let Err(error) = changed {
                        return error;
                    }
                }
                () = sleep_until(&self.runtime, again) => {}
            }
        }
    }

    /// Publishes what is to be changed. Returns after how long to look again.
    async fn publish<W: Workload>(
        &self,
        office: &mut Office,
        notices: &Mirror<Notice>,
        autopilot: &autopilot::Handle,
        view: &View,
        members: &allocator::Handle<W>,
    ) -> Result<Option<Duration>, StoreError> {
        let state = match judged(view, autopilot.now(), autopilot.good_for()) {
            Ok(state) => state,
            Err(hold) => {
                if hold == Hold::NotLeading {
                    office.claim = None;
                }
                self.show(Decision { hold: Some(hold), ..Decision::default() });
                return Ok(None);
            }
        };
        let Some(term) = state.leading.map(|leading| leading.term) else { return Ok(None) };
        let Some(work) = members.view() else { return Ok(None) };
        let claim = match office.claim.filter(|claim| claim.term == term) {
            Some(claim) => claim,
            None => match self.claim(term).await? {
                Some(claim) => {
                    *office = Office { claim: Some(claim), ..Office::default() };
                    claim
                }
                None => return Ok(Some(self.give_way(office, term))),
            },
        };
        let now = self.runtime.now();
        let known = self.published.borrow().notices.clone();
        let standing = read(&self.keys, notices);
        let stood = office.stood(known.into_iter().chain(standing.clone()).collect(), now);
        let facts = Facts {
            thresholds: &view.config,
            state,
            limits: &limits(members.keys(), &work),
            stood: &stood,
            max_share_percent: self.options.max_share_percent,
        };
        let decision = decide(&self.policy, &facts);
        let ops = self.ops(&decision, &standing, &stood);
        // When the next round should have been seen: without it nothing is given back either.
        let until =
            state.at.saturating_add(autopilot.good_for()).saturating_add(Duration::from_millis(1));
        let late = until.saturating_sub(autopilot.now());
        let again = decision.again.map_or(late, |again| again.min(late));
        self.show(decision);
        for batch in ops.chunks(BATCH) {
            let fence = Compare::unchanged(self.keys.term(), claim.revision);
            let txn = Txn::when([fence]).and_then(batch.iter().cloned());
            let done = self.store.commit(txn).await?;
            if !done.succeeded {
                return Ok(Some(self.give_way(office, term)));
            }
            notices.wait(done.revision).await?;
        }
        Ok(Some(again))
    }

    /// What is to be written, so that this is published where that stands.
    fn ops(
        &self,
        decision: &Decision,
        standing: &BTreeMap<MemberKey, Notice>,
        stood: &BTreeMap<MemberKey, Stood>,
    ) -> Vec<Op> {
        let differs = |(member, notice): &(&MemberKey, &Notice)| {
            standing.get(*member).is_none_or(|standing| !same(standing, notice))
        };
        let mut changed: Vec<(&MemberKey, &Notice)> =
            decision.notices.iter().filter(differs).collect();
        // Who gets something back comes first: several transactions take no more on the way than all.
        let before = |member| stood.get(member).map(|stood| stood.notice.standing.rank());
        changed.sort_by_key(|(member, notice)| before(*member) < Some(notice.standing.rank()));
        let puts = changed.into_iter().filter_map(|(member, notice)| {
            let value = serde_json::to_vec(notice).ok()?;
            Some(Op::put(self.keys.server(member), value))
        });
        let gone = decision.forget.iter().filter(|member| standing.contains_key(*member));
        puts.chain(gone.map(|member| Op::delete(self.keys.server(member)))).collect()
    }

    /// Says that from now on this leader of this term writes, unless one of a later term does. Returns
    /// under which claim.
    async fn claim(&self, term: u64) -> Result<Option<Claim>, StoreError> {
        let key = KeyRange::key(self.keys.term());
        let found = self.store.range(RangeRequest::new(key.clone())).await?;
        let text = Term(term).to_string();
        let unchanged = match found.items.first() {
            None => Compare::absent(key),
            Some(kv) if *kv.value > *text.as_bytes() => return Ok(None),
            Some(kv) => Compare::unchanged(self.keys.term(), kv.mod_revision),
        };
        let put = Op::put(self.keys.term(), text);
        let done = self.store.commit(Txn::when([unchanged]).and_then([put])).await?;
        Ok(done.succeeded.then_some(Claim { term, revision: done.revision }))
    }

    /// A later leader writes, or has begun to just now.
    fn give_way(&self, office: &mut Office, term: u64) -> Duration {
        office.claim = None;
        let hold = Some(Hold::Superseded { term, key: self.keys.term() });
        self.show(Decision { hold, ..Decision::default() });
        BACKOFF_MAX
    }

    fn show(&self, decision: Decision) {
        let Decision { hold, nameless, astray, .. } = decision;
        let shown = self.published.borrow();
        let same = shown.hold == hold && shown.nameless == nameless && shown.astray == astray;
        let told = shown.hold.as_ref().map(discriminant) == hold.as_ref().map(discriminant);
        drop(shown);
        // Most nodes lead at no time, and need not say so.
        if !told && let Some(hold) = hold.as_ref().filter(|hold| **hold != Hold::NotLeading) {
            tracing::warn!("health takes nothing, or not from everybody: {hold}");
        }
        if !same {
            self.published.send_modify(|published| {
                let published = Arc::make_mut(published);
                (published.hold, published.nameless) = (hold, nameless);
                published.astray = astray;
            });
        }
    }
}

/// The state that this node may publish by; else why it does not.
fn judged(view: &View, now: Duration, allowed: Duration) -> Result<&State, Hold> {
    let Some(state) = view.state.as_deref() else { return Err(Hold::NotLeading) };
    match (view.running, &view.plan.idle) {
        (Running::Leading, _) => {}
        (Running::Paused, Some(Why::Paused(reason))) => return Err(Hold::Paused(reason.clone())),
        (Running::Paused, _) => return Err(Hold::Observing),
        (Running::StandingBy | Running::Stopped, _) => return Err(Hold::NotLeading),
    }
    let age = now.saturating_sub(state.at);
    if age > allowed { Err(Hold::Stale { age, allowed }) } else { Ok(state) }
}

/// Whether a notice says the same. The words of who loses something are those of when it did; they
/// tell ages, and would never stay the same.
fn same(a: &Notice, b: &Notice) -> bool {
    let words = a.standing != Standing::Full || a.why == b.why;
    let parts = |notice: &Notice| (notice.by_health, notice.by_person);
    let told = |notice: &Notice| (notice.verdict, notice.standing, notice.cause, parts(notice));
    a.server == b.server && told(a) == told(b) && words
}

/// A term, and the revision at which this node has claimed it. Two leaders of one term, which some
/// hosts know, claim it one after the other, and what the first one writes late is refused too.
#[derive(Clone, Copy, Debug)]
struct Claim {
    term: u64,
    revision: u64,
}

/// What this node knows as the leader of a term.
#[derive(Debug, Default)]
struct Office {
    /// Under which claim it writes.
    claim: Option<Claim>,
    /// Since when it has seen what health, and what people, leave.
    since: BTreeMap<MemberKey, [(Standing, Duration); 2]>,
}

impl Office {
    /// For how long what stands has.
    fn stood(
        &mut self,
        standing: BTreeMap<MemberKey, Notice>,
        now: Duration,
    ) -> BTreeMap<MemberKey, Stood> {
        self.since.retain(|member, _| standing.contains_key(member));
        let stands = |(member, notice): (MemberKey, Notice)| {
            let parts = [notice.by_health, notice.by_person];
            let since = self.since.entry(member.clone()).or_insert(parts.map(|part| (part, now)));
            let [by_health, by_person] = [0, 1].map(|part| {
                if since[part].0 != parts[part] {
                    since[part] = (parts[part], now);
                }
                now.saturating_sub(since[part].1)
            });
            (member, Stood { notice, by_health, by_person })
        };
        standing.into_iter().map(stands).collect()
    }
}

/// The notices that stand and can be read.
fn read(keys: &Keys, notices: &Mirror<Notice>) -> BTreeMap<MemberKey, Notice> {
    let view = notices.view();
    // Of one that cannot be read the mirror remembers what it was.
    let good = view.iter().filter(|(_, entry)| entry.error.is_none());
    good.filter_map(|(key, entry)| Some((keys.member(key)?, (**entry.value.as_ref()?).clone())))
        .collect()
}
