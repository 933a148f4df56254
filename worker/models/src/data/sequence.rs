//! Sequences of letters as rows of codes.

use std::collections::BTreeSet;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The letters that a reference's sequences are made of, and the length of the longest one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alphabet {
    /// The letters, in order; the code of the first one is 1.
    pub letters: Vec<char>,
    /// Letters of the longest sequence.
    pub length: usize,
}

impl Alphabet {
    /// That of these sequences.
    pub fn of<S: AsRef<str>>(sequences: &[S]) -> Self {
        let letters: BTreeSet<char> = sequences.iter().flat_map(|sequence| sequence.as_ref().chars()).collect();
        let longest = sequences.iter().map(|sequence| sequence.as_ref().chars().count()).max();
        Self { letters: letters.into_iter().collect(), length: longest.unwrap_or(0) }
    }

    /// The codes of sequences, `[n, length]`; 0 behind the last letter.
    ///
    /// # Errors  [`Error::Value`] for a letter that the reference does not know, or a longer sequence
    pub fn encode<S: AsRef<str>>(&self, field: &str, sequences: &[S]) -> Result<Array2<i64>> {
        let refuse = |found: String, expected: String| Err(Error::Value { part: field.to_owned(), found, expected });
        let mut codes = Array2::zeros((sequences.len(), self.length));
        for (sequence, mut row) in sequences.iter().zip(codes.rows_mut()) {
            let sequence = sequence.as_ref();
            let n = sequence.chars().count();
            if n > self.length {
                return refuse(format!("a sequence of {n} letters"), format!("at most {}", self.length));
            }
            for (letter, code) in sequence.chars().zip(&mut row) {
                match self.letters.binary_search(&letter) {
                    Ok(at) => *code = at as i64 + 1,
                    Err(_) => return refuse(format!("the letter `{letter}`"), self.letters.iter().collect()),
                }
            }
        }
        Ok(codes)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn letters_have_codes_from_one_and_the_rest_is_zero() {
        let alphabet = Alphabet::of(&["CASS", "CA"]);
        assert_eq!(alphabet, Alphabet { letters: vec!['A', 'C', 'S'], length: 4 });
        assert_eq!(alphabet.encode("tcr", &["SC", "CASS"]).unwrap(), array![[3, 2, 0, 0], [2, 1, 3, 3]]);
        assert!(alphabet.encode("tcr", &["CAT"]).unwrap_err().to_string().contains("`T`"));
        assert!(alphabet.encode("tcr", &["CASSA"]).unwrap_err().to_string().contains("5 letters"));
    }
}
