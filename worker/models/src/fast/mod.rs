//! Training, surgery and embedding by the kernels (`crate::kernels`), for every module that says how.
//!
//! A module that is a variational autoencoder of counts describes itself ([`VaeSpec`]): layers, norms, which likelihood. Which of its
//! tensors train is the optimiser's business, and all that surgery differs in: what cannot change is computed once (the first
//! layer's product with every cell, the likelihood's `lgamma` terms), gradients go down to the lowest column and no further, and Adam
//! keeps state for columns only. Terms of the loss that depend on the latent state alone, such as scANVI's labels, are autograd's: it gets
//! posteriors and draws, and gives their gradients back. What a module does not describe, or the kernels cannot compute, goes through autograd as
//! before, and says so.

mod autoencoder;
mod block;
mod exchange;
mod first_layer;
mod gradient;
mod latent;
mod network;
mod part;
mod spec;
#[cfg(test)]
mod tests;

pub use autoencoder::{Autoencoder, Purpose, Terms};
pub use spec::{EncoderInput, LayerSpec, LogDispersionSpec, Unsupported, VaeSpec};
