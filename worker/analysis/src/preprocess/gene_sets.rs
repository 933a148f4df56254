//! Gene sets from GMT files as a mask of genes and terms.
//!
//! The reading is upstream's: fields are split at any white space, so a description in the second column, and the words of
//! a term's name after the first, count as genes of the set; a gene that is called like them would be annotated.

use std::collections::BTreeSet;

/// Which sets are kept, and how names are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetOptions {
    /// A set is kept if more of its genes than this are present.
    pub min_genes: usize,
    /// A set is kept if fewer of its genes than this are present.
    pub max_genes: Option<usize>,
    /// Drop the collection's prefix of a term's name (everything up to the first `_`) and cut it to 30 letters.
    pub clean: bool,
    /// Compare genes in upper case.
    pub upper: bool,
}

impl Default for SetOptions {
    fn default() -> Self {
        Self { min_genes: 0, max_genes: None, clean: true, upper: true }
    }
}

impl SetOptions {
    /// Whether a set with so many genes present is kept.
    pub fn keeps(&self, n_present: usize) -> bool {
        n_present > self.min_genes && self.max_genes.is_none_or(|most| n_present < most)
    }
}

/// Which genes belong to which terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotations {
    /// Names of the terms that are kept, in order of the files; repeated names are kept.
    pub terms: Vec<String>,
    /// Per term, whether each gene belongs to it: `[n_terms][n_genes]`.
    pub members: Vec<Vec<bool>>,
}

/// Reads the texts of GMT files against a list of genes.
///
/// # Source   `add_annotations` of scArches 0.6.1 (`utils/annotations.py`)
pub fn gene_sets<S: AsRef<str>>(files: &[&str], genes: &[S], options: SetOptions) -> Annotations {
    let cased = |text: &str| if options.upper { text.to_uppercase() } else { text.to_owned() };
    let genes: Vec<String> = genes.iter().map(|gene| cased(gene.as_ref())).collect();
    let mut annotations = Annotations { terms: Vec::new(), members: Vec::new() };
    for line in files.iter().flat_map(|file| file.lines()) {
        let line = cased(line);
        let mut tokens = line.split_whitespace();
        let Some(name) = tokens.next() else { continue };
        let term = if options.clean { cleaned(name) } else { name.to_owned() };
        let mut set: BTreeSet<&str> = tokens.collect();
        set.insert(&term);
        let members: Vec<bool> = genes.iter().map(|gene| set.contains(gene.as_str())).collect();
        let n_present = members.iter().filter(|&&is_member| is_member).count();
        if options.keeps(n_present) {
            annotations.terms.push(term);
            annotations.members.push(members);
        }
    }
    annotations
}

/// Without the collection's prefix, and cut to the length at which upstream cuts.
fn cleaned(name: &str) -> String {
    let rest = name.split_once('_').map_or(name, |(_, rest)| rest);
    rest.chars().take(LONGEST_TERM).collect()
}

const LONGEST_TERM: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_no_sets_and_bounds_are_strict() {
        let file = "A_ONE\tna\tx\n\nB_TWO\tna\tx\ty\r\n";
        let check = |min_genes, max_genes| {
            gene_sets(&[file], &["X", "y"], SetOptions { min_genes, max_genes, ..SetOptions::default() }).terms
        };
        assert_eq!(check(0, None), ["ONE", "TWO"]);
        assert_eq!(check(1, None), ["TWO"]);
        assert_eq!(check(0, Some(2)), ["ONE"]);
    }
}
