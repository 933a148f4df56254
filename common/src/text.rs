//! Text that a peer chose, where people see it: in logs, tables and pages.

/// A peer's text as one line without control characters, `most` characters at most: what would move a cursor, end a line or
/// turn the direction of reading is written as an escape.
pub fn printable(text: &str, most: usize) -> String {
    let mut line = String::new();
    for (n_chars, c) in text.chars().enumerate() {
        if n_chars == most {
            line.push('…');
            break;
        }
        if c.is_control() || is_invisible(c) {
            line.extend(c.escape_unicode());
        } else {
            line.push(c);
        }
    }
    line
}

/// Separators of lines, marks of direction and characters without width.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line_and_moves_no_cursor() {
        let shown = printable("bye\n2026-01-01 ERROR all is lost \u{1b}[2J\u{202e}", 200);
        assert_eq!(shown, "bye\\u{a}2026-01-01 ERROR all is lost \\u{1b}[2J\\u{202e}");
        assert!(!shown.chars().any(char::is_control));
    }

    #[test]
    fn what_people_write_is_left_alone_and_cut_where_it_is_long() {
        assert_eq!(printable("Zellen aus München, naïve — 5′", 100), "Zellen aus München, naïve — 5′");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
