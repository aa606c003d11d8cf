//! An operator who changes the membership and moves the leadership while everything else happens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::type_config::TypeConfigExt;

use crate::dice::Dice;
use crate::network::forget;
use crate::types::{Command, Raft, Server, TypeConfig, clock, sleep};
use crate::world::World;

/// What the operator may do next.
#[derive(Clone, Copy, Debug)]
enum Order {
    Transfer(u64),
    Add(u64),
    Promote(u64),
    Demote(u64),
    Remove(u64),
    /// Writes a record into the ledger.
    Record,
}

/// Gives orders until the given time; they overlap, and one in three is abandoned half-way, which
/// may leave a joint membership behind.
pub(crate) async fn work(world: Arc<World>, until: Duration) {
    let mut dice = Dice::new(world.seed, "operator");
    let mut fresh = 100;
    while clock() < until {
        sleep(dice.millis(500, 4000)).await;
        let Some((leader, raft)) = world.leader() else { continue };
        let Some(order) = choose(&mut dice, leader, &raft, fresh) else { continue };
        if let Order::Add(id) = order {
            fresh = id + 1;
            world.start(id);
        }
        let patience = if dice.percent(33) { dice.millis(1, 10) } else { dice.millis(500, 3000) };
        world.oracle.note(format_args!("operator asks n{leader}: {order:?}"));
        forget(carry_out(world.clone(), raft, order, patience));
    }
}

fn choose(dice: &mut Dice, leader: u64, raft: &Raft, fresh: u64) -> Option<Order> {
    let (voters, learners) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().filter(|id| *id != leader).collect();
        (voters, membership.learner_ids().filter(|id| *id != leader).collect::<Vec<u64>>())
    };
    match dice.below(10) {
        0 | 1 => dice.pick(&voters).map(Order::Transfer),
        2 | 3 if voters.len() + learners.len() < 6 => Some(Order::Add(fresh)),
        4 | 5 if voters.len() < 6 => dice.pick(&learners).map(Order::Promote),
        6 if voters.len() >= 3 => dice.pick(&voters).map(Order::Demote),
        7 if voters.len() >= 3 => dice.pick(&voters).map(Order::Remove),
        8 => dice.pick(&learners).map(Order::Remove),
        _ => Some(Order::Record),
    }
}

async fn carry_out(world: Arc<World>, raft: Raft, order: Order, patience: Duration) {
    let change = match order {
        Order::Transfer(id) => {
            drop(raft.trigger().transfer_leader(id).await);
            return;
        }
        Order::Record => {
            let record = Command::Record(vec![1, 2, 3]);
            drop(TypeConfig::timeout(patience, raft.client_write(record)).await);
            return;
        }
        Order::Add(id) => ChangeMembers::AddNodes([(id, Server::of(id))].into()),
        Order::Promote(id) => ChangeMembers::AddVoterIds([id].into()),
        Order::Demote(id) | Order::Remove(id) => ChangeMembers::RemoveVoters([id].into()),
    };
    let done = TypeConfig::timeout(patience, raft.change_membership(change, true)).await;
    if let Order::Remove(id) = order
        && matches!(done, Ok(Ok(_)))
    {
        let node = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        if let Ok(Ok(_)) = TypeConfig::timeout(patience, raft.change_membership(node, true)).await {
            world.retire(id);
        }
    }
}
