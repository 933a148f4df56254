//! Surface proteins of generated cells: counts of antibodies, with background and with foreground on the types that carry the protein.

use archipelago_anndata::{AnnData, DataFrame, Element};
use rand::Rng as _;
use rand_distr::StandardNormal;

use super::{GenerateSpec, draw_count};
use crate::error::Result;

/// Counts of so many proteins of the cells that [`generate`](super::generate) drew, in `obsm['protein_expression']`. Nothing else of
/// them changes.
///
/// # Errors  [`Error::Anndata`](crate::Error::Anndata) for cells that something else made
pub fn add_proteins(spec: &GenerateSpec, n_proteins: usize, adata: &mut AnnData) -> Result<()> {
    let types = adata.obs.column("cell_type")?.to_categorical();
    let mut rng = spec.stream("proteins");
    let carried: Vec<Vec<bool>> = (0..n_proteins)
        .map(|_| (0..types.categories().len()).map(|_| rng.random_bool(CARRIER_SHARE)).collect())
        .collect();
    let mut columns = vec![Vec::with_capacity(adata.n_obs()); n_proteins];
    for (batch, codes) in spec.batches.iter().zip(types.codes().chunks(spec.n_cells)) {
        let mut rng = spec.stream(&format!("proteins {batch}"));
        let stain = (spec.batch_effect * rng.sample::<f64, _>(StandardNormal)).exp();
        for code in codes {
            for (carried, column) in carried.iter().zip(&mut columns) {
                let mean = if carried[*code as usize] { FOREGROUND } else { BACKGROUND };
                column.push(draw_count(stain * mean, DISPERSION, 0.0, &mut rng));
            }
        }
    }
    let mut frame = DataFrame::new(adata.obs_names().to_vec());
    for (protein, column) in columns.into_iter().enumerate() {
        frame.insert(format!("ADT{:03}", protein + 1), column)?;
    }
    adata.obsm.insert("protein_expression".to_owned(), Element::Frame(frame));
    Ok(())
}

/// Share of the types that carry a protein.
const CARRIER_SHARE: f64 = 0.35;
/// Expected counts on cells that carry a protein.
const FOREGROUND: f64 = 60.0;
/// Expected counts on those that do not.
const BACKGROUND: f64 = 4.0;
/// Inverse dispersion of both.
const DISPERSION: f64 = 6.0;
