//! A replicated key-value database that steers itself: one command starts five servers of it.
//!
//! ```sh
//! cargo run --release --example database --features openraft,http,placement
//! ```
#![allow(clippy::disallowed_methods, reason = "a program of its own, on tokio and the real clock")]

mod autopilot;
mod cluster;
mod http;
mod members;
mod network;
mod node;
#[cfg(feature = "ids")]
mod numbers;
mod operator;
mod ranges;
mod service;
mod storage;
mod store;
mod table;
mod types;
mod web;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A replicated key-value database. Without a command: five servers of it, on this machine.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Run>,
    #[command(flatten)]
    cluster: cluster::Options,
}

#[derive(Debug, Subcommand)]
enum Run {
    /// Runs one server in this process.
    Node(node::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let ended = match arguments.command {
        Some(Run::Node(options)) => node::run(options).await,
        None => cluster::run(arguments.cluster).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
