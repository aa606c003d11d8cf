//! The thread that writes commands down and applies them, many with one sync.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
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

/// The thread that writes; it ends with this.
#[derive(Debug)]
pub(crate) struct Journal {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

/// Where commands wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    commands: Vec<(Entry, Answer)>,
    /// The thread sleeps until so many are there; zero: it does not sleep.
    wanted: usize,
    stop: bool,
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
        let (machine, next, log, recovered) = directory.recover()?;
        let name = directory.log(log);
        let file = directory.open_log(log).map_err(io_error(&name))?;
        let len = file.metadata().map_err(io_error(&name))?.len();
        let snapshot_len = fs::metadata(directory.snapshot(log)).map_or(0, |found| found.len());
        let local = Arc::new(Local::new(machine));
        let queue = Arc::new(Queue::default());
        let mut writer = Writer {
            directory: Arc::new(directory),
            local: Arc::clone(&local),
            queue: Arc::clone(&queue),
            file,
            len,
            next,
            snapshot: None,
            snapshot_len,
            pace: Pace::default(),
        };
        writer.configure(config).map_err(io_error(&name))?;
        let thread = std::thread::Builder::new().name("store".to_owned());
        let thread = thread.spawn(move || writer.run()).map_err(io_error(path))?;
        Ok((Self { queue, thread: Some(thread) }, local, recovered))
    }

    /// Where commands wait to be written.
    pub(crate) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }
}

impl Drop for Journal {
    /// Writes what is queued, and gives the directory back.
    fn drop(&mut self) {
        self.queue.stop();
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
    pace: Pace,
}

impl Writer {
    fn run(mut self) {
        let failed = loop {
            let batch = self.queue.wait(&mut self.pace);
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
    }

    /// Has a configuration that is not in force written down, so that what is applied again is
    /// always judged by the one that was.
    fn configure(&mut self, config: Config) -> io::Result<()> {
        let (known, now) = self.local.look(|machine| (*machine.config(), machine.now()));
        // That of a new directory always, since the default may be another some day.
        if known == config && self.next > 0 {
            return Ok(());
        }
        let entries = vec![(now, Command::Configure(config))];
        self.write(&entries)?;
        self.local.apply(entries);
        Ok(())
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
            let outcomes = self.local.apply(entries);
            // Counted before the first of these is answered, and may be there again.
            self.pace.expected = answers.len() + self.queue.lock().commands.len();
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
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
        self.pace.sync(&self.file)?;
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
        let file = self.directory.open_log(self.next)?;
        // From here on the old one is not the last.
        self.write(&Vec::new())?;
        self.file = file;
        self.len = 0;
        let (directory, queue) = (Arc::clone(&self.directory), Arc::clone(&self.queue));
        let (sequence, machine) = (self.next, self.local.look(Clone::clone));
        let write = move || directory.write_snapshot(sequence, &machine, || queue.lock().stop);
        let thread = std::thread::Builder::new().name("store-snapshot".to_owned());
        self.snapshot = Some(thread.spawn(write)?);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.local.close("the thread that writes has ended");
        self.queue.stop();
        if let Some(snapshot) = self.snapshot.take() {
            let _ = snapshot.join();
        }
        // Whoever comes after a failure is told at once; their senders are dropped.
        while !self.queue.wait(&mut Pace::default()).is_empty() {}
    }
}

impl Queue {
    /// Queues a command, to be written and then applied at a time. The answer comes after that;
    /// none comes if the thread ends before. `None`: it has ended, and nothing is queued.
    pub(crate) fn submit(
        &self,
        command: Command,
        now: impl FnOnce() -> Duration,
    ) -> Option<oneshot::Receiver<Result<Outcome, StoreError>>> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.stop {
            return None;
        }
        // The clock is read under the lock, so that the commands are in the order of their times.
        waiting.commands.push(((now(), command), answer));
        let enough = waiting.commands.len() == waiting.wanted;
        drop(waiting);
        if enough {
            self.arrived.notify_one();
        }
        Some(answered)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.lock().stop = true;
        self.arrived.notify_one();
    }

    /// Waits for commands; none when there will be no more.
    fn wait(&self, pace: &mut Pace) -> Vec<(Entry, Answer)> {
        let mut waiting = self.lock();
        waiting.wanted = 1;
        let idle = |waiting: &mut Waiting| waiting.commands.is_empty() && !waiting.stop;
        waiting = self.arrived.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner);
        let wanted = pace.wanted(waiting.commands.len());
        if wanted > waiting.commands.len() {
            waiting.wanted = wanted;
            let short = |waiting: &mut Waiting| waiting.commands.len() < wanted && !waiting.stop;
            let patience = pace.patience();
            let done = self.arrived.wait_timeout_while(waiting, patience, short);
            waiting = done.unwrap_or_else(PoisonError::into_inner).0;
            pace.found(waiting.commands.len() >= wanted);
        }
        waiting.wanted = 0;
        std::mem::take(&mut waiting.commands)
    }
}

/// For how many commands it is worth while to wait.
///
/// Clients that wait for their answers come back together, right after the batch in which they
/// were answered. If the next batch were taken at once, half of them would just have missed it, and
/// two halves would take turns for ever, each with a sync of its own.
#[derive(Debug, Default)]
struct Pace {
    /// How many there would be if all that are known came back.
    expected: usize,
    /// How long the last sync took.
    sync: Duration,
    /// How often in a row they did not.
    missed: u32,
    /// How many batches are still taken at once because of that.
    hasty: u32,
}

impl Pace {
    /// How many to wait for, where so many are there.
    fn wanted(&mut self, found: usize) -> usize {
        if self.hasty > 0 {
            self.hasty -= 1;
            return found;
        }
        self.expected
    }

    /// A small part of what another sync would cost.
    fn patience(&self) -> Duration {
        self.sync / 4
    }

    /// Notes whether all came. The more often they do not, the more seldom they are waited for.
    fn found(&mut self, all: bool) {
        self.missed = if all { 0 } else { self.missed.saturating_add(1).min(6) };
        self.hasty = if all { 0 } else { 1 << self.missed };
    }

    #[expect(clippy::disallowed_methods, reason = "a disk takes its time on the real clock")]
    fn sync(&mut self, file: &File) -> io::Result<()> {
        let start = Instant::now();
        file.sync_data()?;
        self.sync = start.elapsed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_come_back_together_are_waited_for() {
        let mut pace = Pace { expected: 8, ..Pace::default() };
        assert_eq!(pace.wanted(3), 8);
        pace.found(true);
        assert_eq!(pace.wanted(1), 8);
    }

    #[test]
    fn clients_that_stay_away_are_waited_for_ever_more_seldom() {
        let mut pace = Pace { expected: 8, ..Pace::default() };
        let mut waits = 0;
        for _ in 0..1_000 {
            if pace.wanted(3) > 3 {
                waits += 1;
                pace.found(false);
            }
        }
        assert!((5..25).contains(&waits), "{waits} waits");
        // Until they come together once.
        while pace.wanted(3) == 3 {}
        pace.found(true);
        assert_eq!(pace.wanted(3), 8);
    }
}
