//! What scGen is asked: cells without their batch, and cells as a perturbation would leave them.

use std::collections::BTreeMap;

use archipelago_common::part::{Member, pooled};
use ndarray::{Array1, Array2, Axis};
use rand::{Rng as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::{
    ScgenModule,
    arithmetic::{Anchor, GroupMean, difference, means, shift, shifts, shifts_onto},
    label_means,
};
use crate::{
    data::Categorical,
    error::{Error, Result},
    nn::{Mode, Pass, of_rows},
    results::{Answer, Argument, Asked, Given, QuestionCard},
};

/// Batch effects removed between cells of known types, and queries laid onto their reference.
pub(super) const REMOVE_BATCH: QuestionCard = QuestionCard {
    name: "remove-batch",
    help: "Cells without their batch: cells of one type move so that all batches of it have one mean.\n\n\
           The batch with most cells of a type stands still, or the one that `--anchor` names; a type that this one lacks does \
           not move. Cells need their types (`--labels-key`). Mapped cells need no cell of the reference: with \
           `--onto-reference` they move onto the means that the reference holds, each batch as if the others were not there, bit \
           for bit.\n\n\
           Upstream maps a query by this, on cells of the reference and the query together, through a network in training mode: with \
           dropout, and batch norm by the statistics of these cells (`--train-mode`).",
    examples: &[
        "remove-batch reference cells.h5ad --out corrected.h5ad",
        "remove-batch mapped query.h5ad --onto-reference --what expression --out query-corrected.h5ad",
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
        Argument::flag(ONTO_REFERENCE, "Lay the cells onto the means that the reference holds, as `map` does."),
        Argument::flag(TRAIN_MODE, "Compute in training mode, all cells at once, as upstream's mapping of a query."),
        Argument::flag(SAMPLE, "Draw latent states, as upstream does, where their means would be taken."),
    ],
};

/// What the reference's part holds.
pub(super) const LABEL_MEANS: QuestionCard = QuestionCard {
    name: "label-means",
    help: "Number of cells and mean latent state of each cell type, over everything that a version holds.\n\n\
           The publisher's cells and those that sites contributed add up exactly, so the table is the same in whatever order sites \
           handed in. `map` lays cells onto the means of the reference's own cells; `--reference-only` shows these.",
    examples: &["label-means reference --out means.csv"],
    is_of_cells: false,
    arguments: &[Argument::flag(OWN, "Cells that the reference was trained on only.")],
};

/// Cells as they would be after a perturbation.
pub(super) const PREDICT_PERTURBATION: QuestionCard = QuestionCard {
    name: "predict-perturbation",
    help: "Expression of every cell as it would be after a perturbation.\n\n\
           The difference between the mean latent states of stimulated and control cells is added to every cell. Each cell type \
           counts alike, and only types count that both sides have. Upstream also takes a type that one side lacks, which makes \
           its predictions worse where the type to predict is left out of training (`--all-types`), and draws cells and states \
           (`--sample`) where this takes means.",
    examples: &["predict-perturbation reference cells.h5ad --control ctrl --stimulated stim --out predicted.h5ad"],
    is_of_cells: true,
    arguments: &[
        Argument::conditions(CONTROL, "Batches of control cells."),
        Argument::conditions(STIMULATED, "Batches of stimulated cells."),
        Argument::flag(ALL_TYPES, "Let types count that only one side has, as upstream does."),
        Argument::flag(
            SAMPLE,
            "Draw cells and their latent states, as upstream does, where their means would be taken.",
        ),
    ],
};

/// The answer to a question.
pub(super) fn answer(module: &ScgenModule, question: &str, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    match question {
        name if name == REMOVE_BATCH.name => remove_batch(module, asked, given),
        name if name == PREDICT_PERTURBATION.name => predict_perturbation(module, asked, given),
        name if name == LABEL_MEANS.name => label_means(module, asked, given),
        _ => Err(Error::NotAnswered { question: question.to_owned() }),
    }
}

fn label_means(module: &ScgenModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let parts = asked.parts();
    let members: Vec<&Member> = match given.flag(OWN) {
        true => parts.of_reference(label_means::PART).map(|(_, member)| member).collect(),
        false => parts.all(label_means::PART).map(|(_, member)| member).collect(),
    };
    let n_latent = module.config().z_dimension;
    let pool = pooled(&label_means::rule(n_latent), members)?;
    let columns = std::iter::once("n_cells".to_owned()).chain((0..n_latent).map(|i| format!("z{i}"))).collect();
    let rows: Vec<String> = pool.entries().map(str::to_owned).collect();
    let mut values = Vec::with_capacity(rows.len() * (n_latent + 1));
    for label in &rows {
        let GroupMean { n_cells, mean } = label_means::mean(label_means::PART, &pool, label)?;
        values.push(n_cells as f32);
        values.extend(mean.iter().map(|&value| value as f32));
    }
    let values = Array2::from_shape_vec((rows.len(), n_latent + 1), values).expect("every row has as many columns");
    Ok(Answer::Table { rows_are: "label", rows, columns, values })
}

fn remove_batch(module: &ScgenModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let labels = module.types(asked.dataset())?;
    let groups = groups(asked)?;
    let anchor = match given.conditions(ANCHOR) {
        [_, ..] if given.flag(ONTO_REFERENCE) => {
            let (found, expected) = ("given".to_owned(), "nothing with `--onto-reference`".to_owned());
            return Err(Error::Argument { name: ANCHOR, found, expected });
        }
        [] => Anchor::Largest,
        [code] => Anchor::Named(asked.conditions()[*code as usize].to_string()),
        several => {
            let found = format!("{} batches", several.len());
            return Err(Error::Argument { name: ANCHOR, found, expected: "one".to_owned() });
        }
    };
    let mode = mode(asked, given)?;
    let mut latent = encode(module, (asked, mode), given.flag(SAMPLE));
    let own = means(latent.view(), &labels, &groups);
    let shifts = match given.flag(ONTO_REFERENCE) {
        true => shifts_onto(&label_means::means(asked.parts().of_reference(label_means::PART))?, &own),
        false => shifts(&own, &anchor),
    };
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
            Ok(Answer::Cells { columns, values: by_chunk((asked, mode), &latent, "re-encode", corrected) })
        }
        _ => Ok(Answer::Cells { columns: asked.genes().to_vec(), values: decode(module, (asked, mode), &latent) }),
    }
}

