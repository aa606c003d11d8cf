//! Work weighs on who leads: a server that hands its work over gives up leadership first.

use std::collections::BTreeMap;

use super::notice::member_of;
use crate::{
    allocator::{Entity, MemberKey, MemberValue, Workload, item::Keys},
    autopilot::{Config, Policy, Promoter, Server, ServerState, State, Wishes},
    promoters::{Wrapper, may_lead},
    store::mirror::View,
};

/// The tag of a server that wants to leave, or is told to hold nothing.
pub const LEAVING: &str = "work-leaving";

/// The tag with the number of items that a server may hold, by its own word.
pub const LIMIT: &str = "work-limit";

/// Tags a server with what its member says: [`LEAVING`] and [`LIMIT`]. For an application's
/// [`server`](crate::autopilot::Server), so that promoters can weigh it.
pub fn tag<W: Workload>(server: &mut Server, keys: &Keys, view: &View<Entity<W>>) {
    let Ok(MemberKey { zone, member }) = member_of(server) else { return };
    let key = format!("{}{zone}#{member}", keys.members());
    let value = view.value(key.as_bytes()).and_then(|entity| entity.member());
    let Some(value) = value else { return };
    server.meta.insert(LIMIT.to_owned(), value.limit().to_string());
    if value.is_exiting() {
        server.meta.insert(LEAVING.to_owned(), "yes".to_owned());
    }
}

/// Adds to another promoter that a leader whose member leaves hands leadership over, before it is
/// empty, to a stable voter whose member stays.
#[derive(Clone, Debug)]
pub struct Yielding<P> {
    inner: P,
}

impl<P: Promoter> Yielding<P> {
    /// The same as `inner` in all else.
    pub fn new(inner: P) -> Self {
        Self { inner }
    }
}

fn leaves(server: &ServerState) -> bool {
    server.tag(LEAVING).is_some()
}

impl<P: Promoter> Wrapper for Yielding<P> {
    type Inner = P;

    fn inner(&self) -> &P {
        &self.inner
    }

    fn wishes(&self, config: &Config, state: &State) -> Wishes {
        let mut wishes = self.inner.wishes(config, state);
        let leader = state.leader.as_ref().and_then(|id| state.server(id));
        let next = wishes.leader.as_ref().and_then(|id| state.server(id));
        if !next.or(leader).is_some_and(leaves) {
            return wishes;
        }
        let fit = |server: &&ServerState| {
            let id = &server.server.id;
            may_lead(state, server)
                && !leaves(server)
                && server.is_stable(config, state.at)
                && !state.refused_leadership(id)
                && !wishes.demote.contains(id)
        };
        let best = state.voters().filter(fit).min_by(|a, b| state.order(a, b));
        if let Some(best) = best {
            wishes.leader = Some(best.server.id.clone());
        }
        wishes
    }

    /// That of the inner one: a moment that is replayed has nobody who leaves.
    fn policy(&self) -> Option<Policy> {
        self.inner.policy()
    }
}

/// How many items each member may hold, by its own word.
pub(super) fn limits<W: Workload>(keys: &Keys, view: &View<Entity<W>>) -> BTreeMap<MemberKey, u32> {
    let range = crate::store::KeyRange::prefix(keys.members());
    let members = view.range(&range).filter_map(|(key, entry)| {
        let text = std::str::from_utf8(key).ok()?;
        let crate::allocator::item::Key::Member { zone, member } = keys.decode(text).ok()? else {
            return None;
        };
        let limit = entry.value.as_ref()?.member()?.limit();
        Some((MemberKey::new(zone, member), limit))
    });
    members.collect()
}
