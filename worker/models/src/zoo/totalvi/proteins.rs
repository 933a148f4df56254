//! The question of proteins: denoised, told apart from background, imputed where they were not measured.

use ndarray::{Array2, Axis};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::{PROTEINS, ProteinParameters, TotalviModule, block::drawn_background, likelihood::shares};
use crate::{
    data::{Minibatch, slot::Matrix},
    error::{Error, Result},
    nn::Pass,
    reference::to_array,
    results::{Answer, Argument, Asked, ExpressionAsk, Given, LibraryAsk, Mean, QuestionCard, each_draw},
};

/// Proteins of each cell.
pub(super) const QUESTION: QuestionCard = QuestionCard {
    name: "proteins",
    help: "Proteins of each cell: normalised, their probability of being foreground, or imputed where they were not \
           measured.\n\n\
           Imputed proteins are those of the cell as if it had been measured in conditions that were stained: `--impute` \
           takes those with the most proteins, `--transform-batch` the ones that it names.",
    examples: &[
        "proteins reference cite.h5ad --scale-protein --out proteins.h5ad",
        "proteins reference cite.h5ad --what foreground --out foreground.csv",
        "proteins mapped query.h5ad --without-proteins --impute --n-samples 25 --out imputed.csv",
        "proteins mapped mapped/mapped.h5ad --without-proteins --impute --obsm-key imputed --out imputed.h5ad",
    ],
    is_of_cells: true,
    arguments: &[
        Argument::choice(WHAT, WHATS, "What of the proteins."),
        Argument::conditions(
            TRANSFORM,
            "Decode every cell as if it came from these batches of the reference, and average over them [default: its own]",
        ),
        Argument::flag(
            IMPUTE,
            "Decode every cell as if it came from the batches that were stained for the most proteins.",
        ),
        Argument::count(N_SAMPLES, 1, "Draws per cell that are averaged."),
        Argument::flag(BACKGROUND, "Add the background to the foreground."),
        Argument::flag(MIXING, "Draw whether a count is background, where the expectation would be taken otherwise."),
        Argument::flag(SCALE, "Divide the proteins of a cell by their sum."),
        Argument::names(NAMES, "Write these proteins only, separated by commas [default: all of the panel]"),
    ],
};

/// Which protein expression is asked for, with the RNA of the same draws.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ProteinAsk {
    /// Conditions, draws, and what the RNA of a cell adds up to.
    pub expression: ExpressionAsk,
    /// Adds the background to the foreground.
    pub include_background: bool,
    /// Draws whether a count is background, where the expectation would be taken otherwise.
    pub sample_mixing: bool,
    /// Divides a cell's proteins by their sum.
    pub scale: bool,
}

/// The answer.
pub(super) fn answer(module: &TotalviModule, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
    check(given)?;
    let panel = asked.blueprint().registry.remembered::<Matrix>(PROTEINS);
    let panel = panel.map(|panel| panel.names.as_slice()).unwrap_or_default();
    let chosen = given.positions(NAMES, panel)?;
    let transform = match given.flag(IMPUTE) {
        true => module.best_stained(),
        false => given.conditions(TRANSFORM).to_vec(),
    };
    let expression = ExpressionAsk { transform, n_samples: given.count(N_SAMPLES), ..ExpressionAsk::default() };
    let values = match given.choice(WHAT) {
        FOREGROUND => foreground_probability(asked, module, &expression),
        BACKGROUND_MEAN => background_mean(asked, module, &expression),
        _ => {
            let (include_background, sample_mixing) = (given.flag(BACKGROUND), given.flag(MIXING));
            let ask = ProteinAsk { expression, include_background, sample_mixing, scale: given.flag(SCALE) };
            expression_of_proteins(asked, module, &ask)
        }
    };
    let columns = chosen.iter().map(|&protein| panel[protein].clone()).collect();
    Ok(Answer::Cells { columns, values: values.select(Axis(1), &chosen) })
}

/// Refuses what is asked for in vain.
fn check(given: &Given) -> Result<()> {
    if given.flag(IMPUTE) && !given.conditions(TRANSFORM).is_empty() {
        let (found, expected) = ("given".to_owned(), format!("nothing beside `--{}`", TRANSFORM.replace('_', "-")));
        return Err(Error::Argument { name: IMPUTE, found, expected });
    }
    match [BACKGROUND, MIXING, SCALE].into_iter().find(|name| given.flag(name) && given.choice(WHAT) != EXPRESSION) {
        None => Ok(()),
        Some(name) => {
            let (found, expected) = ("given".to_owned(), format!("nothing unless `--{WHAT} {EXPRESSION}`"));
            Err(Error::Argument { name, found, expected })
        }
    }
}

