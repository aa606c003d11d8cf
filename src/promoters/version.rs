//! The versions of servers, by their tag or their own.

use semver::Version;

use crate::autopilot::{Config, ServerState, parse_version};

/// The version of a server as its application spells it; `None`: it says none.
pub(super) fn text<'a>(config: &Config, server: &'a ServerState) -> Option<&'a str> {
    match config.upgrade_version_tag.as_str() {
        "" => Some(server.server.version.as_str()).filter(|text| !text.is_empty()),
        tag => server.tag(tag),
    }
}

/// The version of a server; `None`: it says none, or none that can be read.
pub(super) fn of(config: &Config, server: &ServerState) -> Option<Version> {
    parse_version(text(config, server)?)
}
