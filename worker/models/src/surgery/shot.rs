//! Surgery without training: shot surgery (De Donno et al. 2023): a new condition takes what that of the reference's
//! conditions owns as which its cells are reconstructed best. Any model can be asked that decodes its cells.

use std::collections::BTreeMap;

use archipelago_common::{ConditionKey, Section, layout::Growth};
use serde::Serialize;

use crate::{
    data::{CellConditions, Cells},
    device::Compute,
    error::{Error, Result},
    reference::Reference,
};

/// How like the conditions of a reference some cells are.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Likeness {
    /// The condition that they are most like.
    pub nearest: ConditionKey,
    /// Mean reconstruction loss of the cells as cells of each condition, with the same noise.
    pub losses: BTreeMap<ConditionKey, f64>,
}

/// The condition of a reference, of one key per cell, that these cells are most like.
///
/// # Errors  [`Error::NoLikeness`], [`Error::NoSurgery`] for a reference whose conditions own nothing, data that do not fit
pub fn likeness(reference: &Reference, cells: &Cells<'_>, seed: u64, compute: impl Into<Compute>) -> Result<Likeness> {
    let (layout, compute) = (&reference.base.card.layout, compute.into());
    if let Growth::NoSurgery { reason } = &layout.growth {
        return Err(Error::NoSurgery { reason: reason.clone() });
    }
    if layout.axes.len() > 1 {
        return Err(Error::NoLikeness { detail: "a condition of the reference is made of several keys" });
    }
    let loss = |key: &ConditionKey| {
        let as_one = CellConditions::single(key.clone(), cells.n_cells());
        Ok((key.clone(), reference.evaluate(cells, &as_one, seed, compute)?.reconstruction()))
    };
    let keys = reference.columns.keys().filter(|key| *key.section() == Section::Condition);
    let losses: BTreeMap<ConditionKey, f64> = keys.map(loss).collect::<Result<_>>()?;
    let judged = losses.iter().filter(|(_, loss)| loss.is_finite());
    match judged.min_by(|a, b| a.1.total_cmp(b.1)) {
        Some((nearest, _)) => Ok(Likeness { nearest: nearest.clone(), losses }),
        None if losses.is_empty() => Err(Error::NoLikeness { detail: "the reference has no condition" }),
        None => Err(Error::NoLikeness { detail: "as cells of no condition do these have a finite loss" }),
    }
}
