//! Clients of the simulated database: they write, and remember what they were told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use openraft::errors::{ClientWriteError, RaftError};

use crate::dice::Dice;
use crate::network::{CLIENTS, forget};
use crate::types::{Command, clock, sleep};
use crate::world::World;

/// Writes until the given time: a fresh key each time, to whomever it believes to lead, without
/// ever repeating a write that failed.
pub(crate) async fn write(world: Arc<World>, number: u64, until: Duration) {
    let mut dice = Dice::new(world.seed, &format!("client {number}"));
    let mut leader = 1;
    let mut key = number << 32;
    while clock() < until {
        sleep(dice.millis(10, 70)).await;
        key += 1;
        let value = dice.below(1 << 40);
        let sent = world.network.call((CLIENTS, leader), "write", WAIT, move |raft| {
            async move {
                match raft.client_write(Command::Put(key, value)).await {
                    Ok(written) => Some(Ok(written.log_id)),
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                        Some(Err(forward.leader_id))
                    }
                    Err(_) => None,
                }
            }
            .boxed()
        });
        let elsewhere = match sent.await {
            Ok(Ok(log_id)) => {
                world.oracle.acked(key, value, &log_id);
                continue;
            }
            Ok(Err(forward)) => forward,
            Err(_) => None,
        };
        leader = elsewhere.or_else(|| dice.pick(&world.up())).unwrap_or(leader);
    }
}

/// How long a client waits for an answer.
const WAIT: Duration = Duration::from_millis(500);

/// Starts the clients.
pub(crate) fn start(world: &Arc<World>, until: Duration) {
    for number in 1..=2 {
        forget(write(world.clone(), number, until));
    }
}
