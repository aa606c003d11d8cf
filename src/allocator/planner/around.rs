//! The rules of what zones lie in, and what each lies in, as they are told.

use std::collections::BTreeMap;

use super::seat::ZoneRule;

/// The rules around that of zones, and what each zone lies in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Around {
    /// By level, the outermost first.
    pub rules: Vec<ZoneRule>,
    /// By zone and level.
    lies_in: BTreeMap<u32, Vec<u32>>,
}

impl Around {
    /// Says what a zone lies in.
    pub(super) fn place(&mut self, zone: u32, lies_in: &[u32]) {
        self.lies_in.insert(zone, lies_in.to_vec());
    }

    /// What was said of a zone.
    pub(super) fn of_zone(&self, zone: u32) -> &[u32] {
        self.lies_in.get(&zone).map_or(&[], |said| said)
    }

    /// What a zone lies in on a level and those around it: what nothing is said of is called like the zone.
    pub(super) fn path(&self, zone: u32, level: usize) -> Vec<(bool, u32)> {
        let said = self.of_zone(zone);
        let named = |level| said.get(level).map_or((true, zone), |name| (false, *name));
        (0..=level).map(named).collect()
    }
}
