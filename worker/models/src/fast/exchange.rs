//! Tensors on their way into the kernels and back.

use std::collections::BTreeMap;

use tch::{Tensor, no_grad};

use super::{
    autoencoder::Autoencoder,
    network::Refresh,
    part::{Which, set_values, values_of},
};
use crate::{nn::Weights, train::Slot};

impl Autoencoder<'_> {
    /// The tensors that train.
    pub fn values(&mut self) -> BTreeMap<String, Tensor> {
        self.trained(Which::Value)
    }

    pub(super) fn trained(&mut self, which: Which) -> BTreeMap<String, Tensor> {
        let mut joined: BTreeMap<String, (Vec<i64>, Vec<f32>)> = BTreeMap::new();
        for part in self.parts.iter_mut().filter(|part| part.trains()) {
            let shape = self.shapes[&part.name].clone();
            let count = shape.iter().product::<i64>() as usize;
            let (_, values) = joined.entry(part.name.clone()).or_insert_with(|| (shape, vec![0.0; count]));
            part.write(which, values);
        }
        joined.into_iter().map(|(name, (shape, values))| (name, Tensor::from_slice(&values).view(&*shape))).collect()
    }

    /// Gives the tensors back, and the optimiser its state.
    pub fn store<'s>(&mut self, weights: &Weights, slots: impl IntoIterator<Item = &'s mut Slot>) {
        for slot in slots {
            if !self.holds(&slot.name) {
                continue;
            }
            slot.n_steps = self.n_steps;
            self.write(&slot.name, Which::Mean, &slot.mean);
            self.write(&slot.name, Which::Square, &slot.square);
            self.write(&slot.name, Which::Value, weights.require(&slot.name).0);
        }
        for (names, (counter, n)) in self.statistics() {
            names.iter().for_each(|name| self.write(name, Which::Value, weights.require(name).0));
            let _ = no_grad(|| weights.require(&counter).0.shallow_clone().fill_(n));
        }
    }

    /// Running statistics that move: their names, and what counts the minibatches that they have seen.
    fn statistics(&mut self) -> Vec<([String; 2], (String, i64))> {
        let Self { network, parts, .. } = self;
        let moving = network.batch_norms_mut().filter(|norm| norm.momentum.is_some());
        let name = |part: usize| parts[part].name.clone();
        moving.map(|norm| ([name(norm.parts.mean), name(norm.parts.var)], norm.counted.clone())).collect()
    }

    /// Takes the tensors and the optimiser's state as they are now.
    pub fn load<'s>(&mut self, weights: &Weights, slots: impl IntoIterator<Item = &'s Slot>) {
        for slot in slots {
            if !self.holds(&slot.name) {
                continue;
            }
            self.n_steps = slot.n_steps;
            self.read(&slot.name, Which::Mean, &slot.mean);
            self.read(&slot.name, Which::Square, &slot.square);
            self.read(&slot.name, Which::Value, weights.require(&slot.name).0);
        }
        for (names, _) in self.statistics() {
            names.iter().for_each(|name| self.read(name, Which::Value, weights.require(name).0));
        }
        for norm in self.network.batch_norms_mut().filter(|norm| norm.momentum.is_some()) {
            norm.counted.1 = weights.require(&norm.counted.0).0.int64_value(&[]);
        }
        self.network.refresh(&mut self.parts, Refresh::All);
    }

    /// Whether a tensor is the kernels' to move.
    fn holds(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.name == name)
    }

    fn write(&mut self, name: &str, which: Which, tensor: &Tensor) {
        let mut values = vec![0.0; tensor.numel()];
        self.parts.iter_mut().filter(|part| part.name == name).for_each(|part| part.write(which, &mut values));
        set_values(tensor, &values);
    }

    fn read(&mut self, name: &str, which: Which, tensor: &Tensor) {
        let values = values_of(tensor);
        self.parts.iter_mut().filter(|part| part.name == name).for_each(|part| part.read(which, &values));
    }
}
