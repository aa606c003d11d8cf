//! Everything a server keeps on its disk: two redb files, one for the log and one for the state.
//!
//! Nothing is acknowledged before redb has synced it, so `kill -9` loses nothing that was: the log
//! file holds the vote, the entries and the server's identity; the state file holds the applied
//! state, with the index that it stands at, and the last snapshot. They are two files so that
//! appending never waits for applying.

mod identity;
mod log;
mod state;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;

use redb::{Database, DatabaseError};

pub(crate) use identity::Identity;
pub(crate) use log::LogStore;
pub(crate) use state::{StateMachine, check_snapshot, clock};

/// Opens both files of a data directory, which must exist; files that are missing are created.
pub(crate) fn open(dir: &Path) -> io::Result<(LogStore, StateMachine)> {
    Ok((LogStore::open(&dir.join("log.redb"))?, StateMachine::open(&dir.join("state.redb"))?))
}

fn open_file(path: &Path) -> io::Result<Database> {
    Database::create(path).map_err(|error| {
        let why = match error {
            DatabaseError::DatabaseAlreadyOpen => "another server is running on it".to_owned(),
            other => other.to_string(),
        };
        io::Error::other(format!("{} cannot be opened: {why}", path.display()))
    })
}

/// Any error of the store or of the codec, as openraft wants it.
fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// Runs work that waits for the disk where it does not hold up the network.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// A random number, from the seed that the system gives every process for its hash maps.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
