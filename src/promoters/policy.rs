//! From a policy as data to the promoter that it describes.

use std::sync::Arc;

use super::{Ballot, Electorate, Preferred, Stable, Upgrade, Witness, Wrapper, Zones};
use crate::autopilot::{Policy, Promoter, ServerId};

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
/// A preferred leader inside another policy: it must be outermost. A target of no voters.
pub fn promoter(policy: &Policy) -> Result<Arc<dyn Promoter>, String> {
    let Policy::Preferred { by, hold, cool_down, inner } = policy else {
        return Ok(Arc::new(electorate(policy)?));
    };
    let preferred = Preferred::new(electorate(inner)?).hold(*hold).cool_down(*cool_down);
    Ok(Arc::new(preferred.by(by.clone())))
}

fn electorate(policy: &Policy) -> Result<Box<dyn Electorate>, String> {
    Ok(match policy {
        Policy::Stable { target: Some(0) } | Policy::Zones { target: Some(0) } => {
            return Err("found a `target` of 0 voters, expected 1 or more".to_owned());
        }
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

impl Wrapper for Box<dyn Electorate> {
    type Inner = dyn Electorate;

    fn inner(&self) -> &Self::Inner {
        &**self
    }

    fn policy(&self) -> Option<Policy> {
        (**self).policy()
    }
}

impl Electorate for Box<dyn Electorate> {
    fn elect(&self, ballot: &Ballot<'_>) -> Vec<ServerId> {
        (**self).elect(ballot)
    }

    fn reserve(&self, ballot: &Ballot<'_>) -> usize {
        (**self).reserve(ballot)
    }

    fn optimistic_failure_tolerance(&self, ballot: &Ballot<'_>) -> usize {
        (**self).optimistic_failure_tolerance(ballot)
    }

    fn is_unlimited(&self) -> bool {
        (**self).is_unlimited()
    }

    fn spread(&self, ballot: &Ballot<'_>, servers: &[ServerId]) -> usize {
        (**self).spread(ballot, servers)
    }
}
