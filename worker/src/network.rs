//! By which network cells were placed: positions in the latent spaces of two networks cannot be compared, however wide.

use std::path::Path;

use archipelago_anndata::{AnnData, Array, Element};
use archipelago_common::hash::Digest;

use crate::{
    error::{Error, Result},
    mapping::{OBSM_KEY, Rules, UNS_KEY as RULES_KEY},
    output::Output,
};

/// The entry of `uns` with the digest of the reference's base.
pub const UNS_KEY: &str = "archipelago_network";

/// Writes down the base by which cells were placed.
pub fn remember(adata: &mut AnnData, base: &Digest) {
    adata.uns.insert(UNS_KEY.to_owned(), Element::Array(Array::text(base.to_string())));
}

/// Refuses to compare positions of cells that two networks placed. By upstream's surgery a query's network moves away from
/// the reference's, as users of scvi-tools know; that is said and goes on. Files that tell no network are taken as they are.
///
/// # Errors  [`Error::OtherNetwork`]
pub fn check(rep: &str, reference: &AnnData, query: (&Path, &AnnData), output: &Output) -> Result<()> {
    let (path, query) = query;
    let (Some(expected), Some(found)) = (text(reference, UNS_KEY), text(query, UNS_KEY)) else { return Ok(()) };
    if rep != OBSM_KEY || found == expected {
        return Ok(());
    }
    let is_approximate = |adata| text(adata, RULES_KEY) == Some(Rules::Upstream.label());
    if is_approximate(reference) || is_approximate(query) {
        output.note("note: upstream's surgery moved the query's network: distances to reference cells are approximate");
        return Ok(());
    }
    let short = |digest: &str| digest.chars().take(12).collect();
    Err(Error::OtherNetwork { path: path.into(), found: short(found), expected: short(expected) })
}

fn text<'a>(adata: &'a AnnData, key: &str) -> Option<&'a str> {
    match adata.uns.get(key) {
        Some(Element::Array(array)) => array.as_text(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_two_networks_are_not_compared() {
        let output = Output::silent();
        let placed_by = |bytes: &[u8]| {
            let mut adata = AnnData::default();
            remember(&mut adata, &Digest::of(bytes));
            adata
        };
        let (a, b, mut moved, unknown) = (placed_by(b"a"), placed_by(b"b"), placed_by(b"b"), AnnData::default());
        moved.uns.insert(RULES_KEY.to_owned(), Element::Array(Array::text(Rules::Upstream.label())));
        let check = |rep: &str, query: &AnnData| super::check(rep, &a, (Path::new("q.h5ad"), query), &output);
        assert!(matches!(check(OBSM_KEY, &b), Err(Error::OtherNetwork { .. })));
        for query in [&a, &moved, &unknown] {
            check(OBSM_KEY, query).unwrap();
        }
        check("X_pca", &b).unwrap();
    }
}
