//! The thread that writes commands down and applies them, many with one sync.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    files::{Directory, Entry, OpenError, Recovered, io_error},
    record,
};
use crate::{
    codec,
    store::{
        error::StoreError,
        local::Local,
        machine::{Command, Config, Outcome},
    },
};

/// A batch takes no more commands once it holds so many bytes.
const BATCH_LEN: usize = 4 << 20;

/// The largest request that surely fits a frame together with a batch that is nearly full.
const REQUEST_LEN: usize = 8 << 20;

/// A snapshot is written when the log has grown by this much, and by as much as the last
/// snapshot is large: 64 MiB.
const LOG_LEN: u64 = 64 << 20;

type Answer = oneshot::Sender<Result<Outcome, StoreError>>;

/// Where commands wait to be written.
#[derive(Debug)]
pub(crate) struct Journal {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Vec<(Entry, Answer)>>,
    arrived: Condvar,
    stop: AtomicBool,
}

impl Journal {
    /// Opens a directory, and starts the thread that writes to it.
    pub(crate) fn open(
        path: &Path,
        config: Config,
    ) -> Result<(Self, Arc<Local>, Recovered), OpenError> {
        let found = config.limits.bytes;
        if found > REQUEST_LEN {
            return Err(OpenError::Limit { found, limit: REQUEST_LEN });
        }
        let directory = Directory::open(path)?;
        let (machine, next, log, recovered) = directory.recover(config)?;
        let name = directory.log(log);
        let file = if name.exists() {
            OpenOptions::new().append(true).open(&name)
        } else {
            directory.create_log(log)
        };
        let file = file.map_err(io_error(&name))?;
        let len = file.metadata().map_err(io_error(&name))?.len();
        let local = Arc::new(Local::new(machine));
        let queue = Arc::new(Queue::default());
        let writer = Writer {
            directory: Arc::new(directory),
            local: Arc::clone(&local),
            queue: Arc::clone(&queue),
            file,
            len,
            next,
            snapshot: None,
            snapshot_len: 0,
        };
        let thread = std::thread::Builder::new().name("store".to_owned());
        let thread = thread.spawn(move || writer.run()).map_err(io_error(path))?;
        Ok((Self { queue, thread: Some(thread) }, local, recovered))
    }

    /// Queues a command, to be written and then applied at a time. The answer comes after that;
    /// none comes if the thread has ended.
    pub(crate) fn submit(
        &self,
        command: Command,
        now: impl FnOnce() -> Duration,
    ) -> oneshot::Receiver<Result<Outcome, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.queue.stop.load(Ordering::Acquire) {
            return answered;
        }
        // The clock is read under the lock, so that the commands are in the order of their times.
        waiting.push(((now(), command), answer));
        if waiting.len() == 1 {
            self.queue.arrived.notify_one();
        }
        answered
    }
}

impl Drop for Journal {
    /// Writes what is queued, and gives the directory back.
    fn drop(&mut self) {
        {
            let _waiting = self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            self.queue.stop.store(true, Ordering::Release);
        }
        self.queue.arrived.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a store has panicked");
        }
    }
}

struct Writer {
    directory: Arc<Directory>,
    local: Arc<Local>,
    queue: Arc<Queue>,
    file: File,
    len: u64,
    /// The sequence number of the next command.
    next: u64,
    /// Being written; gives its length.
    snapshot: Option<JoinHandle<io::Result<u64>>>,
    snapshot_len: u64,
}

impl Writer {
    fn run(mut self) {
        let failed = loop {
            let batch = self.queue.wait();
            if batch.is_empty() {
                break None;
            }
            if let Err(error) = self.commit_all(batch) {
                break Some(error);
            }
        };
        let why = failed.as_ref().map_or_else(|| "dropped".to_owned(), ToString::to_string);
        if failed.is_some() {
            tracing::error!("the store in {} closes: {why}", self.directory.path.display());
        }
        self.local.close(&why);
        self.queue.stop.store(true, Ordering::Release);
        if let Some(snapshot) = self.snapshot.take() {
            let _ = snapshot.join();
        }
        // Whoever comes after a failure is told at once; their senders are dropped.
        while !self.queue.wait().is_empty() {}
    }

    fn commit_all(&mut self, batch: Vec<(Entry, Answer)>) -> io::Result<()> {
        let mut batch = batch.into_iter().peekable();
        while batch.peek().is_some() {
            let (mut entries, mut answers, mut len) = (Vec::new(), Vec::new(), 0);
            while len < BATCH_LEN
                && let Some((entry, answer)) = batch.next()
            {
                len += if let (_, Command::Txn(txn)) = &entry { 64 + txn.size() } else { 64 };
                entries.push(entry);
                answers.push(answer);
            }
            self.write(&entries)?;
            for (answer, outcome) in answers.into_iter().zip(self.local.apply(entries)) {
                // Whoever does not wait any more does not want to know.
                let _ = answer.send(outcome.map_err(StoreError::Refused));
            }
            self.rotate()?;
        }
        Ok(())
    }

    fn write(&mut self, entries: &Vec<Entry>) -> io::Result<()> {
        let body = codec::encode(entries).map_err(io::Error::other)?;
        let record = record::encode(self.next, &body);
        let record = record.ok_or_else(|| io::Error::other("a batch is too long"))?;
        self.file.write_all(&record)?;
        self.file.sync_data()?;
        self.len += record.len() as u64;
        self.next += entries.len() as u64;
        Ok(())
    }

    /// Starts a new log and a snapshot beside it, once the log is long.
    fn rotate(&mut self) -> io::Result<()> {
        if let Some(written) = self.snapshot.take_if(|thread| thread.is_finished()) {
            match written.join() {
                Ok(Ok(len)) => self.snapshot_len = len,
                // What was there still is, and another is written when this log is as long again.
                Ok(Err(error)) => tracing::error!("a snapshot could not be written: {error}"),
                Err(_) => tracing::error!("writing a snapshot has panicked"),
            }
        }
        if self.snapshot.is_some() || self.len < LOG_LEN.max(self.snapshot_len) {
            return Ok(());
        }
        self.file = self.directory.create_log(self.next)?;
        self.len = 0;
        let (directory, queue) = (Arc::clone(&self.directory), Arc::clone(&self.queue));
        let (sequence, machine) = (self.next, self.local.look(Clone::clone));
        let write = move || {
            directory.write_snapshot(sequence, &machine, || queue.stop.load(Ordering::Acquire))
        };
        let thread = std::thread::Builder::new().name("store-snapshot".to_owned());
        self.snapshot = Some(thread.spawn(write)?);
        Ok(())
    }
}

impl Queue {
    /// Waits for commands; none when there will be no more.
    fn wait(&self) -> Vec<(Entry, Answer)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.is_empty() && !self.stop.load(Ordering::Acquire) {
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut *waiting)
    }
}
