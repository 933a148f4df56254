//! Features that are asked for by name.

use crate::{
    error::{Error, Result},
    lists,
};

/// Positions of the genes or features asked for, all where none is.
pub(super) fn positions(names: &[String], asked: &[String]) -> Result<Vec<usize>> {
    if asked.is_empty() {
        return Ok((0..names.len()).collect());
    }
    let position = |name: &String| {
        let unknown = || Error::UnknownFeature { name: name.clone(), n_known: names.len() };
        names.iter().position(|known| known == name).ok_or_else(unknown)
    };
    lists::among(asked, |name| names.iter().find(|known| *known == name).cloned()).iter().map(position).collect()
}
