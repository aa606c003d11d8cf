//! A witness between the driver and the adapter: every step that is applied is judged again, by the
//! rules that planned it and by what is really so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use raft_autopilot::autopilot::{
    Applied, Change, Cluster, ClusterError, Dismissal, Handle, NodeStatus, Observation, Origin,
    Outcome, Record, Server, ServerId, Step, View, check,
};

use crate::autopilot::number;
use crate::character::HEARTBEAT;
use crate::oracle::{Claim, Goal};
use crate::types::{Raft, clock};
use crate::world::{Seat, World};

/// The adapter of one process, watched.
pub(crate) struct Witness<C> {
    inner: C,
    id: u64,
    raft: Raft,
    world: Arc<World>,
    /// What the world's clock showed when the driver's showed zero.
    epoch: Duration,
    handle: Arc<OnceLock<Handle>>,
    views: Mutex<VecDeque<Arc<View>>>,
}

/// How many views are kept: a step is applied by a task of its own, a round or two after its plan, and a
/// hand-over when the record of it is known, for which a disk that hangs can take seconds.
const VIEWS: usize = 256;

/// A restarted server, or one that was reborn without its disk, is found out by its next answer to
/// a probe (asked for every second) or by entries that it does not gain for two seconds.
const UNMASKED: Duration = Duration::from_millis(2500);

impl<C> Witness<C> {
    /// A witness, and the place for the handle of the driver that it is given to.
    pub(crate) fn new(inner: C, seat: &Seat, epoch: Duration) -> (Self, Arc<OnceLock<Handle>>) {
        let handle = Arc::new(OnceLock::new());
        let witness = Self {
            inner,
            id: seat.id,
            raft: seat.raft.clone(),
            world: seat.world.clone(),
            epoch,
            handle: handle.clone(),
            views: Mutex::default(),
        };
        (witness, handle)
    }

    fn keep_view(&self) {
        let Some(handle) = self.handle.get() else { return };
        let view = handle.view();
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if views.back().is_none_or(|last| !Arc::ptr_eq(last, &view)) {
            views.push_back(view);
            if views.len() > VIEWS {
                views.pop_front();
            }
        }
    }

    /// The view that a change was planned in.
    fn planned_in(&self, change: &Change) -> Option<Arc<View>> {
        self.keep_view();
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.iter().rev().find(|view| view.plan.changes.contains(change)).cloned()
    }

    fn violated(&self, change: &Change, what: impl std::fmt::Display) {
        let text = format!("n{} applies `{}` ({:?}): {what}", self.id, change.step, change.origin);
        self.world.oracle.violated(text);
    }

    /// Judges a step that is about to be applied. Returns what it makes of the membership.
    fn judge(&self, change: &Change) -> Option<Goal> {
        self.world.oracle.note(format_args!(
            "n{} applies `{}` from {} ({:?})",
            self.id, change.step, change.fence.membership.index, change.origin
        ));
        let Some(view) = self.planned_in(change) else {
            self.violated(change, "it was never planned");
            return None;
        };
        let state = view.state.clone()?;
        if let Err(refusal) = check(&view.config, change, &state) {
            self.violated(change, format_args!("it was refused: {refusal}"));
        }
        let (before, current) = Goal::of(&self.raft);
        if current != Some(change.fence.membership.index) {
            // The fence does not hold: nothing will be applied.
            return None;
        }
        let after = before.after(&change.step);
        let truth = Truth { witness: self, view: &view, at: self.epoch + state.at, change };
        if let Step::Transfer { to } = &change.step {
            truth.transfer(&before, number(to));
        } else if !matches!(change.step, Step::FinishJoint) {
            truth.margin(&before, &after);
            after.voters.difference(&before.voters).for_each(|id| truth.gains(*id));
            before.nodes.difference(&after.nodes).for_each(|id| truth.leaves(*id));
            before
                .voters
                .difference(&after.voters)
                .for_each(|id| truth.loses(&before, &after, *id));
        }
        Some(after)
    }
}

/// What is really so when a step is applied.
struct Truth<'a, C> {
    witness: &'a Witness<C>,
    view: &'a View,
    /// When the state was observed, on the world's clock.
    at: Duration,
    change: &'a Change,
}

