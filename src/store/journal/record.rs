//! Records of a file that is only appended to: torn ends are told from damage.
//!
//! ```text
//!  4 bytes   4 bytes           8 bytes    4 bytes               `length` bytes
//! +--------+-----------------+----------+---------------------+----------------+
//! | length | checksum of the | sequence | checksum of the     | body: a frame  |
//! |        | body            | number   | 16 bytes before it  |                |
//! +--------+-----------------+----------+---------------------+----------------+
//! ```
//!
//! Numbers are little endian, checksums CRC-32. A write that was cut short by a crash leaves a
//! record that is shorter than it says, or nothing but zeros. Anything else that does not check
//! is damage to what was once written whole: the length has a checksum too, so that no damage
//! can pass for a torn end and take what follows with it.

/// Bytes in front of a body.
pub(super) const HEADER_LEN: usize = 20;

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Nothing: the end.
    End,
    /// A whole record.
    Record {
        /// Its sequence number.
        sequence: u64,
        /// Its body.
        body: &'a [u8],
        /// What follows it.
        rest: &'a [u8],
    },
    /// The beginning of a record that was never written to its end.
    Torn,
    /// What no crash leaves behind.
    Damaged(&'static str),
}

/// The record of a body; `None` if it is too long.
pub(super) fn encode(sequence: u64, body: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(body.len()).ok()?;
    let mut record = Vec::with_capacity(HEADER_LEN + body.len());
    record.extend(length.to_le_bytes());
    record.extend(crc32fast::hash(body).to_le_bytes());
    record.extend(sequence.to_le_bytes());
    record.extend(crc32fast::hash(&record).to_le_bytes());
    record.extend(body);
    Some(record)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Reads the first record of `bytes`, which reach to the end of the file.
pub(super) fn decode(bytes: &[u8]) -> Found<'_> {
    if bytes.is_empty() {
        return Found::End;
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Found::Torn;
    }
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Found::Torn };
    let (checked, checksum) = header.split_at(HEADER_LEN - 4);
    if crc32fast::hash(checked) != number(checksum) {
        return Found::Damaged("the header of a record does not check");
    }
    let length = usize::try_from(number(checked)).unwrap_or(usize::MAX);
    let Some((body, rest)) = rest.split_at_checked(length) else { return Found::Torn };
    if crc32fast::hash(body) != number(&checked[4..]) {
        return Found::Damaged("the body of a record does not check");
    }
    let sequence = checked[8..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Found::Record { sequence, body, rest }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cut_is_torn_and_a_changed_byte_is_damage(
            body in proptest::collection::vec(any::<u8>(), 0..100),
            sequence in any::<u64>(),
            cut in any::<prop::sample::Index>(),
            change in 1..=u8::MAX,
        ) {
            let mut record = encode(sequence, &body).unwrap();
            let rest: &[u8] = &[];
            prop_assert_eq!(decode(&record), Found::Record { sequence, body: &body, rest });
            let at = cut.index(record.len());
            let expected = if at == 0 { Found::End } else { Found::Torn };
            prop_assert_eq!(decode(&record[..at]), expected);
            record[at] ^= change;
            prop_assert!(matches!(decode(&record), Found::Damaged(_)));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }
}
