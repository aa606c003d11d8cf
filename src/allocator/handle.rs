//! A member for its application: what it holds, where items are, and what it says of its own.

use std::{fmt, sync::Arc};

use super::{
    desk::{Amend, Core, Publish, Status},
    error::AllocatorError,
    intent::{Outside, Rules},
    item::{Keys, check_name},
    local::Held,
    report::Report,
    route::Route,
    value::{AssignmentValue, Entity, MemberKey, Workload},
};
use crate::store::mirror::{Mirror, View};

/// A handle on a member. Its clones are the same; they do not keep it alive.
pub struct Handle<W: Workload> {
    pub(super) core: Arc<Core<W>>,
}

impl<W: Workload> Clone for Handle<W> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<W: Workload> fmt::Debug for Handle<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("member", &self.core.me).finish_non_exhaustive()
    }
}

impl<W: Workload> Handle<W> {
    /// The member's place and name.
    pub fn member(&self) -> &MemberKey {
        &self.core.me
    }

    /// How the keys are laid out.
    pub fn keys(&self) -> &Keys {
        &self.core.keys
    }

    /// This member's value as it stands in the store; `None`: it does not, or is not known yet.
    pub fn value(&self) -> Option<W::Member> {
        let key = self.core.own_key();
        self.view()?.value(key.as_bytes())?.member().cloned()
    }

    /// What may be relied on now.
    pub fn status(&self) -> Status {
        self.core.lock().status
    }

    /// Waits until the status is another than `known`, and returns it.
    pub async fn changed(&self, known: Status) -> Status {
        self.until(|handle| Some(handle.status()).filter(|status| *status != known)).await
    }

    /// What stands in the store, as far as it is known here; `None` before it was first read.
    pub fn view(&self) -> Option<Arc<View<Entity<W>>>> {
        Some(self.mirror()?.view())
    }

    /// The mirror that the member works with, for whoever follows changes; `None` before the store
    /// was first read.
    pub fn mirror(&self) -> Option<Mirror<Entity<W>>> {
        self.core.lock().mirror.clone()
    }

    /// Where an item is held, the primary first. An item that is not there is held nowhere.
    ///
    /// # Errors
    /// [`AllocatorError::Name`], and [`AllocatorError::Ended`] before the store was first read.
    pub fn route(&self, item: &str) -> Result<Route<W>, AllocatorError> {
        let view = self.view().ok_or(AllocatorError::Ended)?;
        Ok(Route::new(&self.core.keys, &*self.core.workload, &view, item)?)
    }

    /// The items that are held here, by name.
    pub fn held(&self) -> Vec<Held> {
        self.core.lock().locals.held()
    }

    /// What this member sees and does as the leader; `None`: it does not lead.
    pub fn report(&self) -> Option<Arc<Report>> {
        self.core.lock().report.clone()
    }

    /// What the leader would report of what is known here, by these rules and with this from outside.
    /// It costs a plan of the whole world. `None` before the store was first read.
    pub fn look(&self, rules: &Rules, outside: &Outside) -> Option<Report> {
        let Core { keys, workload, .. } = &*self.core;
        let (keys, workload) = (keys.clone(), Arc::clone(workload));
        Some(Report::of_view(keys, workload, &*self.view()?, rules, outside))
    }

    /// Waits for the next report that `enough` is true of, here. It may take for ever: only one member
    /// leads. `None`: the member has ended.
    pub async fn report_when(&self, enough: impl Fn(&Report) -> bool) -> Option<Arc<Report>> {
        self.until(|handle| match handle.report().filter(|report| enough(report)) {
            None if handle.status() != Status::Ended => None,
            report => Some(report),
        })
        .await
    }

    /// Says how far this member is with an item that it holds. What was said before and is not
    /// written yet is not written any more.
    ///
    /// # Errors
    /// [`AllocatorError::NotHeld`], [`AllocatorError::Value`], [`AllocatorError::Name`],
    /// [`AllocatorError::Ended`]. While the store fails it is tried again.
    pub async fn publish(&self, item: &str, state: &W::State) -> Result<(), AllocatorError> {
        check_name(item)?;
        let value = state.encode().map_err(AllocatorError::Value)?;
        let answered = self.core.ask(|errands, answer| {
            let publish = errands.publish.entry(item.into());
            let publish =
                publish.or_insert_with(|| Publish { value: Vec::new(), answers: Vec::new() });
            publish.value = value;
            publish.answers.push(answer);
        })?;
        answered.await.unwrap_or(Err(AllocatorError::Ended))
    }

    /// Replaces this member's value.
    ///
    /// # Errors
    /// [`AllocatorError::Value`], [`AllocatorError::Ended`]. While the store fails it is tried again.
    pub async fn update(&self, value: W::Member) -> Result<(), AllocatorError> {
        let answered = self.core.ask(|errands, answer| {
            errands.amend.push_back(Amend { value, answer: Some(answer) });
        })?;
        answered.await.unwrap_or(Err(AllocatorError::Ended))
    }

    /// Gives an item back at once, whatever becomes of it: for a person, or for a replica that is
    /// broken. The leader assigns it anew, and for a while not to this member if it can.
    ///
    /// # Errors
    /// [`AllocatorError::NotHeld`], [`AllocatorError::Name`], [`AllocatorError::Ended`].
    pub async fn give_back(&self, item: &str) -> Result<(), AllocatorError> {
        check_name(item)?;
        let answered = self.core.ask(|errands, answer| {
            errands.give_back.entry(item.into()).or_default().push(answer);
        })?;
        answered.await.unwrap_or(Err(AllocatorError::Ended))
    }

    async fn until<T>(&self, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        loop {
            let mut turned = std::pin::pin!(self.core.turned.notified());
            turned.as_mut().enable();
            if let Some(found) = look(self) {
                return found;
            }
            turned.await;
        }
    }
}
