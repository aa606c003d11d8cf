//! What lies in the directory of an embedded store, and how a machine is made of it.
//!
//! - `lock` is held by the process that has the store open.
//! - `snapshot-<sequence>` is the machine after that many commands, one record a part.
//! - `log-<sequence>` holds the commands after that many, one record for all that were synced
//!   together. The log in use is the last; older ones end where the next begins, and say so with a
//!   record of no commands, so that a next one that is missing is missed.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::record::{self, Found};
use crate::{
    codec,
    store::machine::{Command, Machine, Part, Restore},
};

/// A command, and the time at which it is applied.
pub(super) type Entry = (Duration, Command);

/// Why a directory could not be opened. What was written into it is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file system refused. Mend that, and open it again.
    #[error("{path}: {source}; what was stored is unchanged: mend that, and open it again")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another store, of this process or another, has it open. Close that one first.
    #[error("{0}: in use by another store; nothing was changed: close that one first")]
    InUse(PathBuf),
    /// What was once written whole is damaged or missing. Restore the directory from a copy.
    /// Where all that follows may be lost, cut the file at the offset, or remove it.
    #[error(
        "{path}, byte {offset}: {what}; nothing was changed: restore the directory from a copy, or, where what follows may be lost, cut the file there"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Commands may be larger than the files can hold. Configure smaller ones.
    #[error(
        "transactions of {found} bytes, at most {limit} can be persisted; nothing was changed: configure smaller ones"
    )]
    Limit {
        /// What the configuration allows, in bytes.
        found: usize,
        /// What it may allow, in bytes.
        limit: usize,
    },
}

/// What was found in a directory when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// How many commands the log held after the snapshot; those that configure the store are not
    /// counted.
    pub commands: u64,
    /// How many bytes at its end belonged to a write that was cut short. Nothing in them had been
    /// answered to anybody; they were cut off.
    pub torn: u64,
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

fn damaged(path: &Path, offset: usize, what: impl Into<String>) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), offset: offset as u64, what: what.into() }
}

