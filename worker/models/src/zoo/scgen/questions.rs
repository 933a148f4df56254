//! What scGen is asked: cells without their batch, and cells as a perturbation would leave them.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, Axis};
use rand::{Rng as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::{
    ScgenModule,
    arithmetic::{Anchor, difference, means, shift, shifts},
};
use crate::{
    data::{Categorical, LABELS, slot::Labels},
    error::{Error, Result},
    nn::Pass,
    results::{Answer, Argument, Asked, Given, QuestionCard},
};

/// Batch effects removed between cells of known types, and queries laid onto their reference.
pub(super) const REMOVE_BATCH: QuestionCard = QuestionCard {
    name: "remove-batch",
    help: "Cells without their batch: cells of one type move so that all batches of it have one mean.\n\n\
           The batch with most cells of a type stands still, or the one that `--anchor` names; a type that this one lacks does \
           not move. Cells need their types (`--labels-key`). To map a query, give reference and query cells in one file and \
           the reference's batch as anchor: then each query batch is mapped as if the others were not there, bit for bit.",
    examples: &[
        "remove-batch reference cells.h5ad --out corrected.h5ad",
        "remove-batch reference both.h5ad --anchor reference --what latent --out latent.h5ad",
    ],
    is_of_cells: true,
    arguments: &[
        Argument::choice(
            WHAT,
            &[
                (EXPRESSION, "corrected expression of every gene"),
                (LATENT, "the latent state of the corrected expression"),
                (SHIFTED, "the latent state that was decoded to it"),
            ],
            "What of the cells.",
        ),
        Argument::conditions(
            ANCHOR,
            "The batch that stands still [default: for each type the one with most of its cells]",
        ),
        Argument::flag(SAMPLE, "Draw latent states, as upstream does, where their means would be taken."),
    ],
};

/// Cells as they would be after a perturbation.
pub(super) const PREDICT_PERTURBATION: QuestionCard = QuestionCard {
    name: "predict-perturbation",
    help: "Expression of every cell as it would be after a perturbation.\n\n\
           The difference between the mean latent states of stimulated and control cells is added to every cell. Both sides \
           are balanced: as many cells of each type, and as many of both, drawn by the seed.",
    examples: &["predict-perturbation reference cells.h5ad --control ctrl --stimulated stim --out predicted.h5ad"],
    is_of_cells: true,
    arguments: &[
        Argument::conditions(CONTROL, "Batches of control cells."),
        Argument::conditions(STIMULATED, "Batches of stimulated cells."),
        Argument::flag(SAMPLE, "Draw latent states, as upstream does, where their means would be taken."),
    ],
};

/// The answer to a question.
pub(super) fn answer(module: &ScgenModule, question: &str, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    match question {
        name if name == REMOVE_BATCH.name => remove_batch(module, asked, given),
        name if name == PREDICT_PERTURBATION.name => predict_perturbation(module, asked, given),
        _ => Err(Error::NotAnswered { question: question.to_owned() }),
    }
}

fn remove_batch(module: &ScgenModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let labels = labels(asked)?;
    let groups = groups(asked)?;
    let anchor = match given.conditions(ANCHOR) {
        [] => Anchor::Largest,
        [code] => Anchor::Named(asked.conditions()[*code as usize].to_string()),
        several => {
            let found = format!("{} batches", several.len());
            return Err(Error::Argument { name: ANCHOR, found, expected: "one".to_owned() });
        }
    };
    let mut latent = encode(module, asked, given.flag(SAMPLE));
    let shifts = shifts(&means(latent.view(), &labels, &groups), &anchor);
    shift(&mut latent, &labels, &groups, &shifts);
    let dimensions = || (0..latent.ncols()).map(|i| format!("z{i}")).collect();
    match given.choice(WHAT) {
        SHIFTED => Ok(Answer::Cells { columns: dimensions(), values: latent }),
        LATENT => {
            let columns = dimensions();
            let corrected = |z: &Tensor, pass: &mut Pass<'_>| {
                let x = module.decode(z, pass);
                state(module, &x, given.flag(SAMPLE), pass)
            };
            Ok(Answer::Cells { columns, values: by_chunk(asked, &latent, "re-encode", corrected) })
        }
        _ => Ok(Answer::Cells { columns: asked.genes().to_vec(), values: decode(module, asked, &latent) }),
    }
}

