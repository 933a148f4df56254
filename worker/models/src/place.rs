//! Places of cells beside the mean of their posteriors: draws from these, and what a decoder's first layer makes of draws.

use ndarray::Array2;
use tch::Tensor;

use crate::{
    data::{CellConditions, Cells},
    device::{Device, OneThread},
    error::{Error, Result},
    nn::{Mode, Pass, SeededNoise},
    reference::{Reference, to_array},
    train::{EVALUATION_MINIBATCH, Seeds},
};

/// Which place of a cell, where it is not the mean of its posterior.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A draw from the posterior.
    Draw,
    /// What the decoder's first layer makes of a draw.
    FirstDecoded,
}

impl Reference {
    /// A place of each cell, `[n_cells, n_dimensions]`, with noise of this seed.
    ///
    /// # Errors  conditions or data that the reference does not know, [`Error::NoPlace`]
    pub fn places(
        &self,
        cells: &Cells<'_>,
        conditions: &CellConditions,
        place: Place,
        seed: u64,
        device: Device,
    ) -> Result<Array2<f32>> {
        let _one_thread = OneThread::new();
        let _guard = tch::no_grad_guard();
        let dataset = self.encode(cells, conditions)?;
        let module = self.module(&conditions.all_keys(), device)?;
        let embedder = self.embedder(module.as_ref())?;
        let no_place = || Error::NoPlace { model: self.base.card.model.clone(), place: "decoder layer to look at" };
        let mut noise = SeededNoise::new(Seeds::new(seed, "places").of("noise", 0));
        let all: Vec<usize> = (0..dataset.n_cells()).collect();
        let mut places = Vec::new();
        for cells in all.chunks(EVALUATION_MINIBATCH) {
            let minibatch = dataset.minibatch(cells, module.weights().device());
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            places.push(match place {
                Place::FirstDecoded => embedder.first_decoded(&minibatch, &mut pass).ok_or_else(no_place)?,
                Place::Draw => {
                    let posterior = embedder.posterior(&minibatch, &mut pass);
                    let noise = pass.noise.normal("z", &posterior.mean.size(), posterior.mean.device());
                    let z = posterior.sample(&noise);
                    match module.as_count_model() {
                        Some(model) => model.latent_state(z),
                        None => z,
                    }
                }
            });
        }
        Ok(to_array(&Tensor::cat(&places, 0)))
    }
}
