//! Versions of servers: `X`, `X.Y`, `X.Y.Z` and full semantic versions, compared without their build metadata.

use semver::{BuildMetadata, Version};

use crate::autopilot::{Config, ServerState};

/// The version of a server as its application spells it; `None`: it says none.
pub(super) fn text<'a>(config: &Config, server: &'a ServerState) -> Option<&'a str> {
    match config.upgrade_version_tag.as_str() {
        "" => Some(server.server.version.as_str()).filter(|text| !text.is_empty()),
        tag => server.tag(tag),
    }
}

/// The version of a server; `None`: it says none, or none that can be read.
pub(super) fn of(config: &Config, server: &ServerState) -> Option<Version> {
    parse(text(config, server)?)
}

/// Reads a version. A missing minor or patch number is 0.
pub(super) fn parse(text: &str) -> Option<Version> {
    let text = text.trim();
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let missing = match numbers.matches('.').count() {
        0 => ".0.0",
        1 => ".0",
        _ => "",
    };
    let mut version = Version::parse(&format!("{numbers}{missing}{rest}")).ok()?;
    // Two builds of one version are one version.
    version.build = BuildMetadata::EMPTY;
    Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_versions_are_padded_and_builds_are_ignored() {
        assert_eq!(parse("2"), parse("2.0.0"));
        assert_eq!(parse("2.1"), parse(" 2.1.0+linux "));
        assert_eq!(parse("1.11.0+a"), parse("1.11.0+b"));
        assert_eq!(parse("2-rc.1"), parse("2.0.0-rc.1"));
        assert!(parse("1.11.0-release.1") < parse("1.11.0-release.2"));
        assert!(parse("1.11.0-release.2") < parse("1.11.0"));
        assert!(parse("1.9") < parse("1.10"));
    }

    #[test]
    fn what_is_no_version_is_not_known() {
        for text in ["", "latest", "1.2.3.4", "1..2", "-1", "v1", "1.2.x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