/// The mode that batch effects are removed in.
fn mode(asked: &Asked<'_>, given: &Given) -> Result<Mode> {
    let refuse = |found: &str, expected: &str| {
        Err(Error::Argument { name: TRAIN_MODE, found: found.to_owned(), expected: expected.to_owned() })
    };
    match given.flag(TRAIN_MODE) {
        false => Ok(Mode::Evaluation),
        true if given.flag(ONTO_REFERENCE) => {
            refuse("given", "nothing with `--onto-reference`: the reference's means are of evaluation mode")
        }
        true if asked.dataset().n_cells() < 2 => refuse("given", "nothing for one cell: batch norm needs two"),
        true => Ok(Mode::Training),
    }
}

fn predict_perturbation(module: &ScgenModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    let labels = module.types(asked.dataset())?;
    let side = |name: &'static str| {
        let chosen = given.conditions(name);
        let is_one = |cell: &usize| chosen.contains(&asked.dataset().conditions[*cell]);
        let cells: Vec<usize> = (0..asked.dataset().n_cells()).filter(is_one).collect();
        if cells.is_empty() { Err(without(name, "a cell", "batches that some cells are of")) } else { Ok(cells) }
    };
    let (mut control, mut stimulated) = (ByType::of(side(CONTROL)?, &labels), ByType::of(side(STIMULATED)?, &labels));
    if !given.flag(ALL_TYPES) {
        control.0.retain(|label, _| stimulated.0.contains_key(label));
        stimulated.0.retain(|label, _| control.0.contains_key(label));
        if control.0.is_empty() {
            return Err(without(STIMULATED, "a type of the control cells", "cells of a type that control cells have"));
        }
    }
    let as_trained = (asked, Mode::Evaluation);
    let mut latent = encode(module, as_trained, given.flag(SAMPLE));
    let delta = match given.flag(SAMPLE) {
        false => (stimulated.mean(&latent) - control.mean(&latent)).mapv(|difference| difference as f32),
        true => {
            let mut rng = ChaCha8Rng::from_seed(asked.seeds().of("perturbation", 0));
            let mut drawn = [control.drawn(&mut rng), stimulated.drawn(&mut rng)];
            let n_cells = drawn[0].len().min(drawn[1].len());
            let [control, stimulated] = &mut drawn;
            for cells in [&mut *control, &mut *stimulated] {
                cells.shuffle(&mut rng);
                cells.truncate(n_cells);
            }
            let of = |cells: &[usize]| latent.select(Axis(0), cells);
            difference(of(control).view(), of(stimulated).view()).expect("both sides have at least one cell")
        }
    };
    latent += &delta;
    Ok(Answer::Cells { columns: asked.genes().to_vec(), values: decode(module, as_trained, &latent) })
}

