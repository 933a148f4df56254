//! Options that several models have, and what they choose from.

use serde::{Deserialize, Serialize};

use crate::options::Choice;

/// Distribution of the latent state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatentDistribution {
    /// Normal.
    Normal,
    /// Logistic normal: the softmax of a normal.
    Ln,
}

/// Where a norm is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norms {
    /// In the encoder.
    Encoder,
    /// In the decoder.
    Decoder,
    /// Nowhere.
    None,
    /// In both.
    Both,
}

impl Choice for LatentDistribution {}
impl Choice for Norms {}

impl Norms {
    /// Whether the encoder has it.
    pub fn in_encoder(self) -> bool {
        matches!(self, Self::Encoder | Self::Both)
    }

    /// Whether the decoder has it.
    pub fn in_decoder(self) -> bool {
        matches!(self, Self::Decoder | Self::Both)
    }
}

/// Checks how many layers `hidden_layer_sizes` asks for, for a model with as many in encoder and decoder.
///
/// # Errors  what was found and what is expected
pub fn check_layers(hidden_layer_sizes: &[usize]) -> Result<(), String> {
    match hidden_layer_sizes.len() {
        1..=MAX_LAYERS => Ok(()),
        found => Err(format!("`hidden_layer_sizes` has {found} layers, expected 1 to {MAX_LAYERS}")),
    }
}

/// More layers than any published model has.
const MAX_LAYERS: usize = 64;
/// More units than any published model has; keeps a hostile card from asking for all memory.
pub const MAX_UNITS: usize = 1 << 16;
