//! What zones lie in, by their names: `europe/3/b` lies in `europe/3`, and that in `europe`.

use std::collections::BTreeMap;

/// Numbers for what zones lie in; they stay.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    numbers: BTreeMap<String, u32>,
}

impl Places {
    /// The numbers of what a zone lies in on so many levels, the outermost first: the first part of its name, the first
    /// two parts, and so on. A name of fewer parts lies in itself.
    pub(super) fn of(&mut self, zone: &str, levels: usize) -> Vec<u32> {
        let ends = zone.match_indices('/').map(|(at, _)| at);
        let ends = ends.chain(std::iter::repeat(zone.len())).take(levels);
        ends.map(|end| self.number(&zone[..end])).collect()
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        self.numbers.insert(name.to_owned(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_lies_in_the_parts_of_its_name() {
        let mut places = Places::default();
        let rack = places.of("eu/1/a", 2);
        assert_eq!(places.of("eu/1/b", 2), rack);
        assert_eq!(places.of("eu/2", 1), rack[..1]);
        assert_ne!(places.of("eu/2/a", 2)[1], rack[1]);
        // A name of one part is the region and the room.
        let alone = places.of("us", 2);
        assert_eq!(alone[0], alone[1]);
        assert_eq!(places.of("us/1", 2)[0], alone[0]);
        assert!(places.of("eu", 0).is_empty());
    }
}
