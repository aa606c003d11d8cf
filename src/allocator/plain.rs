//! Values for whoever needs none of its own: a replication, a limit, and whether a replica is ready.

use serde::{Deserialize, Serialize};

use super::value::{AssignmentValue, ItemValue, MemberValue, Replica, Workload};

/// An item: `{"replication":3}`, and `"zones":["a","b"]` where it is restricted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainItem {
    /// How many replicas it wants.
    pub replication: u32,
    /// The zones that it may be held in. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Vec<String>>,
}

impl ItemValue for PlainItem {
    fn replication(&self) -> u32 {
        self.replication
    }

    fn zones(&self) -> Option<&[String]> {
        self.zones.as_deref()
    }
}

/// A member: `{"limit":100}`, and `"share":1.5` or `"exiting":true`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainMember {
    /// How many items it may hold.
    pub limit: u32,
    /// Its weight when items are shared out. Default: its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Whether it wants to leave. Default: no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exiting: bool,
}

impl MemberValue for PlainMember {
    fn limit(&self) -> u32 {
        self.limit
    }

    fn share(&self) -> Option<f64> {
        self.share
    }

    fn is_exiting(&self) -> bool {
        self.exiting
    }

    fn set_exiting(&mut self) {
        self.exiting = true;
    }
}

/// An assignment: `{"consistent":true}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainState {
    /// Whether the replica is ready.
    pub consistent: bool,
}

impl AssignmentValue for PlainState {}

/// Plain values. A replica is consistent as soon as its member says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain;

impl Workload for Plain {
    type Item = PlainItem;
    type Member = PlainMember;
    type State = PlainState;

    fn is_consistent(&self, _: &PlainItem, one: usize, all: &[Replica<'_, PlainState>]) -> bool {
        all[one].value.is_some_and(|state| state.consistent)
    }
}
