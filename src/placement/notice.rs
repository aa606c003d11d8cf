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

/// Whose word a standing is, or the greater part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Autopilot's, who judges health. It is bounded: see
    /// [`Options::max_share_percent`](super::Options::max_share_percent).
    #[default]
    Health,
    /// A person's, who drains or cordons a server or announces that it restarts.
    Person,
}

/// What is published of a server, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Notice {
    /// The server's id.
    pub server: ServerId,
    /// What autopilot thinks of it.
    pub verdict: Verdict,
    /// What it may hold: what both its health and people leave.
    pub standing: Standing,
    /// Whose word takes more.
    pub cause: Cause,
    /// Why, for people.
    pub why: String,
    /// What its health leaves, whatever people say.
    pub by_health: Standing,
    /// What people leave, whatever its health is.
    pub by_person: Standing,
}

impl Notice {
    /// What is published of a server that nothing was taken from.
    pub(super) fn full(server: ServerId, verdict: Verdict) -> Self {
        let (standing, cause) = (Standing::Full, Cause::Health);
        let (by_health, by_person) = (standing, standing);
        Self { server, verdict, standing, cause, why: String::new(), by_health, by_person }
    }

    /// The same with what health and what people leave now, each with its reason.
    pub(super) fn leaving(self, health: (Standing, &str), person: (Standing, &str)) -> Self {
        let (by_health, by_person) = (health.0, person.0);
        let taken = |standing: Standing| standing.rank() > Standing::Full.rank();
        let personal = taken(by_person) && by_person.rank() >= by_health.rank();
        let (first, second) = if personal { (person, health) } else { (health, person) };
        let why = if taken(second.0) && first.1 != second.1 {
            format!("{}; {}", first.1, second.1)
        } else {
            first.1.to_owned()
        };
        let cause = if personal { Cause::Person } else { Cause::Health };
        Self { standing: by_health.and(by_person), cause, why, by_health, by_person, ..self }
    }
}

/// A notice as it was written, perhaps by a version that knew one word only.
#[derive(Deserialize)]
struct Written {
    server: ServerId,
    verdict: Verdict,
    standing: Standing,
    cause: Cause,
    why: String,
    by_health: Option<Standing>,
    by_person: Option<Standing>,
}

impl From<Written> for Notice {
    fn from(written: Written) -> Self {
        let Written { server, verdict, standing, cause, why, by_health, by_person } = written;
        let of = |whose: Cause, told: Option<Standing>| match told {
            Some(told) => told,
            None if whose == cause => standing,
            None => Standing::Full,
        };
        let (by_health, by_person) = (of(Cause::Health, by_health), of(Cause::Person, by_person));
        Self { server, verdict, standing, cause, why, by_health, by_person }
    }
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
    fn a_notice_of_one_word_is_read_as_what_that_word_takes() {
        let read = |cause: &str| {
            let text = format!(
                r#"{{"server":"3","verdict":"healthy","standing":{{"shed":25}},"cause":"{cause}","why":""}}"#
            );
            let notice: Notice = serde_json::from_str(&text).unwrap();
            (notice.by_health, notice.by_person)
        };
        assert_eq!(read("health"), (Standing::Shed(25), Standing::Full));
        assert_eq!(read("person"), (Standing::Full, Standing::Shed(25)));
    }

    #[test]
    fn a_notice_tells_what_both_leave_and_is_read_back() {
        let full = Notice::full("3".into(), Verdict::Unhealthy);
        let both = full.leaving((Standing::Shed(25), "slow"), (Standing::NothingNew, "cordoned"));
        assert_eq!((both.standing, both.cause), (Standing::ShedOnly(25), Cause::Health));
        assert_eq!(both.why, "slow; cordoned");
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<Notice>(&text).unwrap(), both);
    }

    #[test]
    fn terms_compare_as_text() {
        assert!(Term(9).to_string() < Term(10).to_string());
        assert_eq!(Term(u64::MAX).to_string().len(), Term(0).to_string().len());
    }
}
