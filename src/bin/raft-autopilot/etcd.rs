//! Where an etcd answers, as arguments.

use std::{fs, path::PathBuf};

use clap::Args;
use raft_autopilot::{
    runtime::TokioRuntime,
    store::etcd::{Etcd, Options, Tls},
};

use super::Failure;

#[derive(Debug, Args)]
pub(super) struct Connection {
    /// Where the etcd answers: `http://host:2379`; several are separated by commas.
    #[arg(long, env = "RAFT_AUTOPILOT_ETCD", value_delimiter = ',', required = true)]
    etcd: Vec<String>,
    /// A user and a password, as `user:password`.
    #[arg(long, env = "RAFT_AUTOPILOT_ETCD_USER", hide_env_values = true)]
    user: Option<String>,
    /// A file with the certificates that the servers' are signed with.
    #[arg(long)]
    cacert: Option<PathBuf>,
    /// A file with the own certificate.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// A file with the key of the own certificate.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
}

impl Connection {
    /// Connects.
    pub(super) async fn connect(&self) -> Result<Etcd, Failure> {
        let connected = Etcd::connect(self.options()?, TokioRuntime).await;
        connected.map_err(|error| Failure::Answer(error.to_string()))
    }

    fn options(&self) -> Result<Options, Failure> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path)
                .map_err(|error| Failure::Input(format!("{}: {error}", path.display())))
        };
        let user = match &self.user {
            None => None,
            Some(user) => match user.split_once(':') {
                Some((user, password)) => Some((user.to_owned(), password.to_owned())),
                None => return Err(Failure::Input("`--user` is not `user:password`".to_owned())),
            },
        };
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
            _ => None,
        };
        let ca = self.cacert.as_ref().map(read).transpose()?;
        let secret = ca.is_some()
            || identity.is_some()
            || self.etcd.iter().any(|address| address.starts_with("https"));
        let tls = secret.then_some(Tls { ca, identity, domain: None });
        Ok(Options { endpoints: self.etcd.clone(), user, tls, ..Options::default() })
    }
}
