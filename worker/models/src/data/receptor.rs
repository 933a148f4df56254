//! Receptors of T cells: the amino acids of their chains as rows of codes.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::cells::check_length;
use crate::error::{Error, Result};

/// A chain of a T cell's receptor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chain {
    /// The alpha chain, whose gene has no D segment: `VJ`.
    Alpha,
    /// The beta chain: `VDJ`.
    Beta,
}

/// The sequences of receptors, chain by chain: amino acids from the conserved C to the conserved F or W, the junction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receptors {
    chains: Vec<(Chain, Vec<String>)>,
}

/// The form of a reference's receptors: which chains, and how many amino acids the model looks at. On a card; no sequence is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceptorForm {
    /// The chains, in order.
    pub chains: Vec<Chain>,
    /// Amino acids of the longest sequence, the same for every chain.
    pub length: usize,
}

impl Receptors {
    /// Receptors of these chains. A cell in which a chain was not seen has an empty text there.
    pub fn new(chains: Vec<(Chain, Vec<String>)>) -> Self {
        Self { chains }
    }

    /// The sequences of a chain.
    pub fn chain(&self, chain: Chain) -> Option<&[String]> {
        self.chains.iter().find(|(name, _)| *name == chain).map(|(_, sequences)| sequences.as_slice())
    }

    /// Letters of the longest sequence.
    pub fn longest(&self) -> usize {
        let lengths = self.chains.iter().flat_map(|(_, sequences)| sequences).map(|sequence| sequence.chars().count());
        lengths.max().unwrap_or(0)
    }

    /// The receptors of some cells. Panics for a cell that is not there.
    #[must_use]
    pub fn select_cells(&self, cells: &[usize]) -> Self {
        let of = |sequences: &[String]| cells.iter().map(|&cell| sequences[cell].clone()).collect();
        Self { chains: self.chains.iter().map(|(chain, sequences)| (*chain, of(sequences))).collect() }
    }

    /// Whether each cell has these chains.
    pub fn has_all(&self, chains: &[Chain], cell: usize) -> bool {
        chains.iter().all(|&chain| self.has(chain, cell))
    }

    pub(super) fn check_length(&self, name: &str, n_cells: usize) -> Result<()> {
        self.chains.iter().try_for_each(|(_, sequences)| check_length(name, "cells", sequences.len(), n_cells))
    }

    fn has(&self, chain: Chain, cell: usize) -> bool {
        self.chain(chain).is_some_and(|sequences| !sequences[cell].is_empty())
    }
}

impl ReceptorForm {
    /// The codes of receptors, `[n, n_chains * length]`, chain behind chain; 0 behind the last letter of each.
    ///
    /// # Errors  [`Error::Value`] for a letter that is no amino acid, a longer sequence, and cells without a receptor, or without one of
    /// its chains: no sequence is in their text
    pub fn encode(&self, field: &str, receptors: &Receptors) -> Result<Array2<i64>> {
        let refuse = |found: String, expected: String| Err(Error::Value { part: field.to_owned(), found, expected });
        let n_cells = receptors.chains.first().map_or(0, |(_, sequences)| sequences.len());
        let lacking = |has: &dyn Fn(usize) -> bool| (0..n_cells).filter(|&cell| !has(cell)).count();
        let n_without = lacking(&|cell| self.chains.iter().any(|&chain| receptors.has(chain, cell)));
        if n_without > 0 {
            let of =
                if n_without == n_cells { "any cell".to_owned() } else { format!("{n_without} of {n_cells} cells") };
            return refuse(format!("no receptor of {of}"), COMPLETE.to_owned());
        }
        for &chain in &self.chains {
            let n_without = lacking(&|cell| receptors.has(chain, cell));
            if n_without > 0 {
                let found = format!("no {} chain of {n_without} of {n_cells} cells", chain.name());
                return refuse(found, format!("every chain that the model takes in every cell; {COMPLETE}"));
            }
        }
        let mut codes = Array2::zeros((n_cells, self.chains.len() * self.length));
        for (k, &chain) in self.chains.iter().enumerate() {
            let sequences = receptors.chain(chain).unwrap_or_default();
            for (cell, sequence) in sequences.iter().enumerate() {
                let n = sequence.chars().count();
                if n > self.length {
                    let found = format!("{n} amino acids in the {} chain of cell {cell}", chain.name());
                    return refuse(found, format!("at most {}, the model's length", self.length));
                }
                for (at, letter) in sequence.chars().enumerate() {
                    let Some(code) = AMINO_ACIDS.find(letter) else {
                        let found = format!("the letter `{letter}` in the {} chain of cell {cell}", chain.name());
                        return refuse(found, format!("letters of amino acids, {AMINO_ACIDS}"));
                    };
                    codes[[cell, k * self.length + at]] = code as i64 + 1;
                }
            }
        }
        Ok(codes)
    }
}

