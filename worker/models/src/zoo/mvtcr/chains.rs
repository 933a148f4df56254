//! Encoder and decoder of a receptor's chain: transformers over its amino acids.

use tch::{Kind, Tensor, no_grad};

use super::{
    config::MvtcrConfig,
    sequences::{Sequences, WeightsOf},
    transformer::{Layer, LayerOptions, Side, later, layers},
};
use crate::{
    data::Covariates,
    error::Result,
    nn::{Builder, CovariateSizes, Dropout, Init, Linear, Pass, Role},
};

/// From the tokens of a chain to units.
#[derive(Debug)]
pub(super) struct ChainEncoder {
    tokens: Tokens,
    layers: Vec<Layer>,
    reduced: Linear,
    /// Units of sequences.
    units: Sequences,
}

/// From units, and the tokens before it, to each token of a chain but the first.
#[derive(Debug)]
pub(super) struct ChainDecoder {
    tokens: Tokens,
    layers: Vec<Layer>,
    memory: Linear,
    out: Linear,
    /// What the first layer makes of sequences before it looks at the memory.
    started: Sequences,
    /// Positions of the memory.
    length: i64,
}

/// What stands for tokens at their positions.
#[derive(Debug)]
struct Tokens {
    table: Tensor,
    dropout: Dropout,
}

impl ChainEncoder {
    /// An encoder of chains of so many positions to so many units; tensors `{name}.embedding.weight`, `.transformer_encoder.…`,
    /// `.fc_reduction.…`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub(super) fn new(
        b: &mut Builder<'_>,
        name: &str,
        config: &MvtcrConfig,
        (length, n_out): (usize, usize),
    ) -> Result<Self> {
        let n_flat = length * config.embedding_size;
        let tokens = Tokens::new(b, name, config)?;
        let inside = format!("{name}.transformer_encoder");
        let layers = layers(b, &inside, config.encoding_layers, Side::Encoder, LayerOptions::of(config))?;
        let reduced = Linear::new(b, &format!("{name}.fc_reduction"), n_flat, n_out, &CovariateSizes::none())?;
        Ok(Self { tokens, layers, reduced, units: Sequences::default() })
    }

    /// Units of chains, `[n, n_out]`. Padding is read like any other token: nothing is masked.
    pub(super) fn forward(&self, tokens: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        self.units.of(tokens, self.tokens.weights(), pass, |tokens, pass| self.of_sequences(tokens, pass))
    }

    fn of_sequences(&self, tokens: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let x = self.tokens.forward(tokens, pass);
        let y = self.layers.iter().fold(x, |x, layer| layer.forward(&x, None, None, pass));
        self.reduced.forward(&y.flatten(1, -1), &Covariates::none(&y))
    }
}

impl ChainDecoder {
    /// A decoder of so many units to chains of so many positions; tensors `{name}.embedding.weight`, `.fc_upsample.…`,
    /// `.transformer_decoder.…`, `.fc_out.…`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub(super) fn new(
        b: &mut Builder<'_>,
        name: &str,
        config: &MvtcrConfig,
        (length, n_in): (usize, usize),
    ) -> Result<Self> {
        let (width, none) = (config.embedding_size, CovariateSizes::none());
        let memory = Linear::new(b, &format!("{name}.fc_upsample"), n_in, length * width, &none)?;
        let tokens = Tokens::new(b, name, config)?;
        let inside = format!("{name}.transformer_decoder");
        let layers = layers(b, &inside, config.decoding_layers, Side::Decoder, LayerOptions::of(config))?;
        let out = Linear::new(b, &format!("{name}.fc_out"), width, N_TOKENS as usize, &none)?;
        Ok(Self { tokens, layers, memory, out, started: Sequences::default(), length: length as i64 })
    }

    /// Logits of the tokens behind the first one, `[n, length - 1, n_tokens]`, from units and the true tokens.
    pub(super) fn forward(&self, units: &Tensor, tokens: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let none = Covariates::none(units);
        let n = self.length - 1;
        let memory = self.memory.forward(units, &none).view([units.size()[0], self.length, -1]);
        let (first, rest) = self.layers.split_first().expect("options are of one layer or more");
        let hidden = later(n, units);
        let x = self.started.of(&tokens.narrow(1, 0, n), self.tokens.weights(), pass, |tokens, pass| {
            first.among_themselves(&self.tokens.forward(tokens, pass), Some(&hidden), pass)
        });
        let x = first.beyond(&x, Some(&memory), pass);
        let y = rest.iter().fold(x, |x, layer| layer.forward(&x, Some(&hidden), Some(&memory), pass));
        self.out.forward(&y, &none)
    }
}

impl Tokens {
    /// Tensor `{name}.embedding.weight`; the row of padding is 0 and has no gradient.
    fn new(b: &mut Builder<'_>, name: &str, config: &MvtcrConfig) -> Result<Self> {
        let shape = [N_TOKENS as usize, config.embedding_size];
        let table = b.tensor(&format!("{name}.embedding.weight"), &shape, Role::Parameter, Init::Normal)?;
        let _ = no_grad(|| table.get(PADDING).zero_());
        let dropout = Dropout::new(b, format!("{name}.positional_encoding"), config.tcr_dropout);
        Ok(Self { table, dropout })
    }

    /// Whether the network trains: all its parameters do, or none.
    fn weights(&self) -> WeightsOf {
        if self.table.requires_grad() { WeightsOf::Training } else { WeightsOf::Frozen }
    }

    /// `[n, n_positions, width]`. Upstream scales by the number of tokens and not by the width, and adds the sum of embedding and
    /// position to the embedding once more.
    fn forward(&self, tokens: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let embedded = Tensor::embedding(&self.table, tokens, PADDING, false, false) * (N_TOKENS as f64).sqrt();
        let size = embedded.size();
        let placed = &embedded + positions(size[1], size[2]).to_device(embedded.device()).to_kind(embedded.kind());
        embedded + self.dropout.forward(placed, pass)
    }
}

impl LayerOptions {
    fn of(config: &MvtcrConfig) -> Self {
        let width = config.embedding_size;
        Self {
            width,
            n_heads: config.num_heads,
            n_forward: width * config.forward_expansion,
            dropout: config.tcr_dropout,
        }
    }
}

/// Waves of positions, `[n_positions, width]`: sines in even columns, cosines in odd ones. In single precision, as upstream keeps them.
pub(super) fn positions(n_positions: i64, width: i64) -> Tensor {
    let of = (Kind::Float, tch::Device::Cpu);
    let frequency = (Tensor::arange_start_step(0, width, 2, of) * (-10_000_f64.ln() / width as f64)).exp();
    let angle = Tensor::arange(n_positions, of).unsqueeze(1) * frequency;
    let waves = Tensor::stack(&[angle.sin(), angle.cos()], 2);
    waves.view([n_positions, -1]).narrow(1, 0, width)
}

/// Tokens of upstream's alphabet: padding, 20 amino acids, `+`, `<` and `>`, which no sequence has.
pub(super) const N_TOKENS: i64 = 24;
/// The token behind the end of a chain.
pub(super) const PADDING: i64 = 0;
