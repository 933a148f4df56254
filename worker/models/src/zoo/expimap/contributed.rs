//! Terms that sites have contributed to a version, each with the condition on whose cells they were trained.
//!
//! They stand behind all others in the latent space, in the order of their conditions' keys. Any cell can be placed on them. They help to
//! decode the cells of their own condition only: whoever trained without them is described as before.

use archipelago_common::{ConditionKey, StateDict, part::Contribution, part::Member};
use tch::Tensor;

use super::{
    new_terms::{NewTerms, Wanted, Whose, of_tensors},
    weights::Outside,
};
use crate::{
    data::Covariates,
    error::{Error, Result},
    kept,
    nn::{Builder, Init, Posterior, Role, rows_of},
};

/// New terms of the site that mapped a condition.
#[derive(Debug)]
pub(super) struct Contributed {
    /// The terms.
    pub(super) terms: NewTerms,
    /// The condition.
    pub(super) condition: ConditionKey,
    /// Of the module's conditions 1 for theirs, else 0: `[n_conditions, 1]`.
    is_own: Tensor,
}

impl Contributed {
    /// The terms among a builder's kept tensors.
    ///
    /// # Errors  [`Error::Contributed`] for tensors that do not fit the reference
    pub(super) fn new(
        b: &mut Builder<'_>,
        condition: &ConditionKey,
        wanted: &Wanted,
        (n_genes, n_hidden): (usize, usize),
    ) -> Result<Self> {
        if wanted.sets.n_genes() != n_genes {
            return Err(refuse(
                condition,
                format!("terms of {} genes, and the panel has {n_genes}", wanted.sets.n_genes()),
            ));
        }
        // A soft mask leaves the weights as they were contributed.
        let whose = Whose::Condition(condition);
        let terms = NewTerms::new(b, whose, wanted, n_hidden, Outside::Soft)
            .map_err(|error| refuse(condition, error.to_string().replace(&kept::name(condition, ""), "")))?;
        let n_conditions = b.n_conditions();
        let is_own =
            b.tensor(&kept::name(condition, kept::IS_OWN), &[n_conditions], Role::Local, Init::Constant(0.0))?;
        Ok(Self { terms, condition: condition.clone(), is_own: is_own.view([n_conditions as i64, 1]) })
    }

    /// Number of terms.
    pub(super) fn n_terms(&self) -> i64 {
        self.terms.wanted().n_terms() as i64
    }

    /// 1 for cells of the terms' condition, else 0; `[n, 1]`, or one row for all.
    pub(super) fn is_own(&self, covariates: &Covariates) -> Tensor {
        rows_of(&self.is_own, covariates).view([-1, 1])
    }

    /// What `z`, `[n, n_terms]`, adds to the genes, `[n, n_genes]`.
    pub(super) fn forward(&self, z: &Tensor, covariates: &Covariates) -> Tensor {
        self.terms.forward(&(z * self.is_own(covariates)))
    }

    /// The divergence of these terms in cells of their condition, `[n]`; 0 in all others.
    pub(super) fn divergence(&self, qz: &Posterior, covariates: &Covariates) -> Tensor {
        qz.kl_standard_normal() * self.is_own(covariates).view([-1])
    }
}

/// What each condition's terms are, by kept tensors.
///
/// # Errors  [`Error::Contributed`] for tensors that are no terms
pub(super) fn wanted(kept: &StateDict) -> Result<Vec<(ConditionKey, Wanted)>> {
    let one = |(condition, tensors): (ConditionKey, StateDict)| {
        let wanted = of_tensors(&tensors).map_err(|detail| refuse(&condition, detail))?;
        let wanted = wanted.ok_or_else(|| refuse(&condition, "it holds no term".to_owned()))?;
        Ok((condition, wanted))
    };
    kept::contributed(kept).into_iter().map(one).collect()
}

/// What a site that maps contributes of the terms that it keeps: all of them, made of all cells of the condition.
pub(super) fn of_site(kept: StateDict, cells: &[usize]) -> Option<Contribution> {
    (!kept.is_empty()).then(|| Contribution {
        part: PART.parse().expect("it is a name"),
        value: Member::Tensors(kept),
        cells: [(String::new(), cells.to_vec())].into(),
    })
}

fn refuse(key: &ConditionKey, detail: String) -> Error {
    Error::Contributed { key: Box::new(key.clone()), detail }
}

/// The part.
pub(super) const PART: &str = "terms";