impl Chain {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpha => "alpha",
            Self::Beta => "beta",
        }
    }
}

/// The letters of amino acids; the code of the first one is 1.
pub const AMINO_ACIDS: &str = "ACDEFGHIKLMNPQRSTVWY";
const COMPLETE: &str = "cells with a receptor (`archipelago-worker receptors` keeps those)";

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn receptors(alpha: &[&str], beta: &[&str]) -> Receptors {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Receptors::new(vec![(Chain::Alpha, texts(alpha)), (Chain::Beta, texts(beta))])
    }

    fn check(alpha: &[&str], beta: &[&str]) -> Result<Array2<i64>, String> {
        let form = ReceptorForm { chains: vec![Chain::Alpha, Chain::Beta], length: 3 };
        form.encode("receptor", &receptors(alpha, beta)).map_err(|error| error.to_string())
    }

    #[test]
    fn amino_acids_have_codes_from_one_and_the_rest_is_zero() {
        assert_eq!(check(&["CAY", "A"], &["D", "CW"]).unwrap(), array![[2, 1, 20, 3, 0, 0], [1, 0, 0, 2, 19, 0]]);
        assert_eq!(receptors(&["CAY", "A"], &["D", "CWAA"]).longest(), 4);
    }

    #[test]
    fn a_letter_that_is_no_amino_acid_is_refused() {
        let refused = check(&["CAB"], &["CA"]).unwrap_err();
        assert!(refused.contains("the letter `B` in the alpha chain of cell 0"), "{refused}");
        assert!(refused.contains(AMINO_ACIDS) && !refused.contains("CAB"), "{refused}");
        assert!(check(&["CA"], &["ca"]).unwrap_err().contains("`c`"), "small letters are no amino acids either");
    }

    #[test]
    fn a_sequence_longer_than_the_model_is_refused() {
        let refused = check(&["CAA"], &["CAAA"]).unwrap_err();
        assert!(refused.contains("4 amino acids in the beta chain of cell 0, expected at most 3"), "{refused}");
    }

    #[test]
    fn cells_without_a_receptor_or_without_one_of_its_chains_are_refused() {
        let refused = check(&["", "CA"], &["", "CA"]).unwrap_err();
        assert!(refused.contains("no receptor of 1 of 2 cells") && refused.contains("receptors"), "{refused}");
        assert!(check(&["", ""], &["", ""]).unwrap_err().contains("no receptor of any cell"));
        let refused = check(&["CA", "", ""], &["CA", "CA", "CA"]).unwrap_err();
        assert!(refused.contains("no alpha chain of 2 of 3 cells"), "{refused}");
        let beta = ReceptorForm { chains: vec![Chain::Beta], length: 2 };
        let codes = beta.encode("receptor", &receptors(&["", "CA"], &["CA", "A"])).unwrap();
        assert_eq!(codes, array![[2, 1], [1, 0]], "a model of beta chains does not ask for alpha");
    }
}
