//! The classifier of cells, and the networks between the two latent states.

use tch::{Kind, Tensor};

use super::ScanviConfig;
use crate::{
    data::Covariates,
    error::Result,
    fast::{LayerSpec, PosteriorSpec, Unsupported},
    nn::{Activation, Builder, CovariateSizes, Encoder, Linear, Pass, Posterior, Stack, StackOptions},
    zoo::scvi::ScviConfig,
};

/// Labels from latent states.
#[derive(Debug)]
pub struct Classifier {
    /// None where the classifier is linear.
    stack: Option<Stack>,
    head: Linear,
    logits: bool,
}

/// Where a stack stands, which decides about its norms and dropout.
enum Side {
    Encoder,
    Decoder,
}

impl Classifier {
    /// A classifier into `n_labels` labels; tensors `classifier.classifier.…` as upstream names them.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn new(b: &mut Builder<'_>, config: &ScanviConfig, n_labels: usize) -> Result<Self> {
        let (n_latent, none) = (config.scvi.n_latent, CovariateSizes::none());
        let logits = config.own.classifier_parameters.logits;
        if config.own.linear_classifier {
            let head = Linear::new(b, "classifier.classifier.0", n_latent, n_labels, &none)?;
            return Ok(Self { stack: None, head, logits });
        }
        let options = stack(&config.classifier(), none.clone(), Side::Encoder);
        let stack = Stack::new(b, "classifier.classifier.0", n_latent, &options)?;
        let head = Linear::new(b, "classifier.classifier.1", options.n_out, n_labels, &none)?;
        Ok(Self { stack: Some(stack), head, logits })
    }

    /// What the kernels are told about it: its layers, the map to a number per label, and whether these are logits.
    ///
    /// # Errors  what they do not know
    pub(super) fn spec(&self) -> Result<(Vec<LayerSpec>, String, bool), Unsupported> {
        let layers = self.stack.as_ref().map(Stack::spec).transpose()?.unwrap_or_default();
        Ok((layers, self.head.spec().0, self.logits))
    }

    /// Logits, or probabilities where the head ends in them, `[n, n_labels]`.
    pub fn forward(&self, z: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let none = Covariates::none(z);
        let hidden = self.stack.as_ref().map(|stack| stack.forward(z, &none, pass));
        let logits = self.head.forward(hidden.as_ref().unwrap_or(z), &none);
        if self.logits { logits } else { logits.softmax(-1, Kind::Float) }
    }

    /// Probabilities, `[n, n_labels]`.
    pub fn probabilities(&self, z: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let output = self.forward(z, pass);
        if self.logits { output.softmax(-1, Kind::Float) } else { output }
    }
}

/// The second latent state, given the first and a label, and the first, given the second and a label. Every layer takes the
/// label, whatever the options say about covariates.
#[derive(Debug)]
pub(super) struct LabelNetworks {
    encoder: Encoder,
    decoder: Stack,
    mean: Linear,
    var: Linear,
}

impl LabelNetworks {
    pub(super) fn new(b: &mut Builder<'_>, config: &ScviConfig, n_labels: usize) -> Result<Self> {
        let labels = CovariateSizes { conditions: false, categorical: vec![n_labels] };
        let n_latent = config.n_latent;
        let options = stack(config, labels.clone(), Side::Encoder);
        let encoder = Encoder::new(b, "encoder_z2_z1", n_latent, n_latent, &options)?;
        let options = stack(config, labels, Side::Decoder);
        let decoder = Stack::new(b, "decoder_z1_z2.decoder", n_latent, &options)?;
        let mut head = |part: &str| {
            Linear::new(b, &format!("decoder_z1_z2.{part}"), options.n_out, n_latent, &CovariateSizes::none())
        };
        Ok(Self { encoder, decoder, mean: head("mean_decoder")?, var: head("var_decoder")? })
    }

    /// What the kernels are told about both networks.
    ///
    /// # Errors  what they do not know
    pub(super) fn spec(&self) -> Result<(PosteriorSpec, PosteriorSpec), Unsupported> {
        let (mean, var) = (self.mean.spec().0, self.var.spec().0);
        Ok((self.encoder.spec()?, PosteriorSpec { layers: self.decoder.spec()?, mean, var }))
    }

    /// `q(z2 | z1, y)`; `labels`: a code per row of `z1`.
    pub(super) fn encode(&self, z1: &Tensor, labels: &Tensor, pass: &mut Pass<'_>) -> Posterior {
        self.encoder.forward(z1, &of_labels(labels, z1), pass)
    }

    /// `p(z1 | z2, y)`. Unlike an encoder's, its variance has no floor.
    pub(super) fn decode(&self, z2: &Tensor, labels: &Tensor, pass: &mut Pass<'_>) -> Posterior {
        let covariates = of_labels(labels, z2);
        let hidden = self.decoder.forward(z2, &covariates, pass);
        Posterior { mean: self.mean.forward(&hidden, &covariates), var: self.var.forward(&hidden, &covariates).exp() }
    }
}

/// Covariates of layers that labels enter and no condition.
fn of_labels(labels: &Tensor, like: &Tensor) -> Covariates {
    Covariates { categorical: vec![labels.shallow_clone()], ..Covariates::none(like) }
}

fn stack(config: &ScviConfig, covariates: CovariateSizes, side: Side) -> StackOptions {
    let in_encoder = matches!(side, Side::Encoder);
    let has = |norms: crate::zoo::family::Norms| if in_encoder { norms.in_encoder() } else { norms.in_decoder() };
    StackOptions {
        n_layers: config.n_layers,
        n_hidden: config.n_hidden,
        n_out: config.n_hidden,
        covariates,
        inject: true,
        dropout: if in_encoder { config.dropout_rate } else { 0.0 },
        batch_norm: has(config.use_batch_norm),
        batch_norm_offsets: false,
        layer_norm: has(config.use_layer_norm),
        activation: Activation::Relu,
    }
}
