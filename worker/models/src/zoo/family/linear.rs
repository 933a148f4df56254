//! Linear maps with a part of their own for conditions.

use tch::Tensor;

use crate::{
    data::Covariates,
    error::Result,
    fast::ColumnsSpec,
    nn::{Builder, CovariateSizes, Init, Linear, Role, rows_of},
};

/// How a layer hears of a cell's condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hears {
    /// Not at all.
    Nothing,
    /// It has a column per condition: the product with a one-hot vector is a look-up.
    Columns,
    /// It maps a vector of so many numbers that stands for the condition.
    Vector(usize),
}

/// The conditions of some cells, as layers hear of them.
#[derive(Clone, Copy, Debug)]
pub enum Condition<'a> {
    /// Codes, for layers with columns.
    Codes(&'a Covariates),
    /// A vector per cell, `[n, n_numbers]`, for layers that map it.
    Vectors(&'a Tensor),
}

/// `y = expr_L(x) + cond_L(condition)`, the norm comes later.
#[derive(Debug)]
pub struct ConditionalLinear {
    expression: Linear,
    condition: Option<Part>,
}

/// What a layer keeps for conditions.
#[derive(Debug)]
enum Part {
    /// Name, and `[n_conditions, n_out]`.
    Columns(String, Tensor),
    Vector(Linear),
}

/// Whether a map adds a number to each unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bias {
    /// It does.
    Added,
    /// It does not.
    None,
}

impl ConditionalLinear {
    /// A map of `n_in` to `n_out` units; tensors `{name}.expr_L.weight`, `.expr_L.bias` and `{name}.cond_L.weight`.
    ///
    /// Columns start in a range that the number of all conditions sets, earlier ones included: upstream draws them all at once.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn new(
        b: &mut Builder<'_>,
        name: &str,
        (n_in, n_out): (usize, usize),
        bias: Bias,
        hears: Hears,
    ) -> Result<Self> {
        let expression = plain(b, &format!("{name}.expr_L"), (n_in, n_out), bias)?;
        let condition = format!("{name}.cond_L");
        let condition = match hears {
            Hears::Nothing => None,
            Hears::Columns => {
                let name = format!("{condition}.weight.condition");
                let init = Init::FanIn(b.n_all_conditions());
                let rows = b.condition_rows(&name, &[n_out], Role::Condition, init)?;
                Some(Part::Columns(name, rows))
            }
            Hears::Vector(n) => Some(Part::Vector(Linear::without_bias(b, &condition, n, n_out)?)),
        };
        Ok(Self { expression, condition })
    }

    /// Applies the map; `x` is `[n, n_in]`.
    ///
    /// # Panics  codes for a layer that maps vectors, or the other way round: our own defect
    pub fn forward(&self, x: &Tensor, condition: Condition<'_>) -> Tensor {
        let none = Covariates::none(x);
        let y = self.expression.forward(x, &none);
        match (&self.condition, condition) {
            (None, _) => y,
            (Some(Part::Columns(_, rows)), Condition::Codes(covariates)) => y + rows_of(rows, covariates),
            (Some(Part::Vector(map)), Condition::Vectors(vectors)) => y + map.forward(vectors, &none),
            (Some(_), _) => panic!("a layer is told of conditions in the way it was built for"),
        }
    }

    /// The map of expression and the columns, as the kernels are told. Where the vectors of conditions come from, a model adds.
    pub(super) fn spec(&self) -> (&Linear, Option<ColumnsSpec>) {
        let columns = self.condition.as_ref().map(|condition| match condition {
            Part::Columns(name, _) => ColumnsSpec::Conditions(name.clone()),
            Part::Vector(map) => ColumnsSpec::Vectors { map: map.spec().0, rows: None },
        });
        (&self.expression, columns)
    }
}

/// A map without a part for conditions; tensors `{name}.weight` and `.bias`.
///
/// # Errors  a stored tensor is missing or looks otherwise
pub(super) fn plain(b: &mut Builder<'_>, name: &str, (n_in, n_out): (usize, usize), bias: Bias) -> Result<Linear> {
    match bias {
        Bias::Added => Linear::new(b, name, n_in, n_out, &CovariateSizes::none()),
        Bias::None => Linear::without_bias(b, name, n_in, n_out),
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::nn::{ConditionSource, Source, Trainable};

    fn builder<'a>(n_conditions: usize) -> Builder<'a> {
        let fresh = ConditionSource::Fresh(n_conditions);
        Builder::new(Source::Fresh, fresh, Trainable::Nothing, [1; 32], Device::Cpu)
    }

    fn largest(tensor: &Tensor) -> f64 {
        tensor.abs().max().double_value(&[])
    }

    #[test]
    fn a_one_hot_vector_selects_what_a_code_selects() {
        let mut b = builder(3);
        let columns = ConditionalLinear::new(&mut b, "c", (4, 5), Bias::Added, Hears::Columns).unwrap();
        let vectors = ConditionalLinear::new(&mut b, "v", (4, 5), Bias::Added, Hears::Vector(3)).unwrap();
        let weights = b.finish();
        let copy = |from: &Tensor, to: &str| weights.get(to).unwrap().shallow_clone().copy_(from);
        copy(weights.get("c.expr_L.weight").unwrap(), "v.expr_L.weight");
        copy(weights.get("c.expr_L.bias").unwrap(), "v.expr_L.bias");
        copy(&weights.get("c.cond_L.weight.condition").unwrap().tr(), "v.cond_L.weight");
        let condition = Tensor::from_slice(&[2_i64, 0, 1, 2]);
        let one_hot = condition.one_hot(3).to_kind(Kind::Float);
        let covariates = Covariates { condition, axes: vec![], categorical: vec![] };
        let x = Tensor::arange(16, (Kind::Float, Device::Cpu)).view([4, 4]);
        let difference =
            columns.forward(&x, Condition::Codes(&covariates)) - vectors.forward(&x, Condition::Vectors(&one_hot));
        assert!(largest(&difference) < 1e-5);
    }

    #[test]
    fn new_columns_start_in_the_range_of_all_conditions() {
        for (n_built, n_known, bound) in [(1, 15, 0.25), (16, 12, 0.25), (1, 0, 1.0)] {
            let mut b = builder(n_built).after(n_known);
            ConditionalLinear::new(&mut b, "c", (2, 400), Bias::None, Hears::Columns).unwrap();
            let found = largest(b.finish().get("c.cond_L.weight.condition").unwrap());
            assert!(found <= bound && found > 0.95 * bound, "{n_built} after {n_known}: {found}");
        }
    }
}
