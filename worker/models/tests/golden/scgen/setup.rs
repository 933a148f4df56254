//! Modules, cells and draws as a case describes them.

use archipelago_common::StateDict;
use archipelago_models::{
    data::{Categorical, Registry},
    nn::{Builder, ConditionSource, Noise, Source, Trainable, from_tch, to_tch},
    zoo::scgen::{ScgenConfig, ScgenModule},
};
use ndarray::Array2;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::case::Case;

/// Options of a case. Those without dropout were made with a rate of 0, where they do not say.
pub(super) fn config(case: &Case) -> ScgenConfig {
    let stated = |name: &str| case.json["constructor"].get(name).or_else(|| case.json.get(name)).cloned();
    let names = ["hidden_layer_sizes", "z_dimension"];
    let given = names.iter().map(|name| ((*name).to_owned(), stated(name).unwrap()));
    let dropout = stated("dr_rate").unwrap_or(json!(0.0));
    ScgenConfig::parse(&given.chain([("dr_rate".to_owned(), dropout)]).collect()).unwrap()
}

/// The module of a case's tensors.
pub(super) fn module(case: &Case, trainable: Trainable) -> ScgenModule {
    let stored: StateDict = case.group("param.");
    let n_genes = stored.require("case", "encoder.FC.L0.weight").unwrap().shape()[1];
    let none = ConditionSource::Fresh(0);
    let builder = Builder::new(Source::Stored(&stored), none, trainable, [0; 32], Device::Cpu);
    ScgenModule::new(config(case), &Registry::default(), n_genes, builder).unwrap()
}

/// Draws in the order in which a case made them; no unit is dropped.
pub(super) struct Draws(pub(super) std::vec::IntoIter<Tensor>);

impl Draws {
    pub(super) fn of(draws: Vec<Tensor>) -> Self {
        Self(draws.into_iter())
    }
}

impl Noise for Draws {
    fn normal(&mut self, _: &'static str, shape: &[i64], _: Device) -> Tensor {
        let drawn = self.0.next().expect("a draw for every sampling call");
        assert_eq!(drawn.size(), shape);
        drawn
    }

    fn keep(&mut self, _: &str, _: &[i64], _: f64, _: Device) -> Option<Tensor> {
        None
    }
}

/// A column of obs that a case lists.
pub(super) fn column(values: &Value) -> Categorical {
    let values: Vec<&str> = values.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
    Categorical::from_values(&values)
}

/// Latent states as the arithmetic takes them.
pub(super) fn rows(tensor: &Tensor) -> Array2<f32> {
    let stored = from_tch(tensor);
    let values = stored.bytes().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    Array2::from_shape_vec((stored.shape()[0], stored.shape()[1]), values.collect()).unwrap()
}

/// And back.
pub(super) fn tensor(rows: &Array2<f32>) -> Tensor {
    let values = rows.as_slice().expect("rows in order");
    let stored = archipelago_common::Tensor::from_f32(rows.shape(), values);
    to_tch("rows", &stored).unwrap()
}
