//! The one way from a value to a name: batches, labels, donors and categories of any column are called alike wherever they
//! are named, in a file, in a reference and on the command line.
//!
//! Text is its own name. A number is called as it is written in decimal, one without a fraction like the integer that it is (`1` for
//! `1` and `1.0`); a number that is none (NaN) has no name: it is missing. Truths are `True` and `False`.

use std::collections::{HashMap, HashSet};

use crate::{Error, Result, Values};

/// The name of each value.
pub(crate) fn of(values: &Values) -> Vec<Option<String>> {
    match values {
        Values::F16(_) => of(&Values::F32(values.to_f32().unwrap_or_default())),
        Values::F32(v) => v.iter().map(|&x| (!x.is_nan()).then(|| (x + 0.0).to_string())).collect(),
        Values::F64(v) => v.iter().map(|&x| of_number(x)).collect(),
        other => other.to_strings().into_iter().map(Some).collect(),
    }
}

/// The name of a number, if it is one.
pub fn of_number(x: f64) -> Option<String> {
    // Zero has one name, whatever its sign.
    (!x.is_nan()).then(|| (x + 0.0).to_string())
}

/// Whether two texts name the same value: they are equal, or one writes an integer as a float of Python (`1.0`).
pub fn is_same(a: &str, b: &str) -> bool {
    without_fraction(a) == without_fraction(b)
}

/// `1` for `1.0`; anything else, `01.0` among it, as it is.
fn without_fraction(text: &str) -> &str {
    let Some(whole) = text.strip_suffix(".0") else { return text };
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let is_integer = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let is_plain = digits == "0" || !digits.starts_with('0');
    if is_integer && is_plain && whole != "-0" { whole } else { text }
}

/// Whether every cell has a name of its own, as it must where cells are found by name.
///
/// # Errors
/// [`Error::DuplicateCells`]
pub fn check_unique_cells(names: &[String]) -> Result<()> {
    let (n_duplicated, examples) = repeated(names);
    match n_duplicated {
        0 => Ok(()),
        _ => Err(Error::DuplicateCells { n_duplicated, examples }),
    }
}

/// How many names occur more than once, and a few of them in order of their second appearance.
pub fn repeated<'a>(names: impl IntoIterator<Item = &'a String>) -> (usize, Vec<String>) {
    let (mut known, mut twice, mut examples) = (HashSet::new(), HashSet::new(), Vec::new());
    for name in names {
        if !known.insert(name) && twice.insert(name) && examples.len() < N_EXAMPLES {
            examples.push(name.clone());
        }
    }
    (twice.len(), examples)
}

/// Names shown in an error.
const N_EXAMPLES: usize = 5;

/// Names with a number behind those that were there before, as anndata makes them unique.
pub(crate) fn unique<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let names: Vec<&String> = names.into_iter().collect();
    let mut taken: HashSet<String> = names.iter().map(|name| (*name).clone()).collect();
    let (mut seen, mut next): (HashSet<&String>, HashMap<&String, usize>) = (HashSet::new(), HashMap::new());
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        if seen.insert(name) {
            all.push(name.clone());
            continue;
        }
        let n = next.entry(name).or_insert(1);
        while !taken.insert(format!("{name}-{n}")) {
            *n += 1;
        }
        all.push(format!("{name}-{n}"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_called_alike_whatever_type_it_is_of() {
        let names = |values: Values| of(&values);
        let expected = [Some("1".to_owned()), Some("-20".to_owned())];
        for values in [vec![1.0_f32, -20.0].into(), vec![1.0_f64, -20.0].into(), Values::from(vec![1_i16, -20])] {
            assert_eq!(names(values), expected);
        }
        assert_eq!(names(vec![-0.0, 0.25].into()), [Some("0".to_owned()), Some("0.25".to_owned())]);
        assert_eq!(names(vec![f64::NAN, f64::INFINITY].into()), [None, Some("inf".to_owned())]);
        assert_eq!(names(vec![true].into()), [Some("True".to_owned())]);
    }

    #[test]
    fn an_integer_written_as_a_float_is_the_same_and_a_padded_number_is_not() {
        for (a, b) in [("1", "1.0"), ("-3.0", "-3"), ("0.0", "0"), ("1.0", "1.0"), ("x", "x")] {
            assert!(is_same(a, b) && is_same(b, a), "{a} {b}");
        }
        for (a, b) in [("1", "01.0"), ("1", "1.00"), ("1.5", "1"), ("v1", "v1.0"), ("", ".0"), ("0", "-0.0")] {
            assert!(!is_same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn names_that_repeat_get_numbers_that_are_free() {
        let names = ["A", "B", "A", "A-1", "A"].map(str::to_owned);
        assert_eq!(unique(&names), ["A", "B", "A-2", "A-1", "A-3"]);
    }
}
