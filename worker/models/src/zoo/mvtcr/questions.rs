//! What mvTCR is asked: where each modality alone puts cells, and how much it has to say; which amino acids it gets right.

use tch::{Kind, Tensor};

use super::{chains::PADDING, config::Variant, module::MvtcrModule};
use crate::{
    error::{Error, Result},
    results::{Answer, Asked, Column, Frame, QuestionCard},
};

/// Places by modality.
pub(super) const MODALITIES: QuestionCard = QuestionCard {
    name: "modalities",
    help: "Where expression alone and the receptor alone put every cell, and how much of its joint place is the receptor's.\n\n\
           An h5ad has the cells with `obsm['X_joint']`, `obsm['X_rna']` and `obsm['X_tcr']`, for `umap --use-rep`. `tcr_share` is 0.5 where both say the same, more where the joint place lies in the direction of the receptor's. \
           Places are of single cells: what is written here is as confidential as the cells.",
    examples: &[
        "modalities reference tcells.h5ad --out modalities.h5ad",
        "modalities mapped query.h5ad --out modalities.csv",
    ],
    is_of_cells: true,
    arguments: &[],
};

/// Amino acids that are right.
pub(super) const AMINO_ACIDS: QuestionCard = QuestionCard {
    name: "amino-acids",
    help: "The share of each receptor's amino acids that the model predicts rightly, given those before.\n\n\
           A column for each latent state that receptors are decoded from. The decoder reads the true amino acids before each, so that \
           this says little about the latent state.",
    examples: &["amino-acids reference tcells.h5ad --out right.csv"],
    is_of_cells: true,
    arguments: &[],
};

/// Places by modality.
pub(super) fn modalities(module: &MvtcrModule, asked: &Asked<'_>) -> Result<Answer> {
    if !module.config().variant.has_experts() {
        return Err(Error::NotAnswered { question: MODALITIES.name.to_owned() });
    }
    let zdim = module.config().zdim;
    let all = asked.by_chunk("modalities", |minibatch, pass| {
        let latents = module.latents(minibatch, pass);
        let joint = module.joint(&latents).mean;
        let share = angle(&joint, &latents[1].mean) - angle(&joint, &latents[0].mean) + 0.5;
        Tensor::cat(&[&joint, &latents[0].mean, &latents[1].mean, &share.unsqueeze(1)], 1)
    });
    let part = |k: usize| all.slice(ndarray::s![.., k * zdim..(k + 1) * zdim]).to_owned();
    let mut frame = Frame::of_cells();
    frame.places = (0..).zip(["X_joint", "X_rna", "X_tcr"]).map(|(k, name)| (name.to_owned(), part(k))).collect();
    frame.columns = vec![("tcr_share".to_owned(), Column::Numbers(all.column(3 * zdim).to_vec()))];
    Ok(Answer::Frame(frame))
}

/// One less the angle between vectors, as a share of the largest one: `[n]`.
fn angle(one: &Tensor, other: &Tensor) -> Tensor {
    let cosine = Tensor::cosine_similarity(one, other, 1, 1e-8).clamp(-1.0, 1.0);
    1.0 - cosine.acos() / std::f64::consts::PI
}

/// Amino acids that are right.
pub(super) fn amino_acids(module: &MvtcrModule, asked: &Asked<'_>) -> Result<Answer> {
    let Some(slot) = module.receptor() else {
        return Err(Error::NotAnswered { question: AMINO_ACIDS.name.to_owned() });
    };
    let values = asked.by_chunk("amino acids", |minibatch, pass| {
        let inference = module.at_means(minibatch, pass);
        let decoded = module.generative(&inference, minibatch, pass);
        let targets = module.targets(minibatch.get(slot));
        let there = targets.ne(PADDING);
        let right = |logits: &Tensor| {
            let right = logits.argmax(2, false).eq_tensor(&targets).logical_and(&there);
            let sum = |of: &Tensor| of.sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
            sum(&right) / sum(&there).clamp_min(1.0)
        };
        Tensor::stack(&decoded.tcr.iter().map(right).collect::<Vec<_>>(), 1)
    });
    let names: &[&str] = match module.config().variant {
        Variant::Moe => &["from_rna", "from_tcr"],
        Variant::Poe => &["from_tcr", "from_joint"],
        Variant::Rna | Variant::Tcr | Variant::Concat => &["from_latent"],
    };
    Ok(Answer::Cells { columns: names.iter().map(|&name| name.to_owned()).collect(), values })
}
