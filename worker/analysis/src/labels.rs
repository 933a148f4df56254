//! A categorical column of cells: codes and the names they stand for.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::{AnalysisError, Result};

/// One name per cell, stored as codes into the sorted list of names.
///
/// The order of names is part of the meaning: ties between labels go to the first in sort order everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    codes: Vec<u32>,
    names: Vec<String>,
}

impl Labels {
    /// From one name per cell.
    pub fn from_names<S: AsRef<str>>(cells: &[S]) -> Self {
        let mut code_of: BTreeMap<&str, u32> = cells.iter().map(|name| (name.as_ref(), 0)).collect();
        for (code, slot) in (0u32..).zip(code_of.values_mut()) {
            *slot = code;
        }
        let codes = cells.iter().map(|name| code_of[name.as_ref()]).collect();
        Self { codes, names: code_of.into_keys().map(str::to_owned).collect() }
    }

    /// From codes and names in any order, as files hold them; names are sorted and the codes follow.
    /// Names that no cell carries stay.
    ///
    /// # Errors   [`AnalysisError::LabelCode`] for a code without a name
    pub fn from_codes<S: AsRef<str>>(codes: &[u32], names: &[S]) -> Result<Self> {
        if let Some(cell) = codes.iter().position(|&code| code as usize >= names.len()) {
            return Err(AnalysisError::LabelCode { code: codes[cell], cell, n_names: names.len() });
        }
        let sorted = Self::from_names(names);
        Ok(Self { codes: codes.iter().map(|&code| sorted.codes[code as usize]).collect(), names: sorted.names })
    }

    /// These cells, then those, over the union of both lists of names.
    pub fn followed_by(&self, other: &Self) -> Self {
        let names: Vec<&str> = self.iter().chain(other.iter()).collect();
        Self::from_names(&names)
    }

    /// The cells at `rows`, in that order, over the same names.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { codes: rows.iter().map(|&row| self.codes[row]).collect(), names: self.names.clone() }
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether there is no cell.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// One code per cell, an index into [`Self::names`].
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// All names, sorted and distinct.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The code of a name, if it is known.
    pub fn code(&self, name: &str) -> Option<u32> {
        self.names.binary_search_by(|known| known.as_str().cmp(name)).ok().map(|code| code as u32)
    }

    /// The name of one cell.
    pub fn name(&self, cell: usize) -> &str {
        &self.names[self.codes[cell] as usize]
    }

    /// The names of all cells, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.codes.iter().map(|&code| self.names[code as usize].as_str())
    }

    /// Cells per name.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.names.len()];
        for &code in &self.codes {
            counts[code as usize] += 1;
        }
        counts
    }

    /// Rows of the cells of each name, ascending.
    pub fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.names.len()];
        for (cell, &code) in self.codes.iter().enumerate() {
            members[code as usize].push(cell);
        }
        members
    }

    /// Names that some cell carries, each with its code and the rows of its cells, in [`reading_order`]: how legends and
    /// tables list them.
    pub fn carried(&self) -> Vec<(&str, usize, Vec<usize>)> {
        let members = self.members().into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        let mut carried: Vec<_> = members.map(|(code, rows)| (self.names[code].as_str(), code, rows)).collect();
        carried.sort_by(|(a, ..), (b, ..)| reading_order(a, b));
        carried
    }

    pub(crate) fn check_len(&self, what: &'static str, expected: usize) -> Result<()> {
        match self.len() == expected {
            true => Ok(()),
            false => Err(AnalysisError::Length { what, found: self.len(), expected }),
        }
    }
}

/// Numbers by value, then other names as text: cluster 2 comes before cluster 10.
pub fn reading_order(a: &str, b: &str) -> Ordering {
    let key = |name: &str| name.parse::<u64>().map_or((true, 0), |number| (false, number));
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_codes_follow() {
        let labels = Labels::from_codes(&[0, 2, 0, 1], &["T", "NK", "B"]).unwrap();
        assert_eq!(labels.names(), ["B", "NK", "T"]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), ["T", "B", "T", "NK"]);
        assert_eq!(labels.counts(), [1, 1, 2]);
        assert_eq!(labels.code("NK"), Some(1));
        assert_eq!(labels.code("DC"), None);
    }

    #[test]
    fn a_code_without_a_name_is_refused() {
        let error = Labels::from_codes(&[0, 3], &["B"]).unwrap_err();
        assert_eq!(error, AnalysisError::LabelCode { code: 3, cell: 1, n_names: 1 });
    }

    #[test]
    fn concatenation_unites_the_names() {
        let joint = Labels::from_names(&["b", "c"]).followed_by(&Labels::from_names(&["a", "c"]));
        assert_eq!(joint.codes(), [1, 2, 0, 2]);
    }

    #[test]
    fn numbers_are_read_by_value() {
        let labels = Labels::from_names(&["10", "B", "2", "2", "1"]);
        let names: Vec<&str> = labels.carried().into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["1", "2", "10", "B"]);
        assert_eq!(labels.carried()[1].2, [2, 3]);
        assert_eq!(labels.select(&[1]).carried().len(), 1, "names without cells are left out");
    }
}
