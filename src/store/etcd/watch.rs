//! A watch that outlives its connection: it opens another where the last one ended.

use std::{sync::Arc, time::Duration};

use etcd_client::{Client, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use tokio::sync::{Notify, mpsc};

use super::{
    client::Etcd,
    convert::{self, Failure, failure, signed, unsigned},
};
use crate::{
    runtime::{Runtime, sleep_until},
    store::{
        contract::{Update, Watch},
        error::{Refusal, StoreError},
        kv::{Event, Events, KeyRange},
        txn::RangeRequest,
    },
};

/// How many updates wait for a slow reader; then etcd has to wait, too.
const QUEUE_LEN: usize = 64;

/// The pauses before a connection that was lost is sought again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The watch id of an answer that is about all watches of a connection.
const ALL: i64 = -1;

/// On servers of which an answer about progress may overtake events: how many are needed, and how
/// far apart, with no event between, until one is believed. Such a server sends what it owes
/// every 100 ms.
const DOUBTS: (u32, Duration) = (3, Duration::from_millis(150));

/// A watch of an etcd. A task of its own holds the connection.
#[derive(Debug)]
pub struct EtcdWatch {
    updates: mpsc::Receiver<Result<Update, StoreError>>,
    ask: Arc<Notify>,
    ended: Option<StoreError>,
}

impl EtcdWatch {
    pub(super) async fn open<R: Runtime>(
        etcd: Etcd<R>,
        range: KeyRange,
        from: u64,
    ) -> Result<Self, StoreError> {
        let (send, updates) = mpsc::channel(QUEUE_LEN);
        let ask = Arc::new(Notify::new());
        let runtime = etcd.shared.runtime.clone();
        let end = runtime.now().saturating_add(etcd.shared.options.deadline);
        let ask_too = Arc::clone(&ask);
        let mut follower = Follower {
            etcd,
            range,
            next: from,
            told: 0,
            send,
            ask: ask_too,
            asked: false,
            refreshed: false,
        };
        // It is opened here for the first time, so that "from now on" is settled on return.
        let (endpoint, connection) = loop {
            let endpoint = follower.etcd.current();
            match follower.connect(endpoint).await {
                Ok(connection) => break (endpoint, connection),
                Err(Failure::Unsent(_) | Failure::Unanswered(_)) if runtime.now() < end => {
                    follower.etcd.leave(endpoint);
                    runtime.sleep(PAUSES.0).await;
                }
                Err(failure) => return Err(failure.of_reading()),
            }
        };
        runtime.spawn(follower.run(endpoint, connection));
        Ok(Self { updates, ask, ended: None })
    }
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Update, StoreError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let update = self.updates.recv().await;
        let update = update
            .unwrap_or_else(|| Err(StoreError::Retry("the task of a watch has ended".to_owned())));
        if let Err(error) = &update {
            self.ended = Some(error.clone());
        }
        update
    }

    fn request_progress(&mut self) {
        self.ask.notify_one();
    }
}

/// An open connection.
struct Connection {
    client: Client,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    /// Whether an answer about progress comes after all events that it speaks for.
    ordered: bool,
}

/// Why a connection is left.
enum Leave {
    /// Another is needed.
    Lost(String),
    /// The reader has gone.
    Unread,
    Ended(StoreError),
}

struct Follower<R: Runtime> {
    etcd: Etcd<R>,
    range: KeyRange,
    /// The next revision that is to be told. Zero: not known before the first connection.
    next: u64,
    /// Up to where the store surely was.
    told: u64,
    send: mpsc::Sender<Result<Update, StoreError>>,
    ask: Arc<Notify>,
    /// Progress was asked for, and none was told yet.
    asked: bool,
    /// The token is fresh, and no watch has stood with it yet.
    refreshed: bool,
}

