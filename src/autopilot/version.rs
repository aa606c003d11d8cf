//! Versions: `X`, `X.Y`, `X.Y.Z` and full semantic versions, compared without their build metadata.

use semver::{BuildMetadata, Version};

/// Reads a version. A missing minor or patch number is 0.
pub(crate) fn parse_version(text: &str) -> Option<Version> {
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
        assert_eq!(parse_version("2"), parse_version("2.0.0"));
        assert_eq!(parse_version("2.1"), parse_version(" 2.1.0+linux "));
        assert_eq!(parse_version("1.11.0+a"), parse_version("1.11.0+b"));
        assert_eq!(parse_version("2-rc.1"), parse_version("2.0.0-rc.1"));
        assert!(parse_version("1.11.0-release.1") < parse_version("1.11.0-release.2"));
        assert!(parse_version("1.11.0-release.2") < parse_version("1.11.0"));
        assert!(parse_version("1.9") < parse_version("1.10"));
    }

    #[test]
    fn what_is_no_version_is_not_known() {
        for text in ["", "latest", "1.2.3.4", "1..2", "-1", "v1", "1.2.x"] {
            assert_eq!(parse_version(text), None, "{text}");
        }
    }
}
