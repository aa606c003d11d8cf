//! The adapter keeps the promises of `Cluster`, in simulated time and on tokio.

use std::sync::atomic::{AtomicU8, Ordering};

use raft_autopilot::{
    autopilot::{Cluster, Server},
    testing::{Rig, cluster},
};

use crate::{
    simulated,
    types::{Real, Sim, Types},
    world::{Adapter, Knobs, World, server},
};

struct Nodes<C: Types> {
    world: World<C>,
    spares: AtomicU8,
}

impl<C: Types> Rig for Nodes<C>
where
    Adapter<C>: Cluster,
{
    type Cluster = Adapter<C>;

    async fn leader(&self) -> Adapter<C> {
        self.world.adapter(&self.world.leader().await)
    }

    async fn follower(&self) -> Adapter<C> {
        let leader = self.world.leader().await;
        let voters = leader.voters().concat();
        let follower = voters.iter().find(|id| **id != leader.id).unwrap();
        self.world.adapter(&self.world.node(follower))
    }

    async fn spare(&self) -> Server {
        let id = (4 + self.spares.fetch_add(1, Ordering::Relaxed)).to_string();
        self.world.start(&id).await;
        server(&id)
    }
}

/// Three voters, which nobody steers.
async fn three<C: Types>(records: bool) -> Nodes<C> {
    let knobs = Knobs { observer: true, records, ..Knobs::default() };
    let world = World::<C>::new(knobs);
    world.form(&["1", "2", "3"]).await;
    Nodes { world, spares: AtomicU8::new(0) }
}

#[test]
fn the_adapter_keeps_every_promise_with_records_and_without() {
    for records in [true, false] {
        simulated(async {
            let rig = three::<Sim>(records).await;
            cluster(&rig, &rig.world.clock()).await.unwrap();
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_adapter_keeps_every_promise_on_tokio() {
    let rig = three::<Real>(true).await;
    cluster(&rig, &rig.world.clock()).await.unwrap();
}
