//! A proxy before an etcd that cuts, delays, mutes and half-closes connections.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They pass.
    Open,
    /// All connections are closed, and so is every new one.
    Cut,
    /// They come late.
    Slow(Duration),
    /// The server's stay here, and the connection stands.
    Mute,
    /// The client's stay here, and the connection stands.
    Deaf,
    /// The server's side is closed towards the client, and not the other way; new connections
    /// pass.
    HalfClosed,
}

pub(crate) struct Proxy {
    pub(crate) address: String,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before `server`, host and port.
    pub(crate) async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (mode, seen) = watch::channel(Mode::Open);
        let server = server.to_owned();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let mode = seen.clone();
                if *mode.borrow() == Mode::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pump(from_client, to_server, mode.clone(), Mode::Deaf));
                tokio::spawn(pump(from_server, to_client, mode, Mode::Mute));
            }
        });
        Self { address, mode, task }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.mode.send_replace(Mode::Cut);
    }
}

/// Carries bytes one way, until either end closes or the mode does.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    holds: Mode,
) {
    let closes =
        |mode: Mode| mode == Mode::Cut || (mode == Mode::HalfClosed && holds == Mode::Mute);
    mode.mark_unchanged();
    let mut bytes = vec![0; 16 << 10];
    loop {
        let len = tokio::select! {
            read = from.read(&mut bytes) => read.unwrap_or(0),
            changed = mode.changed() => {
                if changed.is_err() || closes(*mode.borrow_and_update()) {
                    break;
                }
                continue;
            }
        };
        if len == 0 {
            break;
        }
        let now = *mode.borrow();
        if let Mode::Slow(delay) = now {
            sleep(delay).await;
        }
        // Not asked before it stands open again, or is closed.
        if mode.wait_for(|mode| *mode != holds).await.is_err() || *mode.borrow() == Mode::Cut {
            break;
        }
        if to.write_all(&bytes[..len]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
