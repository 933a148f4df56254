//! By which network cells were placed: positions in the latent spaces of two networks cannot be compared, however wide.

use std::path::Path;

use archipelago_anndata::{AnnData, Array, Element};
use archipelago_common::hash::Digest;
use serde::{Deserialize, Serialize};

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

/// The network that placed the cells of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Digest of the reference's base.
    digest: String,
    /// Whether surgery moved it, as upstream's does.
    is_approximate: bool,
}

impl Network {
    /// The network of a reference's base.
    pub fn of_base(base: &Digest) -> Self {
        Self { digest: base.to_string(), is_approximate: false }
    }

    /// What a file says of it.
    pub fn of(adata: &AnnData) -> Option<Self> {
        let is_approximate = text(adata, RULES_KEY) == Some(Rules::Upstream.label());
        text(adata, UNS_KEY).map(|digest| Self { digest: digest.to_owned(), is_approximate })
    }
}

/// Refuses to compare positions of cells that two networks placed. By upstream's surgery a query's network moves away from
/// the reference's, as users of scvi-tools know; that is said and goes on. Files that tell no network are taken as they are.
///
/// # Errors  [`Error::OtherNetwork`]
pub fn check(rep: &str, reference: &AnnData, query: (&Path, &AnnData), output: &Output) -> Result<()> {
    let (path, query) = query;
    check_known(rep, Network::of(reference).as_ref(), (path, query), output)
}

/// The same where the reference's cells are not at hand.
///
/// # Errors  [`Error::OtherNetwork`]
pub fn check_known(rep: &str, known: Option<&Network>, query: (&Path, &AnnData), output: &Output) -> Result<()> {
    let (path, query) = query;
    let (Some(known), Some(found)) = (known, Network::of(query)) else { return Ok(()) };
    if rep != OBSM_KEY || found.digest == known.digest {
        return Ok(());
    }
    if known.is_approximate || found.is_approximate {
        output.note("note: upstream's surgery moved the query's network: distances to reference cells are approximate");
        return Ok(());
    }
    let short = |digest: &str| digest.chars().take(12).collect();
    Err(Error::OtherNetwork { path: path.into(), found: short(&found.digest), expected: short(&known.digest) })
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
