//! Columns: as wide as their widest cell, two blanks apart, numbers to the right, no boxes.

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows under a head.
#[derive(Debug)]
pub(super) struct Columns {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Columns {
    /// A head of words; one that begins with `>` is the head of a right-aligned column.
    pub(super) fn new(head: &[&str]) -> Self {
        let align = |word: &&str| if word.starts_with('>') { Align::Right } else { Align::Left };
        let aligns = head.iter().map(align).collect();
        let head = head.iter().map(|word| word.trim_start_matches('>').to_owned()).collect();
        Self { aligns, rows: vec![head] }
    }

    /// Adds a row; cells that are missing at its end are empty.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.add(cells.into());
    }

    /// The same, of cells that were counted elsewhere.
    pub(super) fn add(&mut self, cells: Vec<String>) {
        debug_assert!(cells.len() <= self.aligns.len());
        self.rows.push(cells);
    }

    /// The text, one line a row, without blanks at the ends of lines.
    pub(super) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.aligns.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), align) in row.iter().zip(&widths).zip(&self.aligns) {
                let blanks = " ".repeat(width - cell.chars().count());
                match align {
                    Align::Left => line.extend([cell.as_str(), &blanks, "  "]),
                    Align::Right => line.extend([blanks.as_str(), cell, "  "]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A count in at most five characters: `999`, `12.8k`, `3.4M`.
pub(super) fn short(count: f64) -> String {
    const STEPS: [(f64, &str); 5] = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // What would be shown as 1000 of a unit is shown as one of the next.
    match STEPS.iter().find(|(step, _)| count >= step * 0.999_95) {
        Some((step, unit)) if count / step >= 99.95 => format!("{:.0}{unit}", count / step),
        Some((step, unit)) => format!("{:.1}{unit}", count / step),
        None => format!("{count:.0}"),
    }
}

/// An age: `42s`, `3h12m`, `5d07h`.
pub(super) fn age(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (count, want) in [
            (0.0, "0"),
            (999.0, "999"),
            (1000.0, "1.0k"),
            (12_849.0, "12.8k"),
            (380_000_000.0, "380M"),
            (999_960.0, "1.0M"),
        ] {
            assert_eq!(short(count), want);
        }
        for (milliseconds, want) in
            [(999, "0s"), (61_000, "1m01s"), (11_520_000, "3h12m"), (457_200_000, "5d07h")]
        {
            assert_eq!(age(milliseconds), want);
        }
    }

    #[test]
    fn columns() {
        let mut columns = Columns::new(&["NAME", ">COUNT", "NOTE"]);
        columns.row(["a".to_owned(), "10".to_owned()]);
        columns.row(["longer".to_owned(), "5".to_owned(), "x".to_owned()]);
        assert_eq!(columns.render(), "NAME    COUNT  NOTE\na          10\nlonger      5  x\n");
    }
}
