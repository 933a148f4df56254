//! What stands for a cell's covariates: a row for each category, and a curve of the continuous one.

use archipelago_common::Section;
use tch::Tensor;

use super::config::{Curve, MultigrateConfig};
use crate::{
    data::{CONTINUOUS, Covariates, Minibatch, Registry, Slot, slot::Numbers},
    error::{Error, Result},
    fast::{Embedded, Unsupported},
    nn::{Builder, CovariateSizes, Init, Levels, Linear, Pass, Role, Stack},
};

/// The tables of categories and the curve.
#[derive(Debug)]
pub(super) struct Embeddings {
    tables: Tables,
    continuous: Option<Continuous>,
}

#[derive(Debug)]
enum Tables {
    OfConditions(Tensor),
    OfKeys(Vec<Levels>),
}

/// The continuous covariate.
#[derive(Debug)]
struct Continuous {
    slot: Slot<Numbers>,
    curve: BuiltCurve,
    /// `[1, cond_dim]`.
    weight: Tensor,
}

#[derive(Debug)]
enum BuiltCurve {
    Identity,
    Sigmoid { of_log: bool, slope: Tensor, shift: Tensor },
    Network { hidden: Option<Stack>, out: Linear },
}

impl Embeddings {
    /// Tensors `cat_covariate_embeddings.{k}.weight.row`, `cont_covariate_embeddings.weight` and `cont_covariate_curves.…`.
    ///
    /// # Errors  more than one continuous covariate, stored tensors that do not fit
    pub(super) fn new(b: &mut Builder<'_>, config: &MultigrateConfig, registry: &Registry) -> Result<Self> {
        let (keys, dim) = (&config.condition_keys, config.cond_dim);
        let tables = if keys.is_empty() {
            Tables::OfConditions(b.rows_on(
                &Section::Condition,
                &table_name(0),
                &[dim],
                Role::Condition,
                Init::Normal,
            )?)
        } else {
            let table = |(k, key)| b.levels(key, &table_name(k), &[dim], Role::Condition, Init::Normal);
            Tables::OfKeys(keys.iter().enumerate().map(table).collect::<Result<_>>()?)
        };
        let continuous = match registry.find::<Numbers>(CONTINUOUS)? {
            Some(slot) => Some(Continuous::new(b, config, slot)?),
            None => None,
        };
        Ok(Self { tables, continuous })
    }

    /// Numbers that stand for a cell's covariates.
    pub(super) fn width(&self, cond_dim: usize) -> usize {
        let n_tables = match &self.tables {
            Tables::OfConditions(_) => 1,
            Tables::OfKeys(tables) => tables.len(),
        };
        cond_dim * (n_tables + usize::from(self.continuous.is_some()))
    }

    /// What the kernels are told.
    ///
    /// # Errors  several keys, a continuous covariate
    pub(super) fn spec(&self) -> std::result::Result<Embedded, Unsupported> {
        match (&self.tables, &self.continuous) {
            (Tables::OfConditions(_), None) => Ok(Embedded { rows: table_name(0), max_norm: f64::INFINITY }),
            (Tables::OfKeys(_), None) => Err(Unsupported("there are several condition keys")),
            (_, Some(_)) => Err(Unsupported("there is a continuous covariate")),
        }
    }

    /// What stands for the covariates of cells, `[n, width]`. `covariates` may name other categories than the cells' own.
    pub(super) fn of_cells(&self, minibatch: &Minibatch, covariates: &Covariates, pass: &mut Pass<'_>) -> Tensor {
        let mut parts = match &self.tables {
            Tables::OfConditions(rows) => vec![rows.index_select(0, &covariates.condition)],
            Tables::OfKeys(tables) => {
                tables.iter().zip(&covariates.axes).map(|(table, codes)| table.of_cells(codes)).collect()
            }
        };
        if let Some(continuous) = &self.continuous {
            parts.push(continuous.of_cells(minibatch, pass));
        }
        Tensor::cat(&parts, 1)
    }
}

/// Our name of a table.
fn table_name(k: usize) -> String {
    format!("cat_covariate_embeddings.{k}.weight.row")
}

impl Continuous {
    fn new(b: &mut Builder<'_>, config: &MultigrateConfig, slot: Slot<Numbers>) -> Result<Self> {
        if slot.width() != 1 {
            // Upstream counts a vector for each and adds them up to one: its own shapes do not fit then.
            let (found, expected) = (slot.width().to_string(), "one column of numbers".to_owned());
            return Err(Error::Value { part: CONTINUOUS.to_owned(), found: format!("{found} columns"), expected });
        }
        let curve = match config.cont_cov_type {
            Curve::None => BuiltCurve::Identity,
            Curve::Sigm | Curve::Logsigm => {
                let of_log = config.cont_cov_type == Curve::Logsigm;
                let mut number = |name: &str, start: f64| {
                    let name = format!("cont_covariate_curves.{name}");
                    b.tensor(&name, &[1, 1], Role::Parameter, Init::Constant(start))
                };
                BuiltCurve::Sigmoid { of_log, slope: number("beta", 1.0)?, shift: number("bias", 0.0)? }
            }
            Curve::Mlp => {
                let (n_layers, n_hidden) = (config.n_layers_cont_embed, config.n_hidden_cont_embed);
                let name = "cont_covariate_curves.0";
                let none = CovariateSizes::none();
                if n_layers == 1 {
                    BuiltCurve::Network { hidden: None, out: Linear::new(b, name, 1, 1, &none)? }
                } else {
                    let layers = config.stack((n_layers - 1, n_hidden), n_hidden);
                    let hidden = Some(Stack::new(b, &format!("{name}.0.mlp"), 1, &layers)?);
                    BuiltCurve::Network { hidden, out: Linear::new(b, &format!("{name}.1"), n_hidden, 1, &none)? }
                }
            }
        };
        let name = "cont_covariate_embeddings.weight";
        let weight = b.tensor(name, &[1, config.cond_dim], Role::Parameter, Init::Normal)?;
        Ok(Self { slot, curve, weight })
    }

    fn of_cells(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        let values = minibatch.get(self.slot);
        let none = Covariates::none(values);
        let curved = match &self.curve {
            BuiltCurve::Identity => values.shallow_clone(),
            BuiltCurve::Sigmoid { of_log, slope, shift } => {
                let values = if *of_log { values.log1p() } else { values.shallow_clone() };
                (values * slope + shift).sigmoid()
            }
            BuiltCurve::Network { hidden: None, out } => out.forward(values, &none).sigmoid(),
            BuiltCurve::Network { hidden: Some(hidden), out } => {
                out.forward(&hidden.forward(values, &none, pass), &none).sigmoid()
            }
        };
        curved.matmul(&self.weight)
    }
}
