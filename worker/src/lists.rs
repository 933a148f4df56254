//! Values of a flag as they were typed: the flag may be repeated, and each text holds one value or several, separated by commas.
//!
//! A value may have commas of its own (`Smith, 2020`). It is found whole where the names are known, and can stand in double quotes
//! anywhere: `--batches '"Smith, 2020",Mueller'`.

use std::collections::BTreeSet;

use archipelago_anndata::names;

use crate::error::{Error, Result};

/// One value between two commas, and whether it was quoted.
struct Piece {
    text: String,
    is_quoted: bool,
}

/// The values in some texts, where names are made and not looked up.
pub fn split(texts: &[String]) -> Vec<String> {
    texts.iter().flat_map(|text| pieces(text)).map(|piece| piece.text).collect()
}

/// The values in some texts among names that are known: the longest runs of text that `find` knows, under the names that it gives.
/// What it does not know is a value up to the next comma, for the caller to refuse.
pub fn among(texts: &[String], find: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut values = Vec::new();
    for text in texts {
        if let Some(name) = find(text) {
            values.push(name);
            continue;
        }
        let pieces = pieces(text);
        let mut at = 0;
        while at < pieces.len() {
            let n_raw = pieces[at..].iter().take_while(|piece| !piece.is_quoted).count();
            let joined =
                |n: usize| pieces[at..at + n].iter().map(|piece| piece.text.as_str()).collect::<Vec<_>>().join(",");
            let longest = (1..=n_raw).rev().find_map(|n| {
                let joined = joined(n);
                Some((find(&joined).or_else(|| find(joined.trim()))?, n))
            });
            let (name, n) = longest.unwrap_or_else(|| {
                let text = &pieces[at].text;
                (find(text).unwrap_or_else(|| text.clone()), 1)
            });
            values.push(name);
            at += n;
        }
    }
    values
}

/// The values in some texts among those of an obs column.
///
/// # Errors  [`Error::UnknownValue`] listing some that there are
pub fn of_column(texts: &[String], column: &str, values: &[Option<String>]) -> Result<Vec<String>> {
    let present: BTreeSet<&str> = values.iter().flatten().map(String::as_str).collect();
    let asked = among(texts, name_in(present.iter().copied()));
    match asked.iter().find(|value| !present.contains(value.as_str())) {
        None => Ok(asked),
        Some(found) => {
            let available: Vec<String> = present.iter().take(N_EXAMPLES).map(|value| format!("`{value}`")).collect();
            let (column, found) = (column.to_owned(), found.clone());
            Err(Error::UnknownValue { column, found, available: available.join(", ") })
        }
    }
}

/// Values shown in an error.
const N_EXAMPLES: usize = 20;

/// How a name is looked up among others: the name itself, or the one that writes the same number (`1.0` for `1`).
pub fn name_in<'a>(names: impl IntoIterator<Item = &'a str> + Clone) -> impl Fn(&str) -> Option<String> {
    move |asked| {
        let equal = names.clone().into_iter().find(|name| *name == asked);
        equal.or_else(|| names.clone().into_iter().find(|name| names::is_same(name, asked))).map(str::to_owned)
    }
}

/// What stands between commas outside of double quotes; a quote within quotes is doubled.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let (piece, after) = match rest.trim_start().strip_prefix('"').and_then(quoted) {
            Some((text, after)) => (Piece { text, is_quoted: true }, after),
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (Piece { text: rest[..end].to_owned(), is_quoted: false }, &rest[end..])
            }
        };
        pieces.push(piece);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return pieces,
        }
    }
}

/// The text up to the closing quote, and what follows: a comma or the end. Anything else is no quotation.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != '"' {
            value.push(letter);
        } else if letters.next_if(|(_, next)| *next == '"').is_some() {
            value.push('"');
        } else {
            let after = text[at + 1..].trim_start();
            return (after.is_empty() || after.starts_with(',')).then_some((value, after));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[track_caller]
    fn check(typed: &[&str], expected: &[&str]) {
        let known = ["Smith, 2020", "Mueller 2021", "a", "b", "1", "a,b"];
        assert_eq!(among(&texts(typed), name_in(known)), expected);
    }

    #[test]
    fn a_value_with_a_comma_is_found_whole() {
        check(&["Smith, 2020"], &["Smith, 2020"]);
        check(&["a,Smith, 2020,b"], &["a", "Smith, 2020", "b"]);
        check(&["b,a"], &["b", "a"]);
        check(&["a,b"], &["a,b"]);
        check(&["b, a"], &["b", "a"]);
        check(&["Smith, 2020", "b"], &["Smith, 2020", "b"]);
    }

    #[test]
    fn quotes_part_what_could_be_read_as_one() {
        check(&["\"a\",\"b\""], &["a", "b"]);
        check(&["\"Smith, 2020\",b"], &["Smith, 2020", "b"]);
        assert_eq!(split(&texts(&["\"Smith, 2020\",b", "c \"d\", e"])), ["Smith, 2020", "b", "c \"d\"", " e"]);
        assert_eq!(split(&texts(&["\"say \"\"x\"\"\""])), ["say \"x\""]);
    }

    #[test]
    fn numbers_are_found_as_they_are_called_and_the_unknown_is_left_to_the_caller() {
        check(&["1.0,a"], &["1", "a"]);
        check(&["z,a"], &["z", "a"]);
        check(&["Smith, 2021"], &["Smith", " 2021"]);
        assert!(among(&[], name_in(["a"])).is_empty());
    }
}
