//! What is published of a server: what it may hold, why, and by whose word; and under which keys.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    allocator::{
        MemberKey, Standing,
        item::{NameError, check_name},
    },
    autopilot::{Server, ServerId, Verdict},
};

/// The zone of a server that names none.
const NO_ZONE: &str = "default";

/// Whose word a standing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Autopilot's, who judges health. It is bounded: see
    /// [`Config::max_share_percent`](super::Config::max_share_percent).
    #[default]
    Health,
    /// A person's, who drains or cordons a server or announces that it restarts.
    Person,
}

/// What is published of a server, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The server's id.
    pub server: ServerId,
    /// What autopilot thinks of it.
    pub verdict: Verdict,
    /// What it may hold.
    pub standing: Standing,
    /// By whose word.
    pub cause: Cause,
    /// Why, for people.
    pub why: String,
}

/// The member that a server is: its zone and its name, or its id where it has no name. So zones and
/// names come from the same place for votes and for work.
///
/// # Errors
/// One of the two cannot be part of a key.
pub fn member_of(server: &Server) -> Result<MemberKey, NameError> {
    let zone = server.zone.as_deref().unwrap_or(NO_ZONE);
    let name = if server.name.is_empty() { server.id.as_str() } else { &server.name };
    check_name(zone)?;
    check_name(name)?;
    Ok(MemberKey::new(zone, name))
}

/// The keys under which notices are published.
///
/// ```text
/// PREFIX/term                            the term of the leader that may write
/// PREFIX/servers/<zone>#<member>         a notice
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// The keys under a prefix; a slash at its end counts for nothing.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.trim_end_matches('/').to_owned() }
    }

    /// What all of them begin with.
    pub fn prefix(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// Where the term stands.
    pub fn term(&self) -> String {
        format!("{}/term", self.prefix)
    }

    /// Where a member's notice stands.
    pub fn server(&self, member: &MemberKey) -> String {
        format!("{}/servers/{member}", self.prefix)
    }

    /// Whose notice stands under a key; `None`: it is none.
    pub fn member(&self, key: &[u8]) -> Option<MemberKey> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        let (zone, member) = key.strip_prefix("/servers/")?.split_once('#')?;
        check_name(zone).and(check_name(member)).ok()?;
        Some(MemberKey::new(zone, member))
    }
}

/// A term as text of one width, so that texts compare as terms do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_named_after_its_server() {
        let mut server = Server::new("7", "somewhere:1");
        assert_eq!(member_of(&server).unwrap(), MemberKey::new("default", "7"));
        server.name = "n7".to_owned();
        server.zone = Some("east".to_owned());
        assert_eq!(member_of(&server).unwrap(), MemberKey::new("east", "n7"));
        server.name = "n 7".to_owned();
        assert!(member_of(&server).is_err());
    }

    #[test]
    fn keys_are_read_back_and_others_are_none() {
        let keys = Keys::new("/work-health/");
        let member = MemberKey::new("east", "n7");
        assert_eq!(keys.server(&member), "/work-health/servers/east#n7");
        assert_eq!(keys.member(keys.server(&member).as_bytes()), Some(member));
        for other in ["/work-health/term", "/work-health/servers/east", "/other/servers/a#b"] {
            assert_eq!(keys.member(other.as_bytes()), None);
        }
    }

    #[test]
    fn terms_compare_as_text() {
        assert!(Term(9).to_string() < Term(10).to_string());
        assert_eq!(Term(u64::MAX).to_string().len(), Term(0).to_string().len());
    }
}
