//! Tables for a terminal.

use std::fmt::Write as _;

/// Lines of cells in columns, the first line being their heads. Numbers stand to the right, words to the left.
pub(super) fn columns<const N: usize>(lines: &[[String; N]], is_number: [bool; N]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines {
        for ((cell, width), is_number) in line.iter().zip(widths).zip(is_number) {
            // Writing to a `String` cannot fail.
            let _ = if is_number { write!(text, "{cell:>width$}  ") } else { write!(text, "{cell:<width$}  ") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let lines = [["town", "km"], ["Köln", "7"], ["Aachen", "1234"]].map(|line| line.map(str::to_owned));
        assert_eq!(columns(&lines, [false, true]), "town      km\nKöln       7\nAachen  1234\n");
    }
}
