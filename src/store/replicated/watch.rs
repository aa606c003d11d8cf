//! A watch of this node's copy, whose progress is that of the whole.

use std::{fmt, future::Future, mem, pin::Pin};

use crate::store::{
    contract::{Update, Watch},
    error::StoreError,
    local::LocalWatch,
};

/// Ends when this node has all that was committed when it began, or that cannot be known now. An
/// error: it will never be.
pub(super) type CatchingUp = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// A watch of a replicated store. It follows the copy on its own node, and goes on while no node
/// leads, with what that node has.
pub struct ReplicatedWatch {
    local: LocalWatch,
    catch_up: Box<dyn Fn() -> CatchingUp + Send>,
    catching_up: Option<CatchingUp>,
    /// Progress was asked for since that began; it may miss what was committed meanwhile.
    again: bool,
    ended: Option<StoreError>,
}

impl fmt::Debug for ReplicatedWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatedWatch").field("local", &self.local).finish_non_exhaustive()
    }
}

impl ReplicatedWatch {
    pub(super) fn new(
        local: LocalWatch,
        catch_up: impl Fn() -> CatchingUp + Send + 'static,
    ) -> Self {
        Self { local, catch_up: Box::new(catch_up), catching_up: None, again: false, ended: None }
    }
}

impl Watch for ReplicatedWatch {
    async fn next(&mut self) -> Result<Update, StoreError> {
        loop {
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            let Some(catching_up) = &mut self.catching_up else {
                return self.local.next().await;
            };
            tokio::select! {
                biased;
                caught_up = catching_up => {
                    self.catching_up = mem::take(&mut self.again).then(|| (self.catch_up)());
                    self.ended = caught_up.err();
                    self.local.request_progress();
                }
                update = self.local.next() => return update,
            }
        }
    }

    fn request_progress(&mut self) {
        // One on its way is not given up: whoever asks again and again would never be answered.
        if self.catching_up.is_some() {
            self.again = true;
        } else {
            self.catching_up = Some((self.catch_up)());
        }
    }
}
