//! From a policy as data to the promoter that it describes.

use std::sync::Arc;

use super::{Ballot, Electorate, Preferred, Stable, Upgrade, Witness, Zones};
use crate::autopilot::{
    Config, NodeType, Policy, Promoter, Removals, ServerExt, ServerId, ServerState, State,
    StateExt, Wishes,
};

/// The promoter that a policy describes.
///
/// ```
/// use raft_autopilot::{autopilot::{Policy, Promoter}, promoters::promoter};
///
/// let policy = Policy::Upgrade { inner: Box::new(Policy::Zones { target: Some(5) }) };
/// assert_eq!(promoter(&policy).unwrap().policy(), Some(policy));
/// ```
///
/// # Errors
/// A preferred leader inside another policy: it must be outermost.
pub fn promoter(policy: &Policy) -> Result<Arc<dyn Promoter>, String> {
    let Policy::Preferred { by, hold, cool_down, inner } = policy else {
        return Ok(Arc::new(electorate(policy)?));
    };
    let preferred = Preferred::new(electorate(inner)?).hold(*hold).cool_down(*cool_down);
    Ok(Arc::new(preferred.by(by.clone())))
}

fn electorate(policy: &Policy) -> Result<Box<dyn Electorate>, String> {
    Ok(match policy {
        Policy::Stable { target: None } => Box::new(Stable::new()),
        Policy::Stable { target: Some(voters) } => Box::new(Stable::with_target(*voters)),
        Policy::Zones { target: None } => Box::new(Zones::new()),
        Policy::Zones { target: Some(voters) } => Box::new(Zones::with_target(*voters)),
        Policy::Upgrade { inner } => Box::new(Upgrade::new(electorate(inner)?)),
        Policy::Witness { tag, inner } => Box::new(Witness::new(electorate(inner)?, tag.clone())),
        Policy::Preferred { .. } => {
            return Err("`preferred` must be the outermost policy".to_owned());
        }
    })
}

impl Promoter for Box<dyn Electorate> {
    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        (**self).wishes(config, state)
    }

    fn node_type(&self, config: &Config, state: &State, server: &ServerState) -> NodeType {
        (**self).node_type(config, state, server)
    }

    fn is_potential_voter(&self, node_type: &NodeType) -> bool {
        (**self).is_potential_voter(node_type)
    }

    fn filter_removals(&self, config: &Config, state: &State, dead: Removals) -> Removals {
        (**self).filter_removals(config, state, dead)
    }

    fn server_ext(&self, config: &Config, state: &State, server: &ServerState) -> ServerExt {
        (**self).server_ext(config, state, server)
    }

    fn state_ext(&self, config: &Config, state: &State) -> StateExt {
        (**self).state_ext(config, state)
    }

    fn policy(&self) -> Option<Policy> {
        (**self).policy()
    }
}

impl Electorate for Box<dyn Electorate> {
    fn elect(&self, ballot: &Ballot<'_>) -> Vec<ServerId> {
        (**self).elect(ballot)
    }

    fn is_unlimited(&self) -> bool {
        (**self).is_unlimited()
    }

    fn spread(&self, ballot: &Ballot<'_>, servers: &[ServerId]) -> usize {
        (**self).spread(ballot, servers)
    }
}
