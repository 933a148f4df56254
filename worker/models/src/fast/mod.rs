//! Training, surgery and embedding by the kernels (`crate::kernels`), for every module that says how.
//!
//! A module that is a variational autoencoder of counts or values describes itself ([`VaeSpec`]): layers, norms, what is compared with the
//! cells. Which of its tensors train is the optimiser's business, and all that surgery differs in: what cannot change is computed once (the
//! first layer's product with every cell, the likelihood's `lgamma` terms), gradients go down to the lowest column and no further, and Adam
//! keeps state for columns only. Part of the description is what else the loss hears of: labels ([`LabelSpec`]), a discrepancy between
//! conditions ([`DiscrepancySpec`]), points that draw cells ([`AnchorSpec`]); so are vectors that stand for conditions ([`Embedded`]), a
//! decoder whose elements are held to sets ([`MaskedSpec`]), and further modalities with an encoder and a decoder each ([`ModalitiesSpec`]).
//!
//! Blocks of 32 cells go their way each for itself (`walk`) and wait for each other where cells meet: at a batch norm of a minibatch, and
//! where latent states of several cells are compared. What a module does not describe, or the kernels cannot compute, goes through autograd,
//! and says so; of such a module the kernels may still compute likelihoods (`CountsWithin`),
//! discrepancies (`discrepancy_within`), products with what does not train (`FrozenProduct`) and the optimiser's step.

mod anchors;
mod autoencoder;
mod batch_norm;
#[cfg(test)]
mod batch_norm_tests;
mod block;
mod builder;
mod counts_within;
mod discrepancy;
mod discrepancy_within;
mod draws;
mod embedding;
#[cfg(test)]
mod embedding_tests;
mod exchange;
#[cfg(test)]
mod family_tests;
mod first_layer;
mod frozen_product;
mod gradient;
#[cfg(test)]
mod label_tests;
mod labels;
mod masked;
#[cfg(test)]
mod masked_tests;
mod modalities;
#[cfg(test)]
mod modalities_tests;
mod network;
mod part;
mod pull;
mod reconstruction;
mod spec;
mod stack;
mod terms;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use autoencoder::MOST_GROUPS;
pub use autoencoder::{Autoencoder, Purpose};
pub(crate) use counts_within::CountsWithin;
pub(crate) use discrepancy_within::discrepancy_within;
pub(crate) use frozen_product::FrozenProduct;
pub use spec::{
    AnchorFigures, AnchorSpec, BatchNormSpec, ColumnsSpec, DiscrepancySpec, Divergence, Embedded, EncoderInput,
    HeadSpec, LabelSpec, LayerSpec, Link, LogDispersionSpec, MaskedSpec, Measured, Mix, ModalitiesSpec, ModalitySpec,
    OffsetsSpec, PosteriorSpec, ReconstructionSpec, Shrinking, Shrinks, Unsupported, VaeSpec,
};
pub use terms::{Further, Terms};
