//! Surgery without training: a new condition takes what the reference's condition owns as which its cells are reconstructed best.

use archipelago_common::{Columns, ConditionKey};
use tch::{Kind, Tensor};

use super::{ScpoliModule, config::NAME};
use crate::{
    data::{CellConditions, Cells, Minibatch},
    device::{Device, OneThread},
    error::{Error, Result},
    nn::{Mode, Pass, SeededNoise},
    reference::Reference,
    train::{EVALUATION_MINIBATCH, Seeds},
    zoo::family::totals,
};

/// The condition of a reference that some cells are most like.
#[derive(Clone, PartialEq, Debug)]
pub struct Likeness {
    /// The condition.
    pub nearest: ConditionKey,
    /// What it owns.
    pub columns: Columns,
    /// Mean reconstruction loss of the cells as cells of each condition.
    pub losses: Vec<(ConditionKey, f64)>,
}

/// The condition of a reference with one key per cell that these cells are most like.
///
/// # Errors  [`Error::NotAnswered`] for another model, data that do not fit, a reference of several keys
pub fn likeness(reference: &Reference, cells: &Cells<'_>, seed: u64, device: Device) -> Result<Likeness> {
    let _one_thread = OneThread::new();
    let refuse = |detail: &str| Error::Config { model: NAME, detail: detail.to_owned() };
    if reference.base.card.model != NAME {
        return Err(refuse("only its references know embeddings of conditions"));
    }
    if reference.base.card.layout.axes.len() > 1 {
        return Err(refuse("a condition of several keys cannot be taken from one of the reference's"));
    }
    let keys: Vec<ConditionKey> = reference.columns.keys().cloned().collect();
    let Some(first) = keys.first() else { return Err(refuse("the reference has no condition")) };
    let dataset = reference.encode(cells, &CellConditions::single(first.clone(), cells.n_cells()))?;
    let module = super::module_of(reference, &keys, device)?;
    let all: Vec<usize> = (0..dataset.n_cells()).collect();
    let _guard = tch::no_grad_guard();
    let loss = |code: usize| {
        let mut noise = SeededNoise::new(Seeds::new(seed, keys[code].to_string()).of("likeness", 0));
        let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
        let sums = all.chunks(EVALUATION_MINIBATCH).map(|chunk| {
            let minibatch = dataset.minibatch(chunk, crate::model::Module::weights(&module).device());
            loss_as(&module, &minibatch, code as i64, &mut pass).sum(Kind::Double).double_value(&[])
        });
        sums.sum::<f64>() / all.len() as f64
    };
    let losses: Vec<(ConditionKey, f64)> = (0..keys.len()).map(|code| (keys[code].clone(), loss(code))).collect();
    let (nearest, _) = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).expect("there is a condition");
    Ok(Likeness { nearest: nearest.clone(), columns: reference.columns[nearest].clone(), losses })
}

/// Reconstruction loss of each cell as if all were of one condition, `[n]`; latent states are drawn.
pub fn loss_as(module: &ScpoliModule, minibatch: &Minibatch, code: i64, pass: &mut Pass<'_>) -> Tensor {
    let covariates = minibatch.covariates.with_condition(code);
    let embedded = module.embeddings().look_up(&covariates);
    let qz = module.encode(&minibatch.x, &embedded, pass);
    let z = qz.sample(&pass.noise.normal("z", &qz.mean.size(), qz.mean.device()));
    let decoded = module.generative(&z, &totals(&minibatch.x), &embedded, pass);
    let theta = module.dispersion(minibatch, &covariates);
    decoded.output.loss(&minibatch.x, theta.as_ref())
}
