//! Bincode frames: a version byte, a length and a bounded payload, for files and wires of ours.
//!
//! ```text
//!  byte 0     bytes 1..5, little endian     the next `length` bytes
//! +---------+-----------------------------+--------------------------+
//! | version | length of the payload       | payload, in bincode      |
//! +---------+-----------------------------+--------------------------+
//! ```
//!
//! Nothing else in this crate knows about bincode, so another encoding can take its place here
//! together with the next [`VERSION`]. Bytes from a file or a socket are hostile until decoded:
//! every length is checked before anything is allocated for it, and whatever is left over is an
//! error.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the frames that this build writes, and the only one that it reads.
///
/// Bincode is positional: a field added anywhere makes old bytes unreadable, so a changed type
/// needs a new version.
pub const VERSION: u8 = 2;

/// Bytes of a frame in front of its payload: the version and the length.
pub const HEADER_LEN: usize = 5;

/// The largest payload of one frame, in bytes: 16 MiB.
///
/// Far above any record, log entry or snapshot chunk that we write, and small enough that a
/// hostile peer gains nothing by claiming it. Longer data travels in several frames.
pub const MAX_PAYLOAD_LEN: usize = 16 << 20;

/// Why bytes are not the frame that was expected. Nothing was kept of what was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The first byte names another format. Read the data with the release that wrote it.
    #[error(
        "frame of version {found} found, version {VERSION} expected; nothing was kept of it: read it with the release that wrote it"
    )]
    Version {
        /// The version byte that was read.
        found: u8,
    },
    /// The payload is longer than the reader (or, when encoding, [`MAX_PAYLOAD_LEN`]) allows.
    /// Split the data; from a peer, close the connection.
    #[error(
        "payload of {found} bytes found, at most {limit} expected; nothing was kept of it: split the data, or close the connection to the peer that sent it"
    )]
    TooLong {
        /// Length of the payload, in bytes.
        found: usize,
        /// The largest length allowed, in bytes.
        limit: usize,
    },
    /// The bytes end before the frame does. Read more, or discard a torn write.
    #[error(
        "{found} bytes of a frame found, {expected} expected; nothing was kept of them: read more, or discard a torn write"
    )]
    Truncated {
        /// Bytes that are there.
        found: usize,
        /// Bytes that the frame needs.
        expected: usize,
    },
    /// Bytes follow where the value should end: not a value of this type, or not of this release.
    #[error(
        "{found} bytes found after the end of {expected}, none expected; nothing was kept: read it as the type, and with the release, that wrote it"
    )]
    Trailing {
        /// Bytes left over.
        found: usize,
        /// The Rust type that was expected.
        expected: &'static str,
    },
    /// The payload is not a value of the expected type: read it as the type, and with the release,
    /// that wrote it.
    #[error(
        "payload of {found} bytes is not {expected}: {source}; nothing was kept of it: read it as the type, and with the release, that wrote it"
    )]
    Malformed {
        /// Length of the payload, in bytes.
        found: usize,
        /// The Rust type that was expected.
        expected: &'static str,
        /// What the decoder stumbled over.
        source: Box<bincode::error::DecodeError>,
    },
    /// The value has no positional encoding (an untagged enum, a sequence of unknown length).
    /// Nothing was written; the type needs another shape.
    #[error(
        "{found} cannot be encoded: {source}; nothing was written: give the type another shape"
    )]
    Unencodable {
        /// The Rust type of the value.
        found: &'static str,
        /// What the encoder stumbled over.
        source: Box<bincode::error::EncodeError>,
    },
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_PAYLOAD_LEN>()
}

/// Encodes a value as one whole frame.
///
/// # Errors
/// [`CodecError::Unencodable`] or [`CodecError::TooLong`]; nothing is returned of the value.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut frame = vec![VERSION, 0, 0, 0, 0];
    bincode::serde::encode_into_std_write(value, &mut frame, config()).map_err(|source| {
        CodecError::Unencodable { found: std::any::type_name::<T>(), source: Box::new(source) }
    })?;
    let found = frame.len() - HEADER_LEN;
    let too_long = CodecError::TooLong { found, limit: MAX_PAYLOAD_LEN };
    if found > MAX_PAYLOAD_LEN {
        return Err(too_long);
    }
    let length = u32::try_from(found).map_err(|_| too_long)?;
    frame[1..HEADER_LEN].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// Decodes bytes that are exactly one frame.
///
/// Collections of zero-sized elements must not be part of `T`: no length limit bounds them.
///
/// # Errors
/// Every variant but [`CodecError::Unencodable`], each with what was found and what was expected.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (payload, rest) = split(bytes)?;
    if !rest.is_empty() {
        return Err(CodecError::Trailing { found: rest.len(), expected: "the frame" });
    }
    decode_payload(payload)
}

