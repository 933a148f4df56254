//! Log inverse dispersions and what selects them.

use tch::Tensor;

use super::{Builder, Init, Role, rows_of};
use crate::{
    data::{Covariates, LABELS, Minibatch, Registry, Slot, slot::Labels},
    error::Result,
};

/// What a dispersion depends on, beside the feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DispersionBy {
    /// Nothing else.
    Feature,
    /// The condition, which owns a column of it.
    Condition,
    /// The label.
    Label,
}

/// The log inverse dispersion of genes, or of other features.
#[derive(Debug)]
pub enum LogDispersion {
    /// `[n_features]`
    Feature(Tensor),
    /// `[n_conditions, n_features]`
    Condition(Tensor),
    /// `[n_features, n_labels]`, as upstream lays it out.
    Label(Tensor, Slot<Labels>),
}

impl LogDispersion {
    /// The dispersion of `n` features; a tensor `{name}`, or `{name}.condition`.
    ///
    /// # Errors  [`Error::MissingField`](crate::Error::MissingField) without labels, a stored tensor that is missing or looks otherwise
    pub fn new(
        b: &mut Builder<'_>,
        name: &str,
        n: usize,
        by: DispersionBy,
        registry: &Registry,
        init: Init,
    ) -> Result<Self> {
        Ok(match by {
            DispersionBy::Feature => Self::Feature(b.tensor(name, &[n], Role::Parameter, init)?),
            DispersionBy::Condition => {
                Self::Condition(b.condition_rows(&format!("{name}.condition"), &[n], Role::Condition, init)?)
            }
            DispersionBy::Label => {
                let labels = registry.slot::<Labels>(LABELS)?;
                Self::Label(b.tensor(name, &[n, labels.width()], Role::Parameter, init)?, labels)
            }
        })
    }

    /// That of each cell, `[n, n_features]`, or `[n_features]` where all cells have one.
    pub fn select(&self, minibatch: &Minibatch, covariates: &Covariates) -> Tensor {
        match self {
            Self::Feature(log_r) => log_r.shallow_clone(),
            Self::Condition(rows) => rows_of(rows, covariates),
            Self::Label(columns, labels) => columns.index_select(1, minibatch.get(*labels)).tr(),
        }
    }
}
