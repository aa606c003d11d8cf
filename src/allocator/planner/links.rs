//! Which of its primaries a member may hand to whom: found from those who lack some.

/// See the [module](self).
pub(super) struct Links {
    /// By member, its last one in the list.
    last: Vec<Option<usize>>,
    /// An item, who may become its primary, and the one before.
    list: Vec<(u32, u32, Option<usize>)>,
}

impl Links {
    /// None, of so many members.
    pub(super) fn new(members: usize) -> Self {
        Self { last: vec![None; members], list: Vec::new() }
    }

    pub(super) fn push(&mut self, from: u32, item: u32, to: u32) {
        let before = self.last[from as usize].replace(self.list.len());
        self.list.push((item, to, before));
    }

    pub(super) fn pop(&mut self, from: u32) -> Option<(u32, u32)> {
        let (item, to, before) = self.list[self.last[from as usize]?];
        self.last[from as usize] = before;
        Some((item, to))
    }
}
