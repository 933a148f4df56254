//! How a model is trained where nobody says otherwise: part of its card.

use super::{AdamOptions, Decay, EarlyStopping, Plateau, Watched, default_epochs};
use crate::data::TrainSize;

/// How a model is trained where nobody says otherwise.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TrainDefaults {
    /// Passes over the training cells.
    pub epochs: Epochs,
    /// Cells per minibatch.
    pub minibatch: usize,
    /// The optimiser, with the weight decay of references; exact surgery has none.
    pub adam: AdamOptions,
    /// How the weight of the KL term rises.
    pub kl_warmup: WarmupDefault,
    /// Its full weight.
    pub max_kl_weight: f64,
    /// Share of training cells.
    pub train_size: TrainSize,
    /// When to stop early.
    pub early_stopping: Option<EarlyStopping>,
    /// When to lower the learning rate.
    pub plateau: Option<Plateau>,
    /// What both of these look at.
    pub watched: Watched,
    /// How strongly exact surgery draws a query to where the reference's cells lie, where the base says where that is.
    pub reference_pull: f64,
}

impl TrainDefaults {
    /// scvi-tools' for most of its models.
    pub const SCVI_TOOLS: Self = Self {
        epochs: Epochs::ByCells,
        minibatch: 128,
        adam: AdamOptions { rate: 1e-3, eps: 0.01, weight_decay: 1e-6, decay: Decay::L2 },
        kl_warmup: WarmupDefault::Epochs(400),
        max_kl_weight: 1.0,
        train_size: TrainSize::Default,
        early_stopping: None,
        plateau: None,
        watched: Watched::ELBO,
        reference_pull: 0.0,
    };
}

/// A number of epochs, or where it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Epochs {
    /// The field's heuristic: fewer for more cells.
    ByCells,
    /// These.
    Fixed(u32),
}

impl Epochs {
    /// For so many cells.
    pub fn for_cells(self, n_cells: usize) -> u32 {
        match self {
            Self::ByCells => default_epochs(n_cells),
            Self::Fixed(n) => n,
        }
    }
}

/// A warm-up of the KL term, or where its length comes from.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum WarmupDefault {
    /// None: the full weight from the start.
    Off,
    /// Over so many epochs.
    Epochs(u32),
    /// Over so many epochs, or over all where there are fewer.
    AtMostEpochs(u32),
    /// Over this share of the run's epochs, rounded down and at least one.
    ShareOfEpochs(f64),
    /// Over so many steps for each cell.
    StepsPerCell(f64),
}
