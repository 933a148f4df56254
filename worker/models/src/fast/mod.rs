//! Training, surgery and embedding by the kernels (`crate::kernels`), for every module that says how.
//!
//! A module that is a variational autoencoder of counts describes itself ([`VaeSpec`]): layers, norms, which likelihood. Which of its
//! tensors train is the optimiser's business, and all that surgery differs in: what cannot change is computed once (the first
//! layer's product with every cell, the likelihood's `lgamma` terms), gradients go down to the lowest column and no further, and Adam
//! keeps state for columns only. Labels that shape the latent state are part of the description ([`LabelSpec`]), and so is a discrepancy
//! between conditions ([`DiscrepancySpec`]). What a module does not
//! describe, or the kernels cannot compute, goes through autograd as before, and says so.

mod autoencoder;
mod block;
mod discrepancy;
mod draws;
mod exchange;
#[cfg(test)]
mod family_tests;
mod first_layer;
mod gradient;
#[cfg(test)]
mod label_tests;
mod labels;
mod network;
mod part;
mod spec;
mod stack;
#[cfg(test)]
mod tests;

pub use autoencoder::{Autoencoder, Purpose, Terms};
pub use spec::{
    ColumnsSpec, DiscrepancySpec, Embedded, EncoderInput, LabelSpec, LayerSpec, LogDispersionSpec, PosteriorSpec,
    Unsupported, VaeSpec,
};
