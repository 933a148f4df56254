//! Linear maps with their covariate columns in separate tensors.

use std::sync::OnceLock;

use tch::Tensor;

use super::{Builder, Init, Role};
use crate::{
    data::Covariates,
    error::Result,
    fast::{ColumnsSpec, FrozenProduct, Unsupported},
};

/// Which covariates a linear map takes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CovariateSizes {
    /// Whether there is a column per condition.
    pub conditions: bool,
    /// Number of categories of each further covariate; one of a single category has no column.
    pub categorical: Vec<usize>,
}

impl CovariateSizes {
    /// No covariates.
    pub fn none() -> Self {
        Self::default()
    }

    /// Columns that the covariates take in upstream's layout.
    pub fn n_columns(&self, n_conditions: usize) -> usize {
        usize::from(self.conditions) * n_conditions + self.categorical.iter().filter(|&&n| n > 1).sum::<usize>()
    }
}

/// `y = x Wᵀ + b + column(condition) + Σ column(category)`: the product with one-hot vectors is a row look-up.
///
/// Upstream keeps `[W | conditions | categories…]` in one matrix; `formats` joins and splits.
#[derive(Debug)]
pub struct Linear {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
    /// One row per condition, `[n_conditions, n_out]`.
    condition: Option<Tensor>,
    /// One row per category, with the covariate's position, `[n_categories, n_out]`.
    categorical: Vec<(usize, Tensor)>,
    /// The weight for kernels, of so many inputs, from when it was first asked for.
    frozen: OnceLock<Option<FrozenProduct>>,
}

impl Linear {
    /// A map from `n_in` to `n_out` units plus covariates; tensors `{name}.weight`, `.bias`, `.condition`, `.covariate{k}`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn new(
        builder: &mut Builder<'_>,
        name: &str,
        n_in: usize,
        n_out: usize,
        sizes: &CovariateSizes,
    ) -> Result<Self> {
        let init = Init::FanIn(n_in + sizes.n_columns(builder.n_conditions()));
        let weight = builder.tensor(&format!("{name}.weight"), &[n_out, n_in], Role::Parameter, init)?;
        let bias = Some(builder.tensor(&format!("{name}.bias"), &[n_out], Role::Parameter, init)?);
        let condition = if sizes.conditions {
            Some(builder.condition_rows(&format!("{name}.condition"), &[n_out], Role::Condition, init)?)
        } else {
            None
        };
        let mut categorical = Vec::new();
        for (position, &n) in sizes.categorical.iter().enumerate().filter(|(_, n)| **n > 1) {
            let name = format!("{name}.covariate{position}");
            categorical.push((position, builder.tensor(&name, &[n, n_out], Role::Parameter, init)?));
        }
        Ok(Self { name: name.to_owned(), weight, bias, condition, categorical, frozen: OnceLock::new() })
    }

    /// A map from `n_in` to `n_out` units that adds nothing: no bias, no covariates; one tensor, `{name}.weight`.
    ///
    /// # Errors  the stored tensor is missing or looks otherwise
    pub fn without_bias(builder: &mut Builder<'_>, name: &str, n_in: usize, n_out: usize) -> Result<Self> {
        let weight = builder.tensor(&format!("{name}.weight"), &[n_out, n_in], Role::Parameter, Init::FanIn(n_in))?;
        let (bias, condition, categorical) = (None, None, Vec::new());
        Ok(Self { name: name.to_owned(), weight, bias, condition, categorical, frozen: OnceLock::new() })
    }

    /// A map from `n_in` to `n_out` units that adds a row for each condition and nothing else; tensors `{name}.weight` and `.condition`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn of_conditions(builder: &mut Builder<'_>, name: &str, n_in: usize, n_out: usize) -> Result<Self> {
        let init = Init::FanIn(n_in + builder.n_conditions());
        let weight = builder.tensor(&format!("{name}.weight"), &[n_out, n_in], Role::Parameter, init)?;
        let condition = Some(builder.condition_rows(&format!("{name}.condition"), &[n_out], Role::Condition, init)?);
        let (bias, categorical) = (None, Vec::new());
        Ok(Self { name: name.to_owned(), weight, bias, condition, categorical, frozen: OnceLock::new() })
    }

    /// Its tensors' name, and how many units go in and come out.
    pub(crate) fn spec(&self) -> (String, usize, usize) {
        let size = self.weight.size();
        (self.name.clone(), size[1] as usize, size[0] as usize)
    }

    /// Its columns.
    ///
    /// # Errors  it takes several covariates, which the kernels do not know
    pub(crate) fn columns_spec(&self) -> Result<Option<ColumnsSpec>, Unsupported> {
        match (&self.condition, self.categorical.as_slice()) {
            (None, []) => Ok(None),
            (Some(_), []) => Ok(Some(ColumnsSpec::Conditions(format!("{}.condition", self.name)))),
            (None, [(position, _)]) => Ok(Some(ColumnsSpec::Covariate(format!("{}.covariate{position}", self.name)))),
            _ => Err(Unsupported("a layer takes several covariates")),
        }
    }

    /// Applies the map to `x` with what stands beside it, `[n, n_in]` together: of `x` the values that are not 0 alone, where the weight
    /// does not train. For a map that takes no covariates.
    pub(crate) fn forward_beside(&self, x: &Tensor, beside: Option<&Tensor>) -> Tensor {
        let n_in = x.size()[1];
        // A weight that does not train never changes: it is arranged once.
        let frozen = match self.weight.requires_grad() {
            true => None,
            false => self.frozen.get_or_init(|| FrozenProduct::new(&self.weight, n_in as usize)).as_ref(),
        };
        let product = frozen.and_then(|frozen| frozen.of(x));
        match (product, beside) {
            (Some(product), Some(beside)) => {
                let rest = self.weight.narrow(1, n_in, self.weight.size()[1] - n_in);
                product + beside.linear(&rest, self.bias.as_ref())
            }
            (Some(product), None) => self.bias.as_ref().map_or(product.shallow_clone(), |bias| &product + bias),
            (None, Some(beside)) => Tensor::cat(&[x, beside], 1).linear(&self.weight, self.bias.as_ref()),
            (None, None) => x.linear(&self.weight, self.bias.as_ref()),
        }
    }

    /// Applies the map; `x` is `[n, n_in]` or `[n_samples, n, n_in]`.
    pub fn forward(&self, x: &Tensor, covariates: &Covariates) -> Tensor {
        let y = match (&self.condition, &self.bias) {
            // One condition: its column is part of the bias, and every cell has the same.
            (Some(rows), Some(bias)) if rows.size()[0] == 1 => {
                x.linear(&self.weight, Some(&(bias + rows.squeeze_dim(0))))
            }
            (Some(rows), bias) => x.linear(&self.weight, bias.as_ref()) + rows_of(rows, covariates),
            (None, bias) => x.linear(&self.weight, bias.as_ref()),
        };
        let add = |y: Tensor, (position, rows): &(usize, Tensor)| {
            y + rows.index_select(0, &covariates.categorical[*position])
        };
        self.categorical.iter().fold(y, add)
    }
}

/// The row of each cell's condition, `[n, …]`, from one row per condition; the row itself, `[…]`, where there is but one condition.
pub fn rows_of(rows: &Tensor, covariates: &Covariates) -> Tensor {
    if rows.size()[0] == 1 { rows.squeeze_dim(0) } else { rows.index_select(0, &covariates.condition) }
}
