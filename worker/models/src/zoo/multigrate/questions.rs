//! What Multigrate is asked: modalities that cells lack, and what each modality says of a cell.

use ndarray::{Array2, s};
use tch::Tensor;

use super::module::{Inference, MultigrateModule};
use crate::{
    data::{RNA, slot::Matrix},
    error::{Error, Result},
    results::{Answer, Argument, Asked, Column, Frame, Given, QuestionCard},
};

/// Values of modalities.
pub(super) const IMPUTE: QuestionCard = QuestionCard {
    name: "impute",
    help: "What the model expects of every cell in a modality, also where the cell lacks it.\n\n\
           Counts are shares of what `--total` says a cell adds up to; a squared difference gives the values that were trained on, \
           a cross entropy shares from 0 to 1. Features of several modalities are called `MODALITY:FEATURE`. Upstream decodes a draw \
           of the latent state (`--from draw`); its mean is steadier.",
    examples: &[
        "impute mapped query.h5ad --field adt=none --modality adt --out proteins.h5ad",
        "impute mapped query.h5mu --modality rna --total 10000 --out genes.csv",
    ],
    is_of_cells: true,
    arguments: &[
        Argument::names(MODALITY, "Modalities to write, separated by commas [default: all]"),
        FROM_ARGUMENT,
        Argument::number(TOTAL, 1.0, "What the counts of a modality add up to in a cell."),
    ],
};

/// Latent states by modality.
pub(super) const MODALITY_LATENT: QuestionCard = QuestionCard {
    name: "modality-latent",
    help: "The latent state of every cell by each modality alone, beside the joint one.\n\n\
           An h5ad has the cells with `obsm['X_multigrate']` and `obsm['X_multigrate_MODALITY']`, for `umap --use-rep`, and obs columns \
           `has_MODALITY`: where that is 0 the state by this modality says what the encoder makes of zeros.",
    examples: &["modality-latent mapped query.h5mu --out latent.h5ad"],
    is_of_cells: true,
    arguments: &[FROM_ARGUMENT],
};

const MODALITY: &str = "modality";
const FROM: &str = "from";
const TOTAL: &str = "total";
const MEAN: &str = "mean";
const DRAW: &str = "draw";
const FROM_ARGUMENT: Argument = Argument::choice(
    FROM,
    &[(MEAN, "the mean of the posterior"), (DRAW, "a draw from it, as upstream")],
    "Which latent state of a cell.",
);

impl MultigrateModule {
    /// The answer to one of the questions.
    ///
    /// # Errors  [`Error::NotAnswered`], [`Error::Argument`], [`Error::Minified`]
    pub(super) fn answered(&self, question: &str, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
        if asked.dataset().minified.is_some() {
            return Err(Error::Minified { what: "what each modality says" });
        }
        match question {
            _ if question == IMPUTE.name => self.imputed(asked, given),
            _ if question == MODALITY_LATENT.name => Ok(self.by_modality(asked, given)),
            other => Err(Error::NotAnswered { question: other.to_owned() }),
        }
    }

    /// Names of the modalities, in order.
    fn names(&self) -> Vec<String> {
        let further = self.config().modalities.iter().map(ToString::to_string);
        [RNA.to_owned()].into_iter().chain(further).collect()
    }

    fn imputed(&self, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
        let names = self.names();
        let picked = given.positions(MODALITY, &names)?;
        let total = given.number(TOTAL);
        if !(total.is_finite() && total > 0.0) {
            let (found, expected) = (total.to_string(), "a number above 0".to_owned());
            return Err(Error::Argument { name: TOTAL, found, expected });
        }
        let values = asked.by_chunk(IMPUTE.name, |minibatch, pass| {
            let inference = self.inference(minibatch, pass);
            let decoded = self.generative(state(&inference, given), &inference, pass);
            let of = |&m: &usize| {
                let value = decoded[m].value();
                if self.config().loss(m).is_of_counts() { value * total } else { value }
            };
            Tensor::cat(&picked.iter().map(of).collect::<Vec<_>>(), 1)
        });
        let registry = &asked.blueprint().registry;
        let columns = picked.iter().flat_map(|&m| {
            let panel = if m == 0 { None } else { registry.remembered::<Matrix>(&names[m]) };
            let features = panel.map_or(asked.genes(), |panel| &panel.names);
            let named = |feature: &String| match picked.len() {
                1 => feature.clone(),
                _ => format!("{}:{feature}", names[m]),
            };
            features.iter().map(named).collect::<Vec<_>>()
        });
        Ok(Answer::Cells { columns: columns.collect(), values })
    }

    /// The joint state, then those by each modality, and which modalities each cell has.
    fn by_modality(&self, asked: &Asked<'_>, given: &Given) -> Answer {
        let (names, width) = (self.names(), self.config().z_dim);
        let all: Array2<f32> = asked.by_chunk(MODALITY_LATENT.name, |minibatch, pass| {
            let inference = self.inference(minibatch, pass);
            let alone = inference.marginal.iter().map(|latent| match given.choice(FROM) {
                DRAW => &latent.z,
                _ => &latent.mean,
            });
            let states = [state(&inference, given)].into_iter().chain(alone).map(Tensor::shallow_clone);
            Tensor::cat(&states.chain([self.encoded(minibatch)]).collect::<Vec<_>>(), 1)
        });
        let part = |at: usize, n: usize| all.slice(s![.., at..at + n]).to_owned();
        let places = ["X_multigrate".to_owned()].into_iter().chain(names.iter().map(|m| format!("X_multigrate_{m}")));
        let mut frame = Frame::of_cells();
        frame.places = places.enumerate().map(|(at, name)| (name, part(at * width, width))).collect();
        let has = |(m, name): (usize, &String)| {
            let column = part((names.len() + 1) * width + m, 1).into_iter().collect();
            (format!("has_{name}"), Column::Numbers(column))
        };
        frame.columns = names.iter().enumerate().map(has).collect();
        Answer::Frame(frame)
    }
}

/// The joint latent state that is asked for.
fn state<'a>(inference: &'a Inference, given: &Given) -> &'a Tensor {
    match given.choice(FROM) {
        DRAW => &inference.joint.z,
        _ => &inference.joint.mean,
    }
}
