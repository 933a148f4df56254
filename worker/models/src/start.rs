//! Where training starts: the numbers that scvi-tools draws for the same seed.
//!
//! How well a run ends depends on its start more than on anything else that is random, so figures can be compared seed by
//! seed only if both sides start from the same weights. A model lists upstream's tensors in the order in which upstream
//! draws them, those that we do not keep included.

use archipelago_common::{Columns, StateDict};
use tch::{Tensor, no_grad};

use crate::{
    error::Result,
    nn::{TorchGenerator, Weights, from_tch, to_tch},
    upstream::Layout,
};

/// A tensor as upstream draws it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drawn {
    /// Upstream's name.
    pub name: String,
    /// Upstream's shape.
    pub shape: Vec<usize>,
    /// From which numbers.
    pub from: Distribution,
}

/// The distribution of a fresh tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Distribution {
    /// Standard normal.
    Normal,
    /// Uniform on `[-1/sqrt(fan_in), 1/sqrt(fan_in)]`.
    FanIn(usize),
    /// Uniform from 0 to 2.
    UpToTwo,
}

impl Drawn {
    /// Weight and bias of a linear map, as `torch.nn.Linear` draws them.
    pub fn linear(name: &str, n_out: usize, n_in: usize) -> [Self; 2] {
        let from = Distribution::FanIn(n_in);
        [
            Self { name: format!("{name}.weight"), shape: vec![n_out, n_in], from },
            Self { name: format!("{name}.bias"), shape: vec![n_out], from },
        ]
    }
}

/// A stack of fully connected layers as upstream draws it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrawnStack {
    /// Upstream's name.
    pub name: String,
    /// Number of linear maps.
    pub n_layers: usize,
    /// Units that enter the first.
    pub n_in: usize,
    /// Units of every layer.
    pub n_hidden: usize,
    /// Columns of covariates.
    pub n_covariates: usize,
    /// Whether layers after the first take them too.
    pub inject: bool,
}

impl DrawnStack {
    /// Its linear maps, in order.
    pub fn layers(&self) -> impl Iterator<Item = Drawn> + '_ {
        (0..self.n_layers).flat_map(|layer| {
            let n_in = if layer == 0 { self.n_in } else { self.n_hidden };
            let n_covariates = if layer == 0 || self.inject { self.n_covariates } else { 0 };
            Drawn::linear(&format!("{}.fc_layers.Layer {layer}.0", self.name), self.n_hidden, n_in + n_covariates)
        })
    }
}

/// Whether we know how upstream draws each of these tensors. Fewer normal numbers than PyTorch makes at a time are drawn in
/// another way.
pub(crate) fn is_known(order: &[Drawn]) -> bool {
    let n = |drawn: &Drawn| drawn.shape.iter().product::<usize>();
    order.iter().all(|drawn| drawn.from != Distribution::Normal || n(drawn) >= TorchGenerator::FEWEST_NORMAL)
}

/// The tensors of the list with the numbers that upstream draws for `seed`.
pub fn draw(order: &[Drawn], seed: u32) -> StateDict {
    let mut generator = TorchGenerator::new(seed);
    let tensor = |Drawn { name, shape, from }: &Drawn| {
        let n = shape.iter().product();
        let values = match from {
            Distribution::Normal => generator.normal(n),
            Distribution::FanIn(fan_in) => generator.symmetric(n, 1.0 / (*fan_in as f32).sqrt()),
            Distribution::UpToTwo => generator.symmetric(n, 1.0).iter().map(|value| value + 1.0).collect(),
        };
        (name.clone(), archipelago_common::Tensor::from_f32(shape, &values))
    };
    order.iter().map(tensor).collect()
}

/// Gives every tensor that the module keeps, and that is not `taken_over` from a pretrained model, the numbers upstream
/// would draw for `seed`.
///
/// # Errors  a list that does not fit the module's tensors
pub fn apply(order: &[Drawn], weights: &Weights, seed: u32, taken_over: Option<&StateDict>) -> Result<()> {
    let mut upstream = draw(order, seed);
    let layout = Layout::of(weights);
    // What upstream does not draw, such as batch norm, starts as it is.
    for (name, tensor) in layout.join(weights, |_, tensor| Some(tensor.detach())) {
        if upstream.get(&name).is_none() {
            upstream.insert(name, from_tch(&tensor));
        }
    }
    let (base, columns) = layout.split(&upstream)?;
    no_grad(|| {
        let is_taken = |name: &str| taken_over.is_some_and(|tensors| tensors.get(name).is_some());
        for (name, tensor) in base.iter().filter(|(name, _)| !is_taken(name)) {
            set(weights, name, &to_tch(name, tensor)?);
        }
        // What a pretrained model has of conditions is all there is of them.
        let columns = if taken_over.is_some() { &[] } else { columns.as_slice() };
        for (name, _) in columns.first().into_iter().flat_map(|columns| columns.0.iter()) {
            let row = |columns: &Columns| to_tch(name, columns.0.require("the columns", name)?);
            set(weights, name, &Tensor::stack(&columns.iter().map(row).collect::<Result<Vec<_>>>()?, 0));
        }
        Ok(())
    })
}

fn set(weights: &Weights, name: &str, values: &Tensor) {
    let (tensor, _) = weights.require(name);
    tensor.shallow_clone().copy_(values);
}
