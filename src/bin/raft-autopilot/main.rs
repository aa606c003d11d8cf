//! `raft-autopilot`, the operator's command: asks a running cluster why, and rehearses what if.

mod client;
#[cfg(feature = "etcd")]
mod etcd;
mod explain;
#[cfg(all(feature = "etcd", feature = "ids"))]
mod ids;
mod input;
#[cfg(feature = "etcd")]
mod items;
mod place;
mod plan;
mod state;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

/// Asks a running cluster why it stands as it stands, and rehearses what autopilot would do.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say why each server, or one of them, stands where it stands, and what comes next.
    Explain {
        /// The id of a server; all of them where it is left out.
        server: Option<String>,
        #[command(flatten)]
        node: Node,
        /// Print the answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show every server's vote and work side by side, and why items move.
    State {
        #[command(flatten)]
        node: Node,
        /// Print the answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Plan who holds which item, with no store: print the desired assignments' figures.
    Place {
        /// A case as JSON: members, items and assignments, as docs/items.md shows; `-` reads standard
        /// input.
        file: String,
        /// Print the desired assignments and the figures as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look at the items in an etcd: who holds how many, what moves, and what is left to do.
    #[cfg(feature = "etcd")]
    Items(items::Arguments),
    /// Look at the items in an etcd, with another build: this one is without the feature `etcd`.
    #[cfg(not(feature = "etcd"))]
    Items(Unbuilt),
    /// Look at the ids in an etcd, and take those back that nobody uses.
    #[cfg(all(feature = "etcd", feature = "ids"))]
    Ids(ids::Arguments),
    /// Look at the ids in an etcd, with another build: this one is without the feature `etcd` or `ids`.
    #[cfg(not(all(feature = "etcd", feature = "ids")))]
    Ids(Unbuilt),
    /// Rehearse a case: print what is thought of it, and every step until it has converged.
    Plan {
        /// A case as JSON, as `GET /v1/operator/autopilot/case` gives it; `-` reads standard input.
        file: String,
        /// For how long the cluster is watched.
        #[arg(long, default_value = "49h", value_parser = raft_autopilot::duration::parse)]
        horizon: Duration,
        /// Print the rehearsal as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What is given to a command that this build is without.
#[cfg(not(all(feature = "etcd", feature = "ids")))]
#[derive(Debug, Args)]
struct Unbuilt {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _given: Vec<String>,
}

/// What to do about that.
#[cfg(not(all(feature = "etcd", feature = "ids")))]
fn unbuilt(command: &str, features: &str) -> Result<String, Failure> {
    Err(Failure::Input(format!(
        "`{command}` looks into an etcd, and this command was built without that: \
         `cargo install --path . --features {features}` builds it"
    )))
}

/// A node that answers.
#[derive(Debug, Args)]
struct Node {
    /// Where a node answers HTTP: `http://host:port`, and the path that the routes are nested under,
    /// where there is one.
    #[arg(long, env = "RAFT_AUTOPILOT_ADDRESS")]
    address: String,
    /// The token that lets read from afar.
    #[arg(long, env = "RAFT_AUTOPILOT_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Why the command ends without an answer.
#[derive(Debug)]
enum Failure {
    /// What was given cannot be used: exit code 2.
    Input(String),
    /// Nobody answered, or something else than was asked for: exit code 1.
    Answer(String),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Explain { server, node, json } => explain::run(server.as_deref(), &node, json),
        Verb::State { node, json } => state::run(&node, json),
        Verb::Place { file, json } => place::run(&file, json),
        #[cfg(feature = "etcd")]
        Verb::Items(arguments) => items::run(&arguments),
        #[cfg(not(feature = "etcd"))]
        Verb::Items(_) => unbuilt("items", "cli,etcd"),
        #[cfg(all(feature = "etcd", feature = "ids"))]
        Verb::Ids(arguments) => ids::run(&arguments),
        #[cfg(not(all(feature = "etcd", feature = "ids")))]
        Verb::Ids(_) => unbuilt("ids", "cli,etcd,ids"),
        Verb::Plan { file, horizon, json } => plan::run(&file, horizon, json),
    };
    match done {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(Failure::Input(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
        Err(Failure::Answer(error)) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A reader that goes away, as `head` does, is no error.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