fn without(name: &'static str, what: &str, expected: &str) -> Error {
    Error::Argument { name, found: format!("without {what}"), expected: expected.to_owned() }
}

/// Cells by their type, types in order of their names.
struct ByType<'a>(BTreeMap<&'a str, Vec<usize>>);

impl<'a> ByType<'a> {
    fn of(cells: Vec<usize>, labels: &'a Categorical) -> Self {
        let mut by_type: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for cell in cells {
            by_type.entry(&labels.names()[labels.codes()[cell] as usize]).or_default().push(cell);
        }
        Self(by_type)
    }

    /// The mean latent state where every type counts alike: what draws of as many cells of each have on average.
    fn mean(&self, latent: &Array2<f32>) -> Array1<f64> {
        let of_type = |cells: &Vec<usize>| {
            let states = latent.select(Axis(0), cells).mapv(f64::from);
            states.mean_axis(Axis(0)).expect("a type has cells")
        };
        let zero = Array1::zeros(latent.ncols());
        self.0.values().map(of_type).fold(zero, |sum, mean| sum + mean) / self.0.len() as f64
    }

    /// Cells drawn with replacement, as many of each type as the most frequent one has.
    fn drawn(&self, rng: &mut ChaCha8Rng) -> Vec<usize> {
        let most = self.0.values().map(Vec::len).max().unwrap_or_default();
        let of_type =
            |cells: &Vec<usize>| -> Vec<usize> { (0..most).map(|_| cells[rng.random_range(0..cells.len())]).collect() };
        self.0.values().flat_map(of_type).collect()
    }
}

/// The cells' batches.
fn groups(asked: &Asked<'_>) -> Result<Categorical> {
    let codes = asked.dataset().conditions.iter().map(|&code| code as u32).collect();
    Categorical::new("batch", codes, asked.conditions().iter().map(ToString::to_string).collect())
}

fn state(module: &ScgenModule, x: &Tensor, is_drawn: bool, pass: &mut Pass<'_>) -> Tensor {
    if is_drawn { module.draw(x, pass) } else { module.encode(x, pass).mean }
}

fn encode(module: &ScgenModule, (asked, mode): (&Asked<'_>, Mode), is_drawn: bool) -> Array2<f32> {
    asked.by_chunk_in(mode, "encode", |minibatch, pass| state(module, &minibatch.x, is_drawn, pass))
}

fn decode(module: &ScgenModule, asked: (&Asked<'_>, Mode), latent: &Array2<f32>) -> Array2<f32> {
    by_chunk(asked, latent, "decode", |z, pass| module.decode(z, pass))
}

/// A row for the latent state of every cell.
fn by_chunk(
    (asked, mode): (&Asked<'_>, Mode),
    latent: &Array2<f32>,
    purpose: &str,
    mut rows: impl FnMut(&Tensor, &mut Pass<'_>) -> Tensor,
) -> Array2<f32> {
    let device = asked.module().weights().device();
    let mut start = 0;
    asked.by_chunk_in(mode, purpose, |minibatch, pass| {
        let end = start + minibatch.n_cells();
        let z = of_rows(latent.slice(ndarray::s![start..end, ..]));
        start = end;
        rows(&z.to_device(device), pass)
    })
}

const WHAT: &str = "what";
const EXPRESSION: &str = "expression";
const LATENT: &str = "latent";
const SHIFTED: &str = "shifted";
const ANCHOR: &str = "anchor";
const SAMPLE: &str = "sample";
const ONTO_REFERENCE: &str = "onto_reference";
const OWN: &str = "reference_only";
const TRAIN_MODE: &str = "train_mode";
const ALL_TYPES: &str = "all_types";
const CONTROL: &str = "control";
const STIMULATED: &str = "stimulated";
