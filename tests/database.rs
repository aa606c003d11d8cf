//! The example database: openraft's own suite over its storage.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "the example uses more of its files than this test")]

#[path = "../examples/database/storage/mod.rs"]
mod storage;
#[path = "../examples/database/types.rs"]
mod types;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use storage::{LogStore, StateMachine};
use types::TypeConfig;

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for OnDisk {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, state) = storage::open(dir.path()).unwrap();
        Ok((dir, log, state))
    }
}

#[tokio::test]
async fn the_storage_passes_the_suite_of_openraft() {
    Suite::test_all(OnDisk).await.unwrap();
}