/// A directory that this store alone has open.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// Locked for as long as it is open.
    lock: File,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing is not enough: a child that is just being started has the same file open.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!("{} is unlocked when this process ends: {error}", self.path.display());
        }
    }
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
        fs::create_dir_all(path).map_err(io_error(path))?;
        for parent in missing.into_iter().filter_map(Path::parent) {
            // That of a relative path of one name is the directory that we are in.
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            sync(parent).map_err(io_error(parent))?;
        }
        let name = path.join("lock");
        let lock = OpenOptions::new().create(true).append(true).open(&name);
        let lock = lock.map_err(io_error(&name))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(OpenError::Io { path: name, source }),
        }
    }

    pub(super) fn log(&self, sequence: u64) -> PathBuf {
        self.path.join(format!("log-{sequence:016x}"))
    }

    pub(super) fn snapshot(&self, sequence: u64) -> PathBuf {
        self.path.join(format!("snapshot-{sequence:016x}"))
    }

    /// The sequence numbers of the files of a kind, in ascending order.
    fn list(&self, kind: &str) -> Result<Vec<u64>, OpenError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io_error(&self.path))? {
            let name = entry.map_err(io_error(&self.path))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(kind)?.strip_prefix('-'));
            let number = number.filter(|digits| digits.len() == 16);
            found.extend(number.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Opens a log, an empty one if there is none. What is in it lasts when this returns: a process
    /// that was killed may have written it, and not have come to sync it.
    pub(super) fn open_log(&self, sequence: u64) -> io::Result<File> {
        let file = OpenOptions::new().create(true).append(true).open(self.log(sequence))?;
        file.sync_all()?;
        sync(&self.path)?;
        Ok(file)
    }

    /// Writes a machine down. It lasts, and replaces all that is older, when this returns; an
    /// error or a crash leaves what was there. `stop` is asked now and then whether to give up.
    /// Returns how long it is, in bytes.
    pub(super) fn write_snapshot(
        &self,
        sequence: u64,
        machine: &Machine,
        stop: impl Fn() -> bool,
    ) -> io::Result<u64> {
        let part = self.path.join("snapshot.part");
        let written = Self::write_parts(&part, machine, stop);
        let Ok(Some(len)) = written else {
            // What is not whole would only fill a disk that may be full.
            let _ = fs::remove_file(&part);
            return written.map(|_| 0);
        };
        fs::rename(&part, self.snapshot(sequence))?;
        sync(&self.path)?;
        self.remove_before(sequence)?;
        Ok(len)
    }

    /// Returns how long it is; `None`: it was given up.
    fn write_parts(
        part: &Path,
        machine: &Machine,
        stop: impl Fn() -> bool,
    ) -> io::Result<Option<u64>> {
        let mut file = io::BufWriter::with_capacity(1 << 20, File::create(part)?);
        for (index, content) in (0..).zip(machine.snapshot()) {
            if stop() {
                return Ok(None);
            }
            let body = codec::encode(&content).map_err(io::Error::other)?;
            let record = record::encode(index, &body);
            file.write_all(&record.ok_or_else(|| io::Error::other("a part is too long"))?)?;
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(Some(file.metadata()?.len()))
    }

    /// Removes the files that a snapshot has made superfluous.
    fn remove_before(&self, sequence: u64) -> io::Result<()> {
        for kind in ["snapshot", "log"] {
            let older = self.list(kind).map_err(io::Error::other)?;
            for older in older.into_iter().filter(|older| *older < sequence) {
                fs::remove_file(self.path.join(format!("{kind}-{older:016x}")))?;
            }
        }
        Ok(())
    }

    /// Makes a machine of what lies here. Returns it with the number of commands in it, the first
    /// of those in the last log, and what was found.
    pub(super) fn recover(&self) -> Result<(Machine, u64, u64, Recovered), OpenError> {
        let snapshot = self.list("snapshot")?.pop();
        let mut machine = match snapshot {
            Some(sequence) => read_snapshot(&self.snapshot(sequence))?,
            None => Machine::default(),
        };
        let first = snapshot.unwrap_or(0);
        let mut next = first;
        let mut logs = self.list("log")?;
        logs.retain(|log| *log >= first);
        let mut recovered = Recovered::default();
        if snapshot.is_some() && logs.is_empty() {
            return Err(damaged(&self.log(first), 0, "it is missing"));
        }
        let last = logs.last().copied();
        for (at, log) in logs.iter().enumerate() {
            if *log != next {
                return Err(damaged(&self.log(next), 0, "it is missing"));
            }
            let path = self.log(*log);
            let mut bytes = Vec::new();
            File::open(&path)
                .and_then(|mut file| file.read_to_end(&mut bytes))
                .map_err(io_error(&path))?;
            let replayed = replay(&path, &bytes, next, &mut machine)?;
            let Replayed { whole, commands, configured, closed } = replayed;
            next += commands;
            recovered.commands += commands - configured;
            let torn = bytes.len() - whole;
            if let Some(following) = logs.get(at + 1) {
                // Only its closing record can be torn.
                if torn > 0 && *following != next {
                    return Err(damaged(&path, whole, "it ends before the next log begins"));
                }
            } else if closed {
                return Err(damaged(&self.log(next), 0, "it is missing"));
            } else if torn > 0 {
                recovered.torn = torn as u64;
                let file = OpenOptions::new().write(true).open(&path).map_err(io_error(&path))?;
                file.set_len(whole as u64)
                    .and_then(|()| file.sync_all())
                    .map_err(io_error(&path))?;
            }
        }
        Ok((machine, next, last.unwrap_or(0), recovered))
    }
}

/// Makes the names in a directory last.
fn sync(directory: &Path) -> io::Result<()> {
    // Elsewhere a directory is no file, and its names last by themselves.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

/// What a log held.
struct Replayed {
    /// How many bytes of it are whole.
    whole: usize,
    commands: u64,
    /// How many of them have configured the store.
    configured: u64,
    /// Whether it says that another follows.
    closed: bool,
}

/// Applies the commands of a log.
fn replay(
    path: &Path,
    bytes: &[u8],
    first: u64,
    machine: &mut Machine,
) -> Result<Replayed, OpenError> {
    let mut left = bytes;
    let (mut next, mut configured) = (first, 0);
    let mut closed = false;
    loop {
        let offset = bytes.len() - left.len();
        match record::decode(left) {
            Found::End | Found::Torn => {
                return Ok(Replayed { whole: offset, commands: next - first, configured, closed });
            }
            Found::Damaged(what) => return Err(damaged(path, offset, what)),
            Found::Record { .. } if closed => {
                return Err(damaged(path, offset, "a record follows the last"));
            }
            Found::Record { sequence, .. } if sequence != next => {
                let what = format!("command {sequence} found, {next} expected");
                return Err(damaged(path, offset, what));
            }
            Found::Record { body, rest, .. } => {
                let entries: Vec<Entry> = codec::decode(body)
                    .map_err(|error| damaged(path, offset, error.to_string()))?;
                closed = entries.is_empty();
                next += entries.len() as u64;
                for (at, command) in entries {
                    configured += u64::from(matches!(command, Command::Configure(_)));
                    // What was refused then is refused again: all that decides is in the machine.
                    let _ = machine.apply(command, at);
                }
                left = rest;
            }
        }
    }
}

fn read_snapshot(path: &Path) -> Result<Machine, OpenError> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(io_error(path))?;
    let mut restore = Restore::new();
    let mut left = &bytes[..];
    let mut next = 0;
    loop {
        let offset = bytes.len() - left.len();
        let wrong = |what: String| damaged(path, offset, what);
        match record::decode(left) {
            Found::End => return restore.finish().map_err(|error| wrong(error.to_string())),
            // It was whole when it got its name.
            Found::Torn => return Err(wrong("it ends within a record".to_owned())),
            Found::Damaged(what) => return Err(wrong(what.to_owned())),
            Found::Record { sequence, body, rest } => {
                if sequence != next {
                    return Err(wrong(format!("part {sequence} found, {next} expected")));
                }
                let part: Part = codec::decode(body).map_err(|error| wrong(error.to_string()))?;
                restore.push(part).map_err(|error| wrong(error.to_string()))?;
                next += 1;
                left = rest;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{kv::KeyRange, txn::Op, txn::Txn};

    /// A snapshot of a machine with a history and a lease, in a directory of its own.
    fn a_snapshot() -> (tempfile::TempDir, PathBuf) {
        let mut machine = Machine::default();
        let at = |seconds| Duration::from_secs(seconds);
        let lease = Command::Grant { id: None, ttl: at(60) };
        let _ = machine.apply(lease, at(1)).unwrap();
        for number in 0..20_u64 {
            let put = Op::put(format!("{}", number % 7), vec![7; 5]);
            machine.apply(Command::Txn(Txn::new([put])), at(number)).unwrap();
        }
        machine.apply(Command::Compact(9), at(20)).unwrap();
        let delete = Op::Delete(KeyRange::key("3"));
        machine.apply(Command::Txn(Txn::new([delete])), at(21)).unwrap();
        let found = tempfile::tempdir().unwrap();
        let directory = Directory::open(found.path()).unwrap();
        directory.write_snapshot(22, &machine, || false).unwrap();
        let path = directory.snapshot(22);
        let read = read_snapshot(&path).unwrap();
        assert!(read.snapshot().eq(machine.snapshot()));
        (found, path)
    }

    #[test]
    fn every_changed_byte_and_every_cut_of_a_snapshot_is_found() {
        let (_directory, path) = a_snapshot();
        let whole = fs::read(&path).unwrap();
        let check = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).unwrap();
            let read = read_snapshot(&path);
            assert!(matches!(read, Err(OpenError::Damaged { .. })), "{what}: {read:?}");
        };
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            check(&damaged, &format!("byte {at}"));
            check(&whole[..at], &format!("cut at {at}"));
        }
        check(&[&whole[..], &[0; 30]].concat(), "zeros behind it");
    }

    #[test]
    fn a_snapshot_that_is_given_up_leaves_nothing_behind() {
        let found = tempfile::tempdir().unwrap();
        let directory = Directory::open(&found.path().join("deep/down")).unwrap();
        assert_eq!(directory.write_snapshot(1, &Machine::default(), || true).unwrap(), 0);
        let names = fs::read_dir(&directory.path).unwrap().map(|name| name.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["lock"]);
    }

    #[test]
    fn a_directory_that_is_closed_is_free_though_a_child_that_starts_has_its_lock_open() {
        let found = tempfile::tempdir().unwrap();
        let directory = Directory::open(found.path()).unwrap();
        let inherited = directory.lock.try_clone().unwrap();
        assert!(matches!(Directory::open(found.path()), Err(OpenError::InUse(_))));
        drop(directory);
        assert!(Directory::open(found.path()).is_ok());
        drop(inherited);
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_no_snapshot(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            count in 0..4_u64,
        ) {
            let found = tempfile::tempdir().unwrap();
            let path = found.path().join("snapshot-0000000000000000");
            // Each record checks; what is in it is nothing of ours.
            let len = u32::try_from(body.len()).unwrap().to_le_bytes();
            let frame = [&[codec::VERSION][..], &len, &body].concat();
            let records = (0..count).map(|number| record::encode(number, &frame).unwrap());
            fs::write(&path, records.collect::<Vec<_>>().concat()).unwrap();
            prop_assert!(read_snapshot(&path).is_err());
            let log = found.path().join("log-0000000000000000");
            fs::rename(&path, &log).unwrap();
            let bytes = fs::read(&log).unwrap();
            let _ = replay(&log, &bytes, 0, &mut Machine::default());
        }
    }
}