fn predict_perturbation(module: &ScgenModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let labels = labels(asked)?;
    let mut rng = ChaCha8Rng::from_seed(asked.seeds().of("perturbation", 0));
    let mut side = |name: &'static str| {
        let chosen = given.conditions(name);
        let is_one = |cell: &usize| chosen.contains(&asked.dataset().conditions[*cell]);
        let cells: Vec<usize> = (0..asked.dataset().n_cells()).filter(is_one).collect();
        if cells.is_empty() {
            let expected = "batches that some cells are of".to_owned();
            return Err(Error::Argument { name, found: "without a cell".to_owned(), expected });
        }
        Ok(balanced(&cells, &labels, &mut rng))
    };
    let (mut control, mut stimulated) = (side(CONTROL)?, side(STIMULATED)?);
    let n_cells = control.len().min(stimulated.len());
    for cells in [&mut control, &mut stimulated] {
        cells.shuffle(&mut rng);
        cells.truncate(n_cells);
    }
    let mut latent = encode(module, asked, given.flag(SAMPLE));
    let of = |cells: &[usize]| latent.select(Axis(0), cells);
    let delta: Array1<f32> =
        difference(of(&control).view(), of(&stimulated).view()).expect("both sides have at least one cell");
    latent += &delta;
    Ok(Answer::Cells { columns: asked.genes().to_vec(), values: decode(module, asked, &latent) })
}

/// Cells drawn with replacement, as many of each type as the most frequent one has; types in order of their names.
fn balanced(cells: &[usize], labels: &Categorical, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut by_type: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &cell in cells {
        by_type.entry(&labels.names()[labels.codes()[cell] as usize]).or_default().push(cell);
    }
    let most = by_type.values().map(Vec::len).max().unwrap_or_default();
    let mut draw = |of_type: &Vec<usize>| (0..most).map(|_| of_type[rng.random_range(0..of_type.len())]).collect();
    by_type.values().flat_map(|of_type| -> Vec<usize> { draw(of_type) }).collect()
}

/// The cells' types.
fn labels(asked: &Asked<'_>) -> Result<Categorical> {
    let registry = &asked.blueprint().registry;
    let slot = registry.slot::<Labels>(LABELS)?;
    let codes = asked.dataset().codes(slot).iter().map(|&code| code as u32).collect();
    Categorical::new(LABELS, codes, registry.labels().to_vec())
}

/// The cells' batches.
fn groups(asked: &Asked<'_>) -> Result<Categorical> {
    let codes = asked.dataset().conditions.iter().map(|&code| code as u32).collect();
    Categorical::new("batch", codes, asked.conditions().iter().map(ToString::to_string).collect())
}

fn state(module: &ScgenModule, x: &Tensor, is_drawn: bool, pass: &mut Pass<'_>) -> Tensor {
    if is_drawn { module.draw(x, pass) } else { module.encode(x, pass).mean }
}

fn encode(module: &ScgenModule, asked: &Asked<'_>, is_drawn: bool) -> Array2<f32> {
    asked.by_chunk("encode", |minibatch, pass| state(module, &minibatch.x, is_drawn, pass))
}

fn decode(module: &ScgenModule, asked: &Asked<'_>, latent: &Array2<f32>) -> Array2<f32> {
    by_chunk(asked, latent, "decode", |z, pass| module.decode(z, pass))
}

/// A row for the latent state of every cell.
fn by_chunk(
    asked: &Asked<'_>,
    latent: &Array2<f32>,
    purpose: &str,
    mut rows: impl FnMut(&Tensor, &mut Pass<'_>) -> Tensor,
) -> Array2<f32> {
    let device = asked.module().weights().device();
    let mut start = 0;
    asked.by_chunk(purpose, |minibatch, pass| {
        let end = start + minibatch.n_cells();
        let z = latent.slice(ndarray::s![start..end, ..]);
        start = end;
        let z = Tensor::from_slice(&z.iter().copied().collect::<Vec<f32>>()).view([-1, latent.ncols() as i64]);
        rows(&z.to_device(device), pass)
    })
}

const WHAT: &str = "what";
const EXPRESSION: &str = "expression";
const LATENT: &str = "latent";
const SHIFTED: &str = "shifted";
const ANCHOR: &str = "anchor";
const SAMPLE: &str = "sample";
const CONTROL: &str = "control";
const STIMULATED: &str = "stimulated";
