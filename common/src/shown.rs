//! Text from elsewhere as it is shown to people: names of cells, genes, batches and files may hold characters that command a
//! terminal or turn the direction of a line, and nothing that is shown may do that.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

/// The text with such characters written out, as `\u{1b}`. Ends of lines and tabs stay.
pub fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| commands(letter) && !matches!(letter, '\n' | '\t'))
}

/// A name, which is one line: ends of lines and tabs are written out as well.
pub fn name(name: &str) -> Cow<'_, str> {
    escaped(name, commands)
}

/// JSON text with such characters as JSON escapes them: the value is the same.
pub fn json(text: &str) -> Cow<'_, str> {
    // Outside of strings JSON has none of them but ends of lines.
    let is_raw = |letter| commands(letter) && !matches!(letter, '\n' | '\t');
    if !text.contains(is_raw) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match is_raw(letter) {
            true => write!(escaped, "\\u{:04x}", u32::from(letter)).expect("text takes text"),
            false => escaped.push(letter),
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character commands a terminal (controls, C1 among them), or turns or hides what stands around it.
pub fn commands(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            letter if !is_escaped(letter) => shown.push(letter),
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            letter => shown.extend(letter.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

/// A writer of log lines that shows them as [`text`] does; colours of the log itself may pass.
#[derive(Debug)]
pub struct Shown<W> {
    to: W,
    with_colours: bool,
}

impl<W> Shown<W> {
    /// Before another writer. With colours, the sequences that set one are let through.
    pub fn new(to: W, with_colours: bool) -> Self {
        Self { to, with_colours }
    }
}

impl<W: Write> Write for Shown<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        let mut rest = &*line;
        while self.with_colours
            && let Some((start, end)) = colour(rest)
        {
            self.to.write_all(text(&rest[..start]).as_bytes())?;
            self.to.write_all(&rest.as_bytes()[start..end])?;
            rest = &rest[end..];
        }
        self.to.write_all(text(rest).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Where the first sequence stands that sets a colour: `ESC [ numbers m`.
fn colour(text: &str) -> Option<(usize, usize)> {
    text.match_indices("\u{1b}[").find_map(|(start, introducer)| {
        let body = &text[start + introducer.len()..];
        let length = body.find(|letter: char| !letter.is_ascii_digit() && letter != ';')?;
        body[length..].starts_with('m').then_some((start, start + introducer.len() + length + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_or_turns_a_line_is_written_out() {
        assert_eq!(text("T cells\n\tNK ü 细胞"), "T cells\n\tNK ü 细胞");
        assert_eq!(text("a\u{1b}[2Jb\r\u{202e}c\u{9b}"), "a\\u{1b}[2Jb\\u{d}\\u{202e}c\\u{9b}");
        assert_eq!(name("a\nerror: b\t"), "a\\nerror: b\\t");
        assert_eq!(json("{\n  \"a\": \"\u{202e}\"\n}"), "{\n  \"a\": \"\\u202e\"\n}");
    }

    #[test]
    fn only_colours_pass_in_a_log_that_has_them() {
        let shown = |line: &str, with_colours| {
            let mut bytes = Vec::new();
            Shown::new(&mut bytes, with_colours).write_all(line.as_bytes()).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let line = "\u{1b}[33mWARN\u{1b}[0m a\u{1b}[2J\u{1b}]0;x\u{7}\n";
        assert_eq!(shown(line, true), "\u{1b}[33mWARN\u{1b}[0m a\\u{1b}[2J\\u{1b}]0;x\\u{7}\n");
        assert_eq!(shown(line, false), "\\u{1b}[33mWARN\\u{1b}[0m a\\u{1b}[2J\\u{1b}]0;x\\u{7}\n");
    }
}