/// Denoised proteins of every cell, `[n_cells, n_proteins]`.
fn expression_of_proteins(asked: &Asked<'_>, module: &TotalviModule, ask: &ProteinAsk) -> Array2<f32> {
    const PURPOSE: &str = "joint expression";
    let mut rng = ChaCha8Rng::from_seed(asked.seeds().of(PURPOSE, 1));
    asked.by_chunk(PURPOSE, |minibatch, pass| protein_expression_of(module, minibatch, ask, &mut rng, pass).1)
}

fn foreground_probability(asked: &Asked<'_>, module: &TotalviModule, ask: &ExpressionAsk) -> Array2<f32> {
    asked.by_chunk("foreground", |minibatch, pass| foreground_probability_of(module, minibatch, ask, pass))
}

fn background_mean(asked: &Asked<'_>, module: &TotalviModule, ask: &ExpressionAsk) -> Array2<f32> {
    asked.by_chunk("background", |minibatch, pass| {
        let mut mean = Mean::default();
        each_protein_draw(module, minibatch, ask, pass, |_, parameters| mean.add(parameters.rate_back));
        mean.value()
    })
}

/// RNA, `[n, n_genes]`, and proteins, `[n, n_proteins]`, of some cells: means over conditions and draws. Efficiencies of conditions
/// are not part of it.
pub fn protein_expression_of(
    module: &TotalviModule,
    minibatch: &Minibatch,
    ask: &ProteinAsk,
    rng: &mut ChaCha8Rng,
    pass: &mut Pass<'_>,
) -> (Tensor, Tensor) {
    let (mut rna, mut proteins) = (Mean::default(), Mean::default());
    each_protein_draw(module, minibatch, &ask.expression, pass, |out, parameters| {
        rna.add(match ask.expression.library {
            LibraryAsk::Scaled(size) => out.0 * size,
            LibraryAsk::Latent => out.1,
        });
        let background =
            if ask.sample_mixing { drawn_background(&parameters, rng) } else { parameters.mixing.sigmoid() };
        let foreground = &parameters.rate_fore * (1.0 - &background);
        let expression =
            if ask.include_background { foreground + &parameters.rate_back * background } else { foreground };
        proteins.add(if ask.scale { shares(&expression) } else { expression });
    });
    (rna.value(), proteins.value())
}

/// Probability of each protein count's being foreground, `[n, n_proteins]`, the mean over conditions and draws.
pub fn foreground_probability_of(
    module: &TotalviModule,
    minibatch: &Minibatch,
    ask: &ExpressionAsk,
    pass: &mut Pass<'_>,
) -> Tensor {
    let mut mean = Mean::default();
    each_protein_draw(module, minibatch, ask, pass, |_, parameters| mean.add(parameters.foreground_probability()));
    mean.value()
}

/// Shares and rates of genes, and the parameters of proteins, draw after draw.
fn each_protein_draw(
    module: &TotalviModule,
    minibatch: &Minibatch,
    ask: &ExpressionAsk,
    pass: &mut Pass<'_>,
    mut take: impl FnMut((Tensor, Tensor), ProteinParameters),
) {
    each_draw(module, minibatch, ask, pass, |draw, covariates, pass| {
        let out = module.generative(&draw.z, &draw.library, minibatch, covariates, pass);
        take((out.px_scale, out.px.rate), out.py);
    });
}

impl TotalviModule {
    /// Codes of the conditions that were stained for the most proteins: what to impute from.
    pub fn best_stained(&self) -> Vec<i64> {
        let totals: Vec<f32> = to_array(&self.measured).rows().into_iter().map(|row| row.sum()).collect();
        let most = totals.iter().copied().fold(0.0, f32::max);
        (0..).zip(&totals).filter(|(_, total)| **total == most).map(|(code, _)| code).collect()
    }
}

const WHAT: &str = "what";
const EXPRESSION: &str = "expression";
const FOREGROUND: &str = "foreground";
const BACKGROUND_MEAN: &str = "background";
const WHATS: &[(&str, &str)] = &[
    (EXPRESSION, "expected counts of the foreground"),
    (FOREGROUND, "probability of being foreground"),
    (BACKGROUND_MEAN, "expected counts of the background"),
];
const TRANSFORM: &str = "transform_batch";
const IMPUTE: &str = "impute";
const N_SAMPLES: &str = "n_samples";
const BACKGROUND: &str = "include_protein_background";
const MIXING: &str = "sample_protein_mixing";
const SCALE: &str = "scale_protein";
const NAMES: &str = "proteins";
