//! Which rows of the slot map are free: tables of all pools live in one map, each as one span.

use std::collections::BTreeMap;

/// Free spans by first row; neighbours are always joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FreeRows(BTreeMap<u32, u32>);

impl FreeRows {
    /// All of `rows` rows, less the spans in use (first row, rows).
    pub(super) fn new(rows: u32, used: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut used: Vec<_> = used.into_iter().filter(|span| span.1 > 0).collect();
        used.sort_unstable();
        let mut free = BTreeMap::new();
        let mut next = 0;
        for (first, length) in used {
            if first > next {
                free.insert(next, first - next);
            }
            next = next.max(first + length);
        }
        if rows > next {
            free.insert(next, rows - next);
        }
        Self(free)
    }

    /// A span of that many rows: the smallest that is large enough, so that large ones stay.
    pub(super) fn take(&mut self, rows: u32) -> Option<u32> {
        let fits = self.0.iter().filter(|span| *span.1 >= rows);
        let (&first, &length) = fits.min_by_key(|span| *span.1)?;
        self.0.remove(&first);
        if length > rows {
            self.0.insert(first + rows, length - rows);
        }
        Some(first)
    }

    /// Gives a span back.
    pub(super) fn give(&mut self, first: u32, rows: u32) {
        let (mut first, mut rows) = (first, rows);
        if rows == 0 {
            return;
        }
        if let Some((&before, &length)) = self.0.range(..first).next_back()
            && before + length == first
        {
            self.0.remove(&before);
            (first, rows) = (before, rows + length);
        }
        if let Some(length) = self.0.remove(&(first + rows)) {
            rows += length;
        }
        self.0.insert(first, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::FreeRows;

    #[test]
    fn spans_are_taken_and_joined() {
        let mut free = FreeRows::new(100, [(10, 5), (50, 10)]);
        assert_eq!(free.take(10), Some(0));
        assert_eq!(free.take(36), Some(60));
        assert_eq!(free.take(36), None);
        free.give(10, 5);
        free.give(0, 10);
        assert_eq!(free.take(50), Some(0));
        free.give(0, 50);
        free.give(50, 10);
        free.give(60, 36);
        assert_eq!(free, FreeRows::new(100, []));
    }
}
