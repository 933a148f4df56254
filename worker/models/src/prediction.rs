//! Labels of cells, as a reference that learnt some predicts them.

use ndarray::Array2;
use tch::Tensor;

use crate::{
    data::{CellConditions, Cells, LABELS},
    device::{Device, OneThread},
    error::{Error, Result},
    model::PredictFrom,
    nn::{Mode, Pass, SeededNoise},
    reference::{Reference, to_array},
    train::{EVALUATION_MINIBATCH, Seeds},
};

/// Predicted labels of cells.
#[derive(Clone, PartialEq, Debug)]
pub struct LabelPrediction {
    /// The labels of the reference, by column.
    pub labels: Vec<String>,
    /// The probability of each, `[n_cells, n_labels]`; rows sum to 1.
    pub probabilities: Array2<f32>,
}

impl LabelPrediction {
    /// The most probable label of each cell.
    pub fn most_probable(&self) -> Vec<&str> {
        let largest = |row: ndarray::ArrayView1<'_, f32>| {
            let by_value = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            self.labels[by_value.expect("a reference that predicts has labels").0].as_str()
        };
        self.probabilities.rows().into_iter().map(largest).collect()
    }
}

impl Reference {
    /// Predicts the label of each cell; labels that the cells carry are not looked at. `seed` matters for draws only.
    ///
    /// # Errors  [`Error::NotLabelModel`], conditions or data that the reference does not know
    pub fn predict_labels(
        &self,
        cells: &Cells<'_>,
        conditions: &CellConditions,
        from: PredictFrom,
        seed: u64,
        device: Device,
    ) -> Result<LabelPrediction> {
        let _one_thread = OneThread::new();
        let module = self.module(&conditions.all_keys(), device)?;
        let refused = || Error::NotLabelModel { model: self.base.card.model.clone() };
        let model = module.as_label_model().ok_or_else(refused)?;
        let dataset = self.encode(&cells.clone().without(LABELS), conditions)?;

        let _guard = tch::no_grad_guard();
        let mut noise = SeededNoise::new(Seeds::new(seed, "labels").of("noise", 0));
        let cells: Vec<usize> = (0..dataset.n_cells()).collect();
        let mut probabilities = Vec::new();
        for cells in cells.chunks(EVALUATION_MINIBATCH) {
            let minibatch = dataset.minibatch(cells, module.weights().device());
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            probabilities.push(model.label_probabilities(&minibatch, from, &mut pass));
        }
        let probabilities = to_array(&Tensor::cat(&probabilities, 0));
        Ok(LabelPrediction { labels: self.base.card.labels.clone(), probabilities })
    }
}
