//! `cargo run --features testing --example custom_promoter`: a policy of one's own, and its examination.
//!
//! Servers on solid disks vote first, at most three in all; the others vote only where there are
//! not enough of them. Leadership, replicas, cordons, graces and quorums are none of its business.

use std::time::Duration;

use raft_autopilot::{
    autopilot::{Config, Promoter, Role, Server, ServerId, State, Wishes},
    promoters::{Ballot, Electorate, Upgrade, wishes},
    rehearse::World,
    testing::{Broken, Examination},
};

/// At most three voters, on solid disks where there are any.
#[derive(Debug)]
struct SolidFirst;

impl Electorate for SolidFirst {
    fn elect(&self, ballot: &Ballot<'_>) -> Vec<ServerId> {
        let mut candidates = ballot.candidates.clone();
        // A stable sort: among equals whoever votes already stays in front.
        candidates.sort_by_key(|c| (!c.is_fit(), c.server.tag("disk") != Some("ssd")));
        let fit = candidates.iter().filter(|c| c.is_fit()).count();
        // Two voters fail as soon as one does: one or three.
        let seats = if fit < 3 { ballot.state.num_voters().clamp(1, 3) } else { 3 };
        candidates.iter().take(seats).map(|c| c.id().clone()).collect()
    }
}

impl Promoter for SolidFirst {
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        wishes(self, config, state)
    }
}

/// Every other server has a solid disk.
fn disks(server: &mut Server, number: usize) {
    server.meta.insert("disk".to_owned(), ["hdd", "ssd"][number % 2].to_owned());
}

fn main() -> Result<(), Broken> {
    let mut world = World::new(Config::default());
    for (number, id) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        let mut server = Server::new(id, format!("{id}:1"));
        disks(&mut server, number);
        world.insert(server, if number == 0 { Role::Voter } else { Role::Learner });
    }
    for step in world.run(&SolidFirst, Duration::from_secs(60)) {
        println!("{step}");
    }
    println!("voters: {:?}, leader: {:?}", world.voters(), world.leader());
    Examination::new().histories(50).dressed(disks).of(&SolidFirst)?;
    // What names who should vote is wrapped like the ready-made ones.
    Examination::new().histories(50).dressed(disks).of(&Upgrade::new(SolidFirst))
}
