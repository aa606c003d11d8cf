//! A scene in the form of keys and values: members, items and assignments in a store, and rounds over
//! them without a session, until nothing is left to do.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use raft_autopilot::{
    allocator::{
        AssignmentValue, Doing, Entity, Intent, Item, ItemValue, MemberValue, Outside, Replica,
        Report, Rules, Workload, World,
        converge::{Bounds, Budget, round},
        item::Keys,
    },
    runtime::TokioRuntime,
    store::{
        Embedded, KeyRange, KeyValue, Op, RangeRequest, Store, Txn,
        machine::Config,
        mirror::{self, Mirror, View},
    },
};
use serde::{Deserialize, Serialize};

use crate::slots::only_the_primary_changes;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    #[serde(rename = "R")]
    r: u32,
    #[serde(rename = "E", default)]
    e: bool,
    #[serde(rename = "Z", default)]
    z: Option<Vec<String>>,
}

impl ItemValue for Spec {
    fn replication(&self) -> u32 {
        self.r
    }

    fn zones(&self) -> Option<&[String]> {
        self.z.as_deref()
    }
}

impl MemberValue for Spec {
    fn limit(&self) -> u32 {
        self.r
    }

    fn is_exiting(&self) -> bool {
        self.e
    }

    fn set_exiting(&mut self) {
        self.e = true;
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Consistent;

impl AssignmentValue for Consistent {
    fn encode(&self) -> Result<Vec<u8>, String> {
        Ok(b"consistent".to_vec())
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes == b"consistent" { Ok(Self) } else { Err("it is not `consistent`".to_owned()) }
    }
}

/// The codec and the consistency of the reference's own tests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reference;

impl Workload for Reference {
    type Item = Spec;
    type Member = Spec;
    type State = Consistent;

    fn is_consistent(&self, _: &Spec, one: usize, all: &[Replica<'_, Consistent>]) -> bool {
        all[one].value.is_some()
    }
}

/// Whether replicas become consistent as soon as nothing else is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Mark,
    Hold,
}

/// Who holds an item, by number, and in which slot.
type Slots = BTreeSet<(u32, u32)>;

pub(crate) struct Scene {
    pub(crate) store: Embedded,
    pub(crate) mirror: Mirror<Entity<Reference>>,
    pub(crate) world: World<Reference>,
    view: Arc<View<Entity<Reference>>>,
    intent: Option<Intent>,
    pub(crate) rules: Rules,
    pub(crate) outside: Outside,
    pub(crate) budget: Budget,
    pub(crate) now: Duration,
    pub(crate) added: usize,
    pub(crate) removed: usize,
    pub(crate) handed: usize,
    /// Transactions.
    pub(crate) sent: usize,
}

const ROOT: &str = "/root";

/// The keys of the reference's shorthand, with the place of members that is known from elsewhere.
fn member_key(zone: &str, member: &str) -> String {
    format!("{ROOT}/members/{zone}#{member}")
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::over(Embedded::new(Config::default(), TokioRuntime)).await
    }

    /// The same store, read by somebody who has not seen what was before.
    pub(crate) async fn reopened(&self) -> Self {
        Self::over(self.store.clone()).await
    }

    pub(crate) async fn over(store: Embedded) -> Self {
        let keys = Keys::new(ROOT);
        let decoder = keys.clone();
        let mirror = Mirror::open(
            store.clone(),
            TokioRuntime,
            KeyRange::prefix("/root/"),
            move |kv: &KeyValue| Entity::decode(&decoder, kv),
            mirror::Options::default(),
        );
        let mirror = mirror.await.unwrap();
        let view = mirror.view();
        let world = World::new(keys, Arc::new(Reference), &view);
        Self {
            store,
            mirror,
            world,
            view,
            intent: None,
            rules: Rules::default(),
            outside: Outside::default(),
            budget: Budget::default(),
            now: Duration::ZERO,
            added: 0,
            removed: 0,
            handed: 0,
            sent: 0,
        }
    }

    /// A scene that begins with these keys, see [`Scene::put`].
    pub(crate) async fn with(text: &str) -> Self {
        let mut scene = Self::new().await;
        scene.put(text).await;
        scene
    }

    pub(crate) async fn commit(&mut self, ops: Vec<Op>) {
        let done = self.store.commit(Txn::new(ops)).await.unwrap();
        self.look(done.revision).await;
    }

    pub(crate) async fn look(&mut self, revision: u64) {
        let view = self.mirror.wait(revision).await.unwrap();
        self.world.follow(&self.view, &view);
        self.view = view;
    }

    /// Puts keys in one transaction: `i1:3` an item that wants three replicas, `a/A=2` a member of
    /// zone a with limit two, `a/A=2E` one that wants to leave, `1@a/A.0*` an assignment of item 1
    /// in slot 0 that is consistent; `-` before a key deletes it.
    pub(crate) async fn put(&mut self, text: &str) {
        let ops = text.split_whitespace().map(|word| {
            if let Some(word) = word.strip_prefix('-') {
                return Op::delete(parse(word).0.as_str());
            }
            let (key, value) = parse(word);
            Op::put(key.as_str(), value.as_str())
        });
        let ops: Vec<Op> = ops.collect();
        for ops in ops.chunks(self.store.limits().operations) {
            self.commit(ops.to_vec()).await;
        }
    }

    /// Makes rounds until nothing is left to do; in [`Mode::Mark`] what is new becomes consistent
    /// whenever nothing else is. Returns the number of rounds before the last.
    pub(crate) async fn settle(&mut self, mode: Mode) -> usize {
        for number in 0.. {
            assert!(number < 100, "it does not settle: {:?}", self.world.doing());
            if self.round().await || (mode == Mode::Mark && self.mark().await) {
                continue;
            }
            return number;
        }
        unreachable!()
    }

    /// Plans, if anything has changed that a plan depends on.
    pub(crate) fn plan(&mut self) -> &Intent {
        let Self { world, intent, rules, outside, .. } = self;
        match intent {
            Some(intent) if intent.is_of(world, rules, outside) => {}
            Some(intent) => intent.follow(world, rules, outside),
            None => *intent = Some(Intent::new(world, rules, outside)),
        }
        self.intent()
    }

    /// Makes a round. Returns whether anything was to be done.
    pub(crate) async fn round(&mut self) -> bool {
        self.plan();
        let bounds = Bounds { limits: self.store.limits(), budget: self.budget, now: self.now };
        let mut next =
            round(&mut self.world, self.intent.as_ref().unwrap(), &bounds, &BTreeSet::new());
        let batches = std::mem::take(&mut next.batches);
        self.added += next.added;
        self.removed += next.removed;
        self.handed += next.handed;
        self.sent += batches.len();
        for batch in &batches {
            let before: Vec<Slots> = batch.items.iter().map(|item| self.slots(item)).collect();
            let done = self.store.commit(batch.txn.clone()).await.unwrap();
            assert!(done.succeeded, "nobody else writes: {:?}", batch.txn);
            self.look(done.revision).await;
            for (item, before) in batch.items.iter().zip(&before) {
                self.check(item, before);
            }
        }
        !batches.is_empty()
    }

    fn slots(&self, item: &str) -> Slots {
        let held = self.world.item(item).into_iter().flat_map(|item| &item.held);
        held.map(|held| (held.member, held.slot)).collect()
    }

    /// What is true of an item after every transaction: whoever holds it, one is its primary, and
    /// slots change only with that.
    fn check(&self, item: &str, before: &Slots) {
        let slots = self.slots(item);
        let renamed = slots.difference(before).filter_map(|(member, is)| {
            let was = before.difference(&slots).find(|(other, _)| other == member)?;
            Some((was.1, *is))
        });
        let renamed: Vec<(u32, u32)> = renamed.collect();
        // Which of two slots that a member has by hand it has changed nobody can tell.
        let members: BTreeSet<u32> = before.iter().map(|(member, _)| *member).collect();
        let is_told = only_the_primary_changes(&renamed) || members.len() < before.len();
        assert!(is_told, "{item}: {before:?} became {slots:?}");
        let primaries = slots.iter().filter(|(_, slot)| *slot == 0).count();
        let stands = self.world.item(item).is_some_and(Item::stands);
        assert_eq!(primaries, usize::from(stands && !slots.is_empty()), "{item}: {slots:?}");
    }

    /// Makes everything that is new consistent. Returns whether anything was.
    pub(crate) async fn mark(&mut self) -> bool {
        let range = KeyRange::prefix(format!("{ROOT}/assign/"));
        let found = self.store.range(RangeRequest::new(range)).await.unwrap();
        let new = found.items.iter().filter(|kv| kv.value.is_empty());
        let ops: Vec<Op> = new.map(|kv| Op::put_leased(&kv.key, "consistent", kv.lease)).collect();
        for ops in ops.chunks(self.store.limits().operations) {
            self.commit(ops.to_vec()).await;
        }
        !ops.is_empty()
    }

    /// Who holds what, each item's primary first: `1@A.0` and then the other members in order.
    pub(crate) fn held(&self) -> String {
        let items = self.world.items().map(|(name, item)| {
            let mut held: Vec<(bool, &str)> = item
                .held
                .iter()
                .map(|held| (held.slot != 0, &*self.world.member(held.member).key.member))
                .collect();
            held.sort_unstable();
            let held = held.iter().map(|(replica, member)| {
                let mark = if *replica { "" } else { "!" };
                format!("{member}{mark}")
            });
            format!("{}@{}", name.trim_start_matches('i'), held.collect::<Vec<_>>().join(","))
        });
        items.collect::<Vec<_>>().join(" ")
    }

    /// What somebody sees who only looks.
    pub(crate) fn look_on(&self) -> Report {
        let (keys, workload) = (Keys::new(ROOT), Arc::new(Reference));
        Report::of_view(keys, workload, &self.view, &self.rules, &self.outside)
    }

    pub(crate) fn doing(&self, doing: Doing) -> usize {
        self.world.doing().get(&doing).copied().unwrap_or(0)
    }

    pub(crate) fn intent(&self) -> &Intent {
        self.intent.as_ref().unwrap()
    }

    /// How many assignments each member has, by zone and name.
    pub(crate) fn loads(&self) -> Vec<u32> {
        let mut members: Vec<_> = self.world.members().map(|(_, member)| member).collect();
        members.sort_by(|a, b| a.key.cmp(&b.key));
        members.iter().map(|member| member.load).collect()
    }
}

fn parse(word: &str) -> (String, String) {
    if let Some((item, rest)) = word.split_once('@') {
        // `1@a/A.0*`
        let (place, slot) = rest.split_once('.').unwrap();
        let (zone, member) = place.rsplit_once('/').unwrap();
        let consistent = slot.ends_with('*');
        let slot = slot.trim_end_matches('*');
        let value = if consistent { "consistent" } else { "" };
        return (format!("{ROOT}/assign/i{item}#{zone}#{member}#{slot}"), value.to_owned());
    }
    if let Some((place, limit)) = word.split_once('=') {
        let (zone, member) = place.rsplit_once('/').unwrap();
        let exiting = limit.ends_with('E');
        let limit = limit.trim_end_matches('E');
        return (member_key(zone, member), format!(r#"{{"R":{limit},"E":{exiting}}}"#));
    }
    if let Some((item, r)) = word.split_once(':') {
        return (format!("{ROOT}/items/{item}"), format!(r#"{{"R":{r}}}"#));
    }
    let (zone, member) = word.rsplit_once('/').map_or(("", word), |place| place);
    let key =
        if zone.is_empty() { format!("{ROOT}/items/{member}") } else { member_key(zone, member) };
    (key, String::new())
}
