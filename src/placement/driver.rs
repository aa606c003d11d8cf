//! Publishes verdicts while this node leads, and tells the allocator what is published.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    decide::{Decision, Facts, Hold, Stood, decide},
    notice::{Keys, Notice, Term},
    policy::{Config, Policy, rank},
    yielding::limits,
};
use crate::{
    allocator::{self, Judgement, MemberKey, Standing, Standings, Workload},
    autopilot::{self, Running, View},
    runtime::Runtime,
    store::{
        Compare, KeyRange, KeyValue, Op, RangeRequest, Store, StoreError, Target, Txn,
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
    /// See [`Config::max_share_percent`].
    pub max_share_percent: u8,
    /// How notices are followed.
    pub mirror: mirror::Options,
}

impl Options {
    /// Notices under a prefix, with all else by default.
    pub fn new(prefix: impl Into<String>) -> Self {
        let max_share_percent = Config::default().max_share_percent;
        Self { prefix: prefix.into(), max_share_percent, mirror: mirror::Options::default() }
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
    pub fn new(store: S, runtime: R, policy: P, options: Options) -> (Self, Handle) {
        let (standings, judged) = watch::channel(None);
        let (published, shown) = watch::channel(Arc::default());
        let keys = Keys::new(&options.prefix);
        let placement = Self { store, runtime, policy, keys, options, standings, published };
        (placement, Handle { standings: judged, published: shown })
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

    /// Tells the allocator what stands. What stands no more, or cannot be read, is remembered: nobody
    /// gets or loses anything because a notice is missing.
    async fn listen(&self, notices: &Mirror<Notice>) -> StoreError {
        let mut changes = notices.changes_from_empty();
        if notices.view().iter().next().is_none() {
            self.standings.send_replace(Some(Arc::default()));
        }
        loop {
            let (changes, _) = match changes.next().await {
                Ok(changes) => changes,
                Err(error) => return error,
            };
            let mut known: BTreeMap<MemberKey, Judgement> =
                self.standings.borrow().as_deref().cloned().unwrap_or_default();
            let mut shown = self.published.borrow().notices.clone();
            for change in changes {
                let Some(member) = self.keys.member(&change.key) else { continue };
                let Some(notice) = change.after.and_then(|entry| entry.value.clone()) else {
                    continue;
                };
                let why = notice.why.as_str().into();
                known.insert(member.clone(), Judgement { standing: notice.standing, why });
                shown.insert(member, (*notice).clone());
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
            let done = self.publish(&mut office, notices, &view, &members).await;
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
                () = wait(&self.runtime, again) => {}
            }
        }
    }

    /// Publishes what is to be changed. Returns after how long to look again.
    async fn publish<W: Workload>(
        &self,
        office: &mut Office,
        notices: &Mirror<Notice>,
        view: &View,
        members: &allocator::Handle<W>,
    ) -> Result<Option<Duration>, StoreError> {
        let (Running::Leading, Some(state)) = (view.running, view.state.as_deref()) else {
            office.term = None;
            self.show(Some(Hold::NotLeading), Vec::new());
            return Ok(None);
        };
        let Some(term) = state.leading.map(|leading| leading.term) else { return Ok(None) };
        let Some(work) = members.view() else { return Ok(None) };
        if office.term != Some(term) {
            if !self.claim(Term(term)).await? {
                self.give_way(office, term);
                return Ok(Some(BACKOFF_MAX));
            }
            *office = Office { term: Some(term), ..Office::default() };
        }
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
        let Decision { notices: next, hold, again, nameless } = decide(&self.policy, &facts);
        self.show(hold, nameless);
        let mut changed: Vec<(&MemberKey, &Notice)> = next
            .iter()
            .filter(|(member, notice)| {
                standing.get(*member).is_none_or(|standing| !same(standing, notice))
            })
            .collect();
        // Who gets something back comes first: several transactions take no more on the way than all.
        let before = |member| stood.get(member).map(|stood| rank(stood.notice.standing));
        changed.sort_by_key(|(member, notice)| before(*member) < Some(rank(notice.standing)));
        for batch in changed.chunks(BATCH) {
            let ops: Vec<Op> = batch
                .iter()
                .filter_map(|(member, notice)| {
                    let value = serde_json::to_vec(notice).ok()?;
                    Some(Op::put(self.keys.server(member), value))
                })
                .collect();
            let fence = Target::Value(Term(term).to_string().into());
            let fence = Compare::equal(KeyRange::key(self.keys.term()), fence);
            let done = self.store.commit(Txn::when([fence]).and_then(ops)).await?;
            if !done.succeeded {
                self.give_way(office, term);
                return Ok(Some(BACKOFF_MAX));
            }
            notices.wait(done.revision).await?;
        }
        Ok(again)
    }

    /// Says that from now on the leader of this term writes, unless a later one does. Returns whether
    /// it does.
    async fn claim(&self, term: Term) -> Result<bool, StoreError> {
        let key = KeyRange::key(self.keys.term());
        let found = self.store.range(RangeRequest::new(key.clone())).await?;
        let text = term.to_string();
        let unchanged = match found.items.first() {
            None => Compare::absent(key),
            Some(kv) if *kv.value > *text.as_bytes() => return Ok(false),
            Some(kv) => Compare::equal(key, Target::ModRevision(kv.mod_revision)),
        };
        let put = Op::put(self.keys.term(), text);
        Ok(self.store.commit(Txn::when([unchanged]).and_then([put])).await?.succeeded)
    }

    /// A later leader writes, or has begun to just now.
    fn give_way(&self, office: &mut Office, term: u64) {
        office.term = None;
        self.show(Some(Hold::Superseded { term, key: self.keys.term() }), Vec::new());
    }

    fn show(&self, hold: Option<Hold>, nameless: Vec<String>) {
        let shown = self.published.borrow();
        let same = shown.hold == hold && shown.nameless == nameless;
        drop(shown);
        if !same {
            self.published.send_modify(|published| {
                let published = Arc::make_mut(published);
                (published.hold, published.nameless) = (hold, nameless);
            });
        }
    }
}

/// Whether a notice says the same. The words of who loses something are those of when it did; they
/// tell ages, and would never stay the same.
fn same(a: &Notice, b: &Notice) -> bool {
    let words = a.standing != Standing::Full || a.why == b.why;
    let told = |notice: &Notice| (notice.verdict, notice.standing, notice.cause);
    a.server == b.server && told(a) == told(b) && words
}

fn wait<R: Runtime>(runtime: &R, time: Option<Duration>) -> impl Future<Output = ()> {
    let sleep = time.map(|time| runtime.sleep(time));
    async move {
        match sleep {
            Some(sleep) => sleep.await,
            None => std::future::pending().await,
        }
    }
}

/// What this node knows as the leader of a term.
#[derive(Debug, Default)]
struct Office {
    /// The term for which it writes.
    term: Option<u64>,
    /// Since when it has seen which standing.
    since: BTreeMap<MemberKey, (Standing, Duration)>,
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
            let since = self.since.entry(member.clone()).or_insert((notice.standing, now));
            if since.0 != notice.standing {
                *since = (notice.standing, now);
            }
            (member, Stood { notice, stood: now.saturating_sub(since.1) })
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