impl<C> Truth<'_, C> {
    fn world(&self) -> &World {
        &self.witness.world
    }

    fn violated(&self, what: impl std::fmt::Display) {
        self.witness.violated(self.change, what);
    }

    fn is_forced(&self) -> bool {
        matches!(&self.change.origin, Origin::Operator { force: Some(_), .. })
    }

    /// Whether a voter really acknowledged within the contact threshold before the observation,
    /// and has its disk. That is all that can be promised: what dies later is not seen yet.
    fn is_live(&self, id: u64) -> bool {
        if id == self.witness.id {
            return true;
        }
        let contact = self.world().oracle.contact(self.witness.id, id);
        let fresh = contact.is_some_and(|at| {
            self.at.saturating_sub(at) <= self.view.config.last_contact_threshold
        });
        fresh && !self.is_bare(id)
    }

    /// Whether a server runs without its disk, and could have been found out: some time has passed,
    /// and the records know the disk that it had, or this leader what it held.
    fn is_bare(&self, id: u64) -> bool {
        let world = self.world();
        let reborn = world.started(id, world.boot(id)).unwrap_or_default();
        let met = || world.oracle.met_before(self.witness.id, id, reborn);
        let lacks = world.is_up(id) && world.lacks_disk(id);
        lacks && clock().saturating_sub(reborn) > UNMASKED && (self.knew_disk(id) || met())
    }

    /// Whether the records know a server with another disk than the one that it has.
    fn knew_disk(&self, id: u64) -> bool {
        let name = id.to_string();
        let disk = self.world().store(self.witness.id).and_then(|store| {
            store.read(|image| image.ledger.servers.get(name.as_str()).and_then(|known| known.disk))
        });
        disk.is_some_and(|disk| disk != self.world().disk_identity(id))
    }

    /// Rules 2 to 4.
    fn margin(&self, before: &Goal, after: &Goal) {
        let config = &self.view.config;
        if clock().saturating_sub(self.at) > HEARTBEAT {
            self.violated("it comes late");
        }
        let margin = |goal: &Goal, counts: &dyn Fn(u64) -> bool| {
            let live = goal.voters.iter().filter(|id| self.is_live(**id) && counts(**id)).count();
            let quorum = goal.voters.len() / 2 + 1;
            i64::try_from(live).expect("few servers") - i64::try_from(quorum).expect("few servers")
        };
        let all = |_| true;
        let (old, new) = (margin(before, &all), margin(after, &all));
        if old < 0 || new < 0 {
            self.violated(format_args!("the margin of live voters goes from {old} to {new}"));
        }
        let falls = |counts: &dyn Fn(u64) -> bool| {
            let (old, new) = (margin(before, counts), margin(after, counts));
            new < old && new < i64::from(config.min_margin)
        };
        // Who lost its disk and has filled it again counts for nobody who has noticed.
        let kept = |id| !self.world().lost_disk(id);
        if falls(&all) && falls(&kept) && !self.is_forced() {
            self.violated(format_args!("the margin falls from {old} to {new}"));
        }
        let person = matches!(self.change.origin, Origin::Operator { .. });
        let floor = match config.min_quorum {
            // Two stand no more failures than one.
            0 if !person && before.voters.len() > 2 => 3,
            set => set as usize,
        };
        let fewer = after.voters.len() < before.voters.len();
        if fewer && after.voters.len() < floor && !self.is_forced() {
            self.violated(format_args!("fewer than {floor} voters are left"));
        }
        let leader = self.witness.id;
        if before.voters.contains(&leader) && !after.voters.contains(&leader) {
            self.violated("the leader loses its vote");
        }
    }

    /// Rule 5, by the boot that the last answered probe told: it was up for the whole time.
    fn gains(&self, id: u64) {
        let world = self.world();
        if self.is_bare(id) {
            self.violated(format_args!("n{id} lost its disk"));
        }
        if !self.is_live(id) {
            self.violated(format_args!("n{id} is not in contact"));
        }
        let cordoned = world.store(self.witness.id).is_some_and(|store| {
            store.read(|image| {
                let server = ServerId::from(id.to_string());
                image.ledger.cordoned(&server, store.now()).is_some()
            })
        });
        if cordoned {
            self.violated(format_args!("n{id} is cordoned"));
        }
        if self.is_forced() {
            return;
        }
        let probe = world.oracle.last_probe(self.witness.id, id);
        let boot = probe.map_or(world.boot(id), |(boot, _)| boot);
        let up = world.started(id, boot).map(|since| self.at.saturating_sub(since));
        let needed = self.view.config.server_stabilization_time;
        if up.is_none_or(|up| up < needed) {
            self.violated(format_args!("n{id} was up for {up:?}, not for {needed:?}"));
        }
    }

    /// Rule 6: clean-up takes nobody who was heard of within the grace for its cause.
    fn leaves(&self, id: u64) {
        if self.change.origin != Origin::Cleanup {
            return;
        }
        let grace = self.grace(id);
        let contact = self.world().oracle.contact(self.witness.id, id);
        let silent = self.at.saturating_sub(contact.unwrap_or_default());
        // As openraft dates it: see `loses`.
        if silent + HEARTBEAT < grace && !self.world().lost_disk(id) {
            self.violated(format_args!("n{id} was in contact {silent:?} ago, not {grace:?}"));
        }
    }

    /// The grace of a server: for the cause that autopilot sees, where it may be that.
    fn grace(&self, id: u64) -> Duration {
        let config = &self.view.config;
        let state = self.view.state.as_ref();
        let seen = state.and_then(|state| state.server(&id.to_string().into()));
        let joining = seen.is_some_and(|server| server.joining.is_some());
        let left = seen.is_some_and(|server| server.discovery == Some(NodeStatus::Left));
        match (joining, left) {
            // A voter that was never well before it lost its vote is joining once more.
            (true, _) if self.world().oracle.was_voter(id) => {
                config.join_grace.min(config.dead_server_last_contact_threshold)
            }
            (true, _) => config.join_grace,
            (false, true) if self.world().says_goodbye(id) => config.left_server_grace,
            (false, _) => config.dead_server_last_contact_threshold,
        }
    }

    /// Rule 6: nobody who is well loses a vote but by a wish or an order.
    fn loses(&self, before: &Goal, after: &Goal, id: u64) {
        if matches!(self.change.origin, Origin::Operator { .. }) {
            return;
        }
        // The stable promoter wishes away those above its target, and none below it.
        let (had, left) = (before.voters.len(), after.voters.len());
        if self.world().character.target.is_some_and(|target| had > target && left >= target) {
            return;
        }
        // Else only those who show a sign of death for a while; without a replacement a longer one.
        let (world, swapped) = (self.world(), left >= had);
        let short = self.view.config.voter_replacement_grace;
        let grace = if swapped { short } else { self.grace(id) };
        let leader = self.witness.id;
        let age = |at: Option<Duration>| self.at.saturating_sub(at.unwrap_or_default());
        let up = age(world.started(id, world.boot(id)));
        let probe = age(world.oracle.last_probe(leader, id).map(|(_, at)| at));
        let contact = age(world.oracle.contact(leader, id));
        // openraft dates a heartbeat by the tick that it is due at; sent it is up to one later.
        let well = contact + HEARTBEAT < grace
            && probe < grace
            && (up > grace + UNMASKED && world.is_up(id))
            && !world.lost_disk(id);
        if well {
            let seen = self.view.state.as_ref().and_then(|s| s.server(&id.to_string().into()));
            let seen = seen.map(|server| (server.health, server.signs, server.status, server.lag));
            self.violated(format_args!(
                "n{id} is well and loses its vote; {left} are left; it was heard {contact:?} ago and \
                 probed {probe:?} ago; it is seen as {seen:?}"
            ));
        }
    }

    fn transfer(&self, before: &Goal, to: u64) {
        if !before.voters.contains(&to) {
            self.violated(format_args!("n{to} does not vote"));
        }
        if !self.is_live(to) {
            self.violated(format_args!("n{to} is not in contact"));
        }
    }
}

