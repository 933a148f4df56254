//! SageNet among the models of the zoo: a module without tensors, whose sections contribute networks.

use archipelago_common::{part::Contribution, progress::Continue};
use tch::Kind;

use super::{
    COORDINATES, SagenetConfig,
    ensemble::{expression, places},
    section::{partitions, train_section},
};
use crate::{
    data::{Dataset, Minibatch, Registry, Slot, slot::Coordinates},
    device::Engine,
    error::Result,
    losses::LossTerms,
    model::Module,
    nn::{Builder, Pass, Weights},
};

/// What stands for the ensemble while cells are looked at. Its networks are members of a part.
#[derive(Debug)]
pub(super) struct SagenetModule {
    config: SagenetConfig,
    places: Slot<Coordinates>,
    weights: Weights,
}

impl SagenetModule {
    pub(super) fn new(config: SagenetConfig, registry: &Registry, builder: Builder<'_>) -> Result<Self> {
        Ok(Self { config, places: registry.slot(COORDINATES)?, weights: builder.finish() })
    }
}

impl Module for SagenetModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Nothing is learnt from cells of all sections together.
    fn loss(&self, minibatch: &Minibatch, _: f64, _: &mut Pass<'_>) -> LossTerms {
        let none = minibatch.x.sum_dim_intlist([1_i64].as_slice(), false, Kind::Float).zeros_like();
        LossTerms::new(none.shallow_clone(), &none, None, 0.0)
    }

    /// The networks of a section: those of its cells and of the options alone, whatever else is trained.
    fn contributions(&self, dataset: &Dataset<'_>, cells: &[usize]) -> Result<Vec<Contribution>> {
        if cells.is_empty() {
            return Ok(Vec::new());
        }
        let found = partitions(places(dataset, self.places, cells).view(), &self.config)?;
        let x = expression(dataset, cells);
        let networks = train_section(&self.config, &x, &found, Engine::Fast, &|_, _| Continue::Yes)?;
        Ok(vec![networks.to_contribution(cells)])
    }
}
