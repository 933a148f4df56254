//! How networks hear of a cell's condition.

use tch::Tensor;

use super::config::MvtcrConfig;
use crate::{
    data::Covariates,
    error::Result,
    nn::{Builder, Init, Role},
};

/// How networks hear of a cell's condition.
#[derive(Debug)]
pub(super) enum Conditions {
    /// Not at all.
    None,
    /// By numbers that are learnt, a row for each condition.
    Embedded(Tensor),
    /// By a one-hot vector, which is a column of the first map of each network.
    OneHot,
}

impl Conditions {
    /// Tensor `cond_emb.weight.row`, for numbers that are learnt.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub(super) fn new(b: &mut Builder<'_>, config: &MvtcrConfig) -> Result<Self> {
        Ok(match (config.conditional, config.use_embedding_for_cond) {
            (false, _) => Self::None,
            (true, false) => Self::OneHot,
            (true, true) => {
                let (name, width) = ("cond_emb.weight.row", config.c_embedding_dim);
                Self::Embedded(b.condition_rows(name, &[width], Role::Condition, Init::Normal)?)
            }
        })
    }

    /// Numbers that a network takes beside its own input.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Embedded(rows) => rows.size()[1] as usize,
            Self::None | Self::OneHot => 0,
        }
    }

    /// Whether first maps have columns of conditions.
    pub(super) fn are_columns(&self) -> bool {
        matches!(self, Self::OneHot)
    }

    /// Input of cells, `[n, n_in]`, with what stands for their conditions behind it.
    pub(super) fn beside(&self, x: &[&Tensor], covariates: &Covariates) -> Tensor {
        let mut parts: Vec<Tensor> = x.iter().map(|x| x.shallow_clone()).collect();
        if let Self::Embedded(rows) = self {
            parts.push(rows.index_select(0, &covariates.condition));
        }
        Tensor::cat(&parts, 1)
    }
}