/// Splits the first frame off `bytes`: its payload, and what follows the frame.
///
/// For files in which frame follows frame.
///
/// # Errors
/// [`CodecError::Version`], [`CodecError::TooLong`] or [`CodecError::Truncated`].
pub fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), CodecError> {
    let truncated = |expected| CodecError::Truncated { found: bytes.len(), expected };
    let (header, rest) =
        bytes.split_first_chunk::<HEADER_LEN>().ok_or_else(|| truncated(HEADER_LEN))?;
    let length = payload_len(*header, MAX_PAYLOAD_LEN)?;
    rest.split_at_checked(length).ok_or_else(|| truncated(HEADER_LEN + length))
}

/// The length of the payload that follows a header, in bytes; at most `limit`.
///
/// For sockets: read [`HEADER_LEN`] bytes, ask here, read that many more, then
/// [`decode_payload`].
///
/// # Errors
/// [`CodecError::Version`] or [`CodecError::TooLong`]; the stream is of no further use then.
pub fn payload_len(header: [u8; HEADER_LEN], limit: usize) -> Result<usize, CodecError> {
    let [version, length @ ..] = header;
    if version != VERSION {
        return Err(CodecError::Version { found: version });
    }
    let limit = limit.min(MAX_PAYLOAD_LEN);
    let found = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if found > limit {
        return Err(CodecError::TooLong { found, limit });
    }
    Ok(found)
}

/// Decodes the payload of one frame, without its header.
///
/// # Errors
/// [`CodecError::TooLong`], [`CodecError::Malformed`] or [`CodecError::Trailing`].
pub fn decode_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    let (found, expected) = (payload.len(), std::any::type_name::<T>());
    if found > MAX_PAYLOAD_LEN {
        return Err(CodecError::TooLong { found, limit: MAX_PAYLOAD_LEN });
    }
    let (value, read) = bincode::serde::decode_from_slice(payload, config())
        .map_err(|source| CodecError::Malformed { found, expected, source: Box::new(source) })?;
    if read != found {
        return Err(CodecError::Trailing { found: found.saturating_sub(read), expected });
    }
    Ok(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Sample {
        Nothing,
        Pair { key: String, value: Vec<u8> },
        Many(BTreeMap<u64, Option<String>>),
    }

    fn samples() -> impl Strategy<Value = Sample> {
        prop_oneof![
            Just(Sample::Nothing),
            (".*", proptest::collection::vec(any::<u8>(), 0..200))
                .prop_map(|(key, value)| Sample::Pair { key, value }),
            proptest::collection::btree_map(any::<u64>(), proptest::option::of(".{0,9}"), 0..9)
                .prop_map(Sample::Many),
        ]
    }

    #[test]
    fn a_frame_of_another_version_is_refused_by_name() {
        let mut frame = encode(&7_u64).unwrap();
        frame[0] = 9;
        let error = decode::<u64>(&frame).unwrap_err();
        assert!(error.to_string().starts_with("frame of version 9 found, version 2 expected; "));
    }

    #[test]
    fn a_byte_too_many_is_refused_inside_and_after_the_frame() {
        let mut frame = encode(&7_u64).unwrap();
        frame.push(0);
        assert!(matches!(decode::<u64>(&frame), Err(CodecError::Trailing { found: 1, .. })));
        frame[1] += 1;
        assert!(matches!(decode::<u64>(&frame), Err(CodecError::Trailing { found: 1, .. })));
    }

    #[test]
    fn a_claimed_length_is_judged_before_anything_is_allocated() {
        let header = [VERSION, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(split(&header), Err(CodecError::TooLong { found: 0xffff_ffff, .. })));
        let header = [VERSION, 11, 0, 0, 0];
        assert!(matches!(payload_len(header, 10), Err(CodecError::TooLong { found: 11, .. })));
        assert_eq!(payload_len(header, 11).unwrap(), 11);
    }

    #[test]
    fn a_string_that_claims_a_terabyte_is_an_error() {
        let mut payload = vec![253];
        payload.extend((1_u64 << 40).to_le_bytes());
        assert!(matches!(decode_payload::<String>(&payload), Err(CodecError::Malformed { .. })));
        assert!(matches!(decode_payload::<Vec<u64>>(&payload), Err(CodecError::Malformed { .. })));
    }

    #[test]
    fn a_value_beyond_the_limit_is_not_encoded() {
        let long = "x".repeat(MAX_PAYLOAD_LEN);
        assert!(matches!(encode(&long), Err(CodecError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn every_value_comes_back(sample in samples()) {
            prop_assert_eq!(decode::<Sample>(&encode(&sample).unwrap()).unwrap(), sample);
        }

        #[test]
        fn every_cut_is_an_error(sample in samples(), at in any::<proptest::sample::Index>()) {
            let frame = encode(&sample).unwrap();
            prop_assert!(decode::<Sample>(&frame[..at.index(frame.len())]).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<Sample>(&bytes);
            let _ = decode_payload::<Sample>(&bytes);
        }

        #[test]
        fn changed_bytes_never_panic(
            sample in samples(),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut frame = encode(&sample).unwrap();
            for (at, byte) in changes {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if let Ok(other) = decode::<Sample>(&frame) {
                prop_assert!(encode(&other).is_ok());
            }
        }
    }
}
