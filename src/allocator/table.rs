//! Rows that have a name and a number: found by name, walked in the order of names, meant by number.

use std::{collections::BTreeMap, sync::Arc};

/// The rows. A number is short and quick to compare; it is given again when its row is gone.
#[derive(Debug)]
pub(super) struct Table<T> {
    numbers: BTreeMap<Arc<str>, u32>,
    rows: Vec<(Arc<str>, T)>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), rows: Vec::new(), free: Vec::new() }
    }
}

impl<T: Default> Table<T> {
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The number of a row; a new one if there was none of that name.
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.find(name) {
            return number;
        }
        let row = (Arc::<str>::from(name), T::default());
        let name = Arc::clone(&row.0);
        let number = if let Some(number) = self.free.pop() {
            self.rows[number as usize] = row;
            number
        } else {
            self.rows.push(row);
            u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
        };
        self.numbers.insert(name, number);
        number
    }

    /// All numbers are below this.
    pub(super) fn end(&self) -> usize {
        self.rows.len()
    }

    /// A row by its number, with its name; one that is gone is empty.
    pub(super) fn row(&self, number: u32) -> (&Arc<str>, &T) {
        let (name, row) = &self.rows[number as usize];
        (name, row)
    }

    pub(super) fn row_mut(&mut self, number: u32) -> (&Arc<str>, &mut T) {
        let (name, row) = &mut self.rows[number as usize];
        (name, row)
    }

    pub(super) fn remove(&mut self, number: u32) {
        let (name, row) = &mut self.rows[number as usize];
        if self.numbers.remove(name).is_some() {
            *row = T::default();
            self.free.push(number);
        }
    }

    /// The numbers, by name.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.numbers.values().copied()
    }

    /// The rows, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &T)> {
        self.numbers().map(|number| self.row(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_when_its_row_is_gone() {
        let mut table = Table::<u8>::default();
        let [b, a] = ["b", "a"].map(|name| table.number(name));
        (*table.row_mut(a).1, *table.row_mut(b).1) = (1, 2);
        assert_eq!((table.number("b"), table.find("a"), table.find("c")), (b, Some(a), None));
        let rows = |table: &Table<u8>| {
            table.iter().map(|(name, row)| format!("{name}{row}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(rows(&table), "a1 b2");
        table.remove(b);
        table.remove(b);
        assert_eq!((table.find("b"), *table.row(b).1), (None, 0));
        let [c, d] = ["c", "d"].map(|name| table.number(name));
        assert_eq!((c, d, table.len()), (b, 2, 3));
        assert_eq!(rows(&table), "a1 c0 d0");
    }
}
