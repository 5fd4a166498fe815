//! A table that fits: columns as wide as their cells where there is room, shortened with `…` where there is not.

use super::terminal::{Terminal, Tone};

/// Between two columns.
const SEPARATOR: &str = "  ";

/// On which side a column's cells are flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A column: its head, its side, and how narrow it may become before others have to give way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// The head.
    pub(super) title: &'static str,
    /// The side.
    pub(super) align: Align,
    /// The width that is kept while another column still has more than its own.
    pub(super) least: usize,
    /// Where even the least widths do not fit, columns are left out, the highest number first; 0 stays.
    pub(super) dispensable: u8,
}

/// Columns and rows. Widths are counted in characters: what the demo shows is one column a character.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<(Tone, Vec<String>)>,
}

impl Table {
    /// A table without rows.
    pub(super) const fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, line breaks and control characters become spaces.
    pub(super) fn push(&mut self, tone: Tone, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().take(self.columns.len()).map(|cell| one_line(&cell)).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push((tone, cells));
    }

    /// Prints head, rule and rows.
    pub(super) fn print(&self, terminal: &Terminal) {
        for (tone, line) in self.lay_out(terminal.room()) {
            terminal.laid_out(tone, &line);
        }
    }

    fn lay_out(&self, room: usize) -> Vec<(Tone, String)> {
        let widths = self.widths(room);
        let head: Vec<String> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        let mut lines = vec![(Tone::Heading, self.line(&head, &widths)), (Tone::Quiet, self.line(&rule, &widths))];
        lines.extend(self.rows.iter().map(|(tone, cells)| (*tone, self.line(cells, &widths))));
        lines
    }

    /// Natural widths, and while they do not fit, one character less for the column that has most to give. A column
    /// that is left out has the width 0.
    fn widths(&self, room: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| column.title.chars().count()).collect();
        for (_, cells) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.leave_out(&mut widths, room);
        while total(&widths) > room {
            let spare = |(index, width): &(usize, usize)| width.saturating_sub(self.columns[*index].least);
            let candidates = widths.iter().copied().enumerate().filter(|(_, width)| *width > 1);
            // Above the least widths the one with most to spare gives way, below them the widest.
            let Some((index, _)) = candidates.max_by_key(|column| (spare(column), column.1)) else { break };
            widths[index] -= 1;
        }
        widths
    }

    /// Gives up dispensable columns until the least widths of the others fit.
    fn leave_out(&self, widths: &mut [usize], room: usize) {
        let mut order: Vec<usize> = (0..self.columns.len()).filter(|at| self.columns[*at].dispensable > 0).collect();
        order.sort_by_key(|at| self.columns[*at].dispensable);
        let fits = |widths: &[usize]| {
            let least: Vec<usize> =
                widths.iter().zip(&self.columns).map(|(width, column)| column.least.min(*width)).collect();
            total(&least) <= room
        };
        while !fits(widths) {
            let Some(index) = order.pop() else { break };
            widths[index] = 0;
        }
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width), column) in cells.iter().zip(widths).zip(&self.columns).filter(|((_, width), _)| **width > 0)
        {
            if !line.is_empty() {
                line.push_str(SEPARATOR);
            }
            let cell = shorten(cell, *width);
            match column.align {
                Align::Left => line.push_str(&format!("{cell:<width$}")),
                Align::Right => line.push_str(&format!("{cell:>width$}")),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// The width of a line: the columns that are there, and what stands between them.
fn total(widths: &[usize]) -> usize {
    let shown = widths.iter().filter(|width| **width > 0).count();
    widths.iter().sum::<usize>() + SEPARATOR.len() * shown.saturating_sub(1)
}

/// At most `width` characters, the last of them `…` when something is missing.
fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// A statement may hold line breaks, and a hostile one escape sequences: neither reaches the terminal.
fn one_line(text: &str) -> String {
    let visible: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Align, Column, Table, shorten};
    use crate::demo::terminal::Tone;

    fn table() -> Table {
        let mut table = Table::new(vec![
            Column { title: "user", align: Align::Left, least: 6, dispensable: 0 },
            Column { title: "statement", align: Align::Left, least: 10, dispensable: 0 },
            Column { title: "ms", align: Align::Right, least: 3, dispensable: 1 },
        ]);
        table.push(Tone::Plain, ["alice@example.com".into(), "select 1 from a_rather_long_name".into(), "0.4".into()]);
        table.push(Tone::Bad, ["bob".into(), "drop\n\x1b[2Jtable".into()]);
        table
    }

    fn longest(lines: &[(Tone, String)]) -> usize {
        lines.iter().map(|(_, line)| line.chars().count()).max().unwrap_or(0)
    }

    #[test]
    fn natural_widths_when_there_is_room() {
        let lines = table().lay_out(200);
        assert_eq!(lines[2].1, "alice@example.com  select 1 from a_rather_long_name  0.4");
        assert_eq!(lines[0].1, "user               statement                          ms");
        assert_eq!(lines[3].0, Tone::Bad);
    }

    #[test]
    fn fits_every_width_that_can_hold_the_columns() {
        for room in 7..80 {
            assert!(longest(&table().lay_out(room)) <= room, "too wide at {room}");
        }
    }

    #[test]
    fn the_widest_column_gives_way_first() {
        let lines = table().lay_out(45);
        assert!(lines[2].1.starts_with("alice@example.com  select 1 from"), "{}", lines[2].1);
        assert!(lines[2].1.contains('…'));
        assert!(lines[2].1.ends_with("0.4"), "numbers stay whole: {}", lines[2].1);
    }

    #[test]
    fn a_dispensable_column_is_left_out_before_others_fall_below_their_least() {
        let head = |room: usize| table().lay_out(room)[0].1.clone();
        assert!(head(23).ends_with("ms"), "6 + 10 + 3 and two gaps are 23");
        assert!(!head(22).contains("ms"));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let lines = table().lay_out(80);
        assert!(lines.iter().all(|(_, line)| !line.chars().any(char::is_control)));
        assert!(lines[3].1.contains("drop [2Jtable"));
    }

    #[test]
    fn shorten_counts_characters_not_bytes() {
        assert_eq!(shorten("größer", 6), "größer");
        assert_eq!(shorten("größer!", 6), "größe…");
        assert_eq!(shorten("abc", 1), "…");
    }
}