impl<R: Runtime> Follower<R> {
    async fn run(mut self, mut endpoint: usize, connection: Connection) {
        let mut open = Some(connection);
        let mut pause = PAUSES.0;
        loop {
            let leave = match open.take() {
                Some(connection) => {
                    let before = self.next;
                    let leave = self.follow(connection).await;
                    if self.next > before {
                        pause = PAUSES.0;
                    }
                    leave
                }
                None => Leave::Lost(String::new()),
            };
            match leave {
                Leave::Unread => return,
                Leave::Ended(error) => {
                    let _ = self.send.send(Err(error)).await;
                    return;
                }
                Leave::Lost(why) => {
                    if !why.is_empty() {
                        let range = convert::show(&self.range);
                        tracing::info!("the watch of {range} goes on elsewhere: {why}");
                        self.etcd.leave(endpoint);
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.send.closed() => return,
                () = self.etcd.shared.runtime.sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
            endpoint = self.etcd.current();
            match self.connect(endpoint).await {
                Ok(connection) => open = Some(connection),
                Err(Failure::Unsent(_) | Failure::Unanswered(_)) => self.etcd.leave(endpoint),
                Err(failure) => {
                    let _ = self.send.send(Err(failure.of_reading())).await;
                    return;
                }
            }
        }
    }

    /// Opens a watch at the next revision, and waits until the server has taken it.
    async fn connect(&mut self, endpoint: usize) -> Result<Connection, Failure> {
        let runtime = self.etcd.shared.runtime.clone();
        let patience = self.etcd.shared.options.deadline / 2;
        tokio::select! {
            biased;
            done = self.connect_patiently(endpoint) => done,
            () = runtime.sleep(patience) => {
                Err(Failure::Unanswered("a watch was not opened in time".to_owned()))
            }
        }
    }

    async fn connect_patiently(&mut self, endpoint: usize) -> Result<Connection, Failure> {
        let mut client = self.etcd.client(endpoint).await?;
        let ordered = match client.status().await {
            Ok(status) => {
                self.etcd.revision(status.header())?;
                progress_is_ordered(status.version())
            }
            Err(error) => match failure(&error) {
                // Whoever may watch need not be allowed to ask for this.
                Failure::Refused(_) => false,
                other => return Err(other),
            },
        };
        let (key, end) = convert::range(&self.range);
        let mut options = WatchOptions::new().with_start_revision(signed(self.next));
        options = options.with_progress_notify();
        if let Some(end) = end {
            options = options.with_range(end);
        }
        let len = self.etcd.shared.options.response_len;
        let mut watcher = client.watch_client().max_decoding_message_size(len);
        let watch = watcher.watch(key, Some(options));
        let mut stream = watch.await.map_err(|error| failure(&error))?;
        let created = stream.message().await.map_err(|error| failure(&error))?;
        let Some(created) = created.filter(WatchResponse::created) else {
            return Err(Failure::Unanswered("a watch was not created".to_owned()));
        };
        if created.canceled() && created.compact_revision() == 0 {
            let why = created.cancel_reason().to_owned();
            // Some versions do not say that it is the token; they deny a fresh one again.
            let doubtful = self.etcd.shared.options.user.is_some() && !self.refreshed;
            if is_stale(&why) || doubtful {
                // Only requests refresh a token by themselves.
                client.refresh_token().await.map_err(|error| failure(&error))?;
                self.refreshed = true;
                return Err(Failure::Unsent(why));
            }
            return Err(Failure::Refused(Refusal::Denied(why)));
        }
        self.refreshed = false;
        let revision = self.etcd.revision(created.header())?;
        if self.next == 0 {
            self.next = revision + 1;
            self.told = revision;
        }
        let (requests, responses) = stream.split();
        Ok(Connection { client, requests, responses, ordered })
    }

    /// Tells what comes over a connection, for as long as it lasts.
    async fn follow(&mut self, mut connection: Connection) -> Leave {
        // A watch that starts at the compacted revision itself is taken, though a deletion at it
        // may be gone.
        if let Some(leave) = self.check_start().await {
            return leave;
        }
        let (mut doubts, mut again) = (0, false);
        let mut ask_at = None;
        if self.asked {
            // The answer went the way of the last connection.
            self.ask.notify_one();
        }
        loop {
            let runtime = &self.etcd.shared.runtime;
            let message = tokio::select! {
                biased;
                () = self.send.closed() => return Leave::Unread,
                message = connection.responses.message() => Some(message),
                // While answers are doubted, those to come have to do for this one too.
                () = self.ask.notified(), if !again => {
                    again = doubts > 0;
                    if again {
                        continue;
                    }
                    doubts = if connection.ordered { 1 } else { DOUBTS.0 };
                    self.asked = true;
                    None
                }
                () = sleep_until(runtime, ask_at) => None,
            };
            let Some(message) = message else {
                ask_at = None;
                if let Err(error) = connection.requests.request_progress().await {
                    return Leave::Lost(error.to_string());
                }
                continue;
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return Leave::Lost("the connection ended".to_owned()),
                Err(error) => match failure(&error) {
                    // Over another connection it would be as large.
                    long @ Failure::TooLong(_) => return Leave::Ended(long.of_reading()),
                    _ => return Leave::Lost(error.to_string()),
                },
            };
            if message.canceled() {
                return canceled(&message, &connection.client).await;
            }
            let told = if message.events().is_empty() {
                if message.watch_id() == ALL {
                    doubts = u32::saturating_sub(doubts, 1);
                    if doubts > 0 {
                        ask_at = Some(self.etcd.shared.runtime.now() + DOUBTS.1);
                        continue;
                    }
                    self.asked = false;
                    if std::mem::take(&mut again) {
                        self.ask.notify_one();
                    }
                }
                self.tell_progress(&message).await
            } else {
                if doubts > 0 && !connection.ordered {
                    doubts = DOUBTS.0;
                }
                self.tell(&message).await
            };
            if let Err(leave) = told {
                return leave;
            }
        }
    }

    async fn check_start(&self) -> Option<Leave> {
        let before = self.next.saturating_sub(1);
        if before == 0 {
            return None;
        }
        let request = RangeRequest::new(self.range.clone()).at(before).limit(1).keys_only();
        match self.etcd.get(&request).await {
            // It has told what it does not know.
            Err(Failure::Ahead) if self.told >= before => {
                let what = format!(
                    "it was at revision {before}, and is not any more: it is not the same store"
                );
                Some(Leave::Ended(Refusal::Closed(what).into()))
            }
            Ok(_) | Err(Failure::Ahead) => None,
            Err(Failure::Compacted) => {
                Some(Leave::Ended(Refusal::Compacted { compacted: self.next }.into()))
            }
            Err(Failure::Unsent(why) | Failure::Unanswered(why)) => Some(Leave::Lost(why)),
            Err(failure) => Some(Leave::Ended(failure.of_reading())),
        }
    }

    /// Tells the revisions of a message; etcd never splits one over two of them.
    async fn tell(&mut self, message: &WatchResponse) -> Result<(), Leave> {
        let events = message.events().iter().filter_map(convert::event);
        let revisions = by_revision(self.next, events).map_err(|late| {
            let range = convert::show(&self.range);
            tracing::error!("the watch of {range} was told {late} after {} was passed", self.told);
            // It was told that there was nothing, so it has to read.
            Leave::Ended(Refusal::Compacted { compacted: self.next - 1 }.into())
        })?;
        for events in revisions {
            self.next = events.revision + 1;
            self.told = events.revision;
            self.send.send(Ok(Update::Events(events))).await.map_err(|_| Leave::Unread)?;
        }
        Ok(())
    }

    async fn tell_progress(&mut self, message: &WatchResponse) -> Result<(), Leave> {
        // A header of another cluster tells nothing.
        let revision = self.etcd.revision(message.header()).unwrap_or_default();
        if message.created() || revision + 1 < self.next {
            return Ok(());
        }
        self.next = revision + 1;
        self.told = revision;
        self.send.send(Ok(Update::Progress(revision))).await.map_err(|_| Leave::Unread)
    }
}

/// The events of each revision, none of which may be before `next`; else the one that is.
fn by_revision(next: u64, events: impl Iterator<Item = (u64, Event)>) -> Result<Vec<Events>, u64> {
    let mut revisions: Vec<Events> = Vec::new();
    let mut reached = next;
    for (revision, event) in events {
        if revision < reached {
            return Err(revision);
        }
        reached = revision;
        match revisions.last_mut().filter(|last| last.revision == revision) {
            Some(last) => last.events.push(event),
            None => revisions.push(Events { revision, events: vec![event] }),
        }
    }
    Ok(revisions)
}

/// Whether a watch was turned away for a token that has run out, or that a server which was started
/// again does not know.
fn is_stale(reason: &str) -> bool {
    reason.contains("invalid auth token")
}

async fn canceled(message: &WatchResponse, client: &Client) -> Leave {
    if is_stale(message.cancel_reason()) {
        let refreshed = client.refresh_token().await.map_err(|error| error.to_string());
        return Leave::Lost(refreshed.err().unwrap_or_else(|| message.cancel_reason().to_owned()));
    }
    let (compacted, why) = (unsigned(message.compact_revision()), message.cancel_reason());
    if compacted > 0 {
        return Leave::Ended(Refusal::Compacted { compacted }.into());
    }
    if why.contains("permission denied") || why.contains("auth") {
        return Leave::Ended(Refusal::Denied(why.to_owned()).into());
    }
    Leave::Lost(if why.is_empty() { "the watch was canceled".to_owned() } else { why.to_owned() })
}

/// Since 3.4.25 and 3.5.8 an answer about progress waits for the events that it speaks for.
fn progress_is_ordered(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
    let mut next = || parts.next().unwrap_or_default();
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        (major, minor, _) => (major, minor) > (3, 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_come_too_late_are_not_passed_over() {
        let events = |revisions: &[u64]| {
            let revisions = revisions.to_vec();
            revisions.into_iter().map(|revision| (revision, Event::Delete("a".into())))
        };
        let told = |next, revisions: &[u64]| {
            let told = by_revision(next, events(revisions))?;
            let told = told.iter().map(|told| (told.revision, told.events.len()));
            Ok::<_, u64>(told.collect::<Vec<_>>())
        };
        assert_eq!(told(5, &[5, 5, 7]), Ok(vec![(5, 2), (7, 1)]));
        assert_eq!(told(5, &[]), Ok(vec![]));
        assert_eq!(told(5, &[4, 5]), Err(4));
        assert_eq!(told(5, &[7, 6]), Err(6));
    }

    #[test]
    fn old_servers_are_doubted() {
        for (version, ordered) in [
            ("3.4.23", false),
            ("3.4.25", true),
            ("3.5.1", false),
            ("3.5.8", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("", false),
        ] {
            assert_eq!(progress_is_ordered(version), ordered, "{version}");
        }
    }
}