impl<C: Cluster> Cluster for Witness<C> {
    type Error = C::Error;

    async fn observe(&self, at: Duration) -> Observation {
        self.keep_view();
        self.inner.observe(at).await
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }

    async fn apply(&self, change: Change) -> Applied<C::Error> {
        let goal = self.judge(&change);
        let claim = goal.map(|goal| Claim {
            term: change.fence.term,
            from: change.fence.membership.index,
            goal,
        });
        let oracle = &self.world.oracle;
        let number = claim.and_then(|claim| oracle.claims(claim, &change.step));
        let step = change.step.clone();
        let result = self.inner.apply(change).await;
        match &result {
            Ok(()) => {
                oracle.note(format_args!("n{} has applied `{step}`", self.id));
                if let Some(number) = number {
                    oracle.fulfilled(number);
                }
            }
            Err(error) => {
                oracle.note(format_args!("n{} has not applied `{step}`: {error}", self.id));
                if matches!(error, ClusterError::Moved(_) | ClusterError::Refused(_))
                    && let Some(number) = number
                {
                    oracle.unclaimed(number);
                }
            }
        }
        result
    }

    async fn record(&self, record: Record) -> Result<Outcome, ClusterError<Self::Error>> {
        self.inner.record(record).await
    }

    async fn identify(&self, address: &str) -> Option<ServerId> {
        self.inner.identify(address).await
    }

    async fn dismiss(&self, server: Arc<Server>) -> Dismissal {
        self.inner.dismiss(server).await
    }
}

impl Goal {
    /// The membership in effect, and the index of the entry that holds it.
    fn of(raft: &Raft) -> (Self, Option<u64>) {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        let index = stored.log_id().as_ref().map(|log_id| log_id.index);
        (Self::new(stored.membership()), index)
    }

    /// What a step makes of it.
    fn after(&self, step: &Step) -> Self {
        let mut goal = self.clone();
        let ids = |ids: &[ServerId]| ids.iter().map(number).collect::<Vec<_>>();
        match step {
            Step::FinishJoint | Step::Transfer { .. } | Step::Readdress { .. } => {}
            Step::Votes { promote, demote } => {
                goal.voters.extend(ids(promote));
                for id in ids(demote) {
                    goal.voters.remove(&id);
                }
            }
            Step::Remove { servers, promote, add } => {
                goal.voters.extend(ids(promote));
                for id in ids(servers) {
                    goal.voters.remove(&id);
                    goal.nodes.remove(&id);
                }
                goal.nodes.extend(add.as_ref().map(|server| number(&server.id)));
            }
            Step::Add(server) => {
                goal.nodes.insert(number(&server.id));
            }
        }
        goal
    }
}
