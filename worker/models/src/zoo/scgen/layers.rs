//! Encoder and decoder: linear maps without bias, batch norm, leaky ReLU, dropout.

use tch::Tensor;

use crate::{
    data::Covariates,
    error::Result,
    fast::{LayerSpec, PosteriorSpec},
    nn::{BatchNorm, BatchNormOptions, Builder, CovariateSizes, Dropout, Linear, Pass, Posterior},
};

/// Linear map, batch norm, leaky ReLU and dropout, in this order.
#[derive(Debug)]
struct Layer {
    linear: Linear,
    norm: BatchNorm,
    dropout: Dropout,
}

/// Cells to a normal distribution over the latent space. Its first map stands alone: nothing follows it but the next layer.
#[derive(Debug)]
pub(super) struct Encoder {
    first: Linear,
    layers: Vec<Layer>,
    mean: Linear,
    log_var: Linear,
}

/// Latent states to expression.
#[derive(Debug)]
pub(super) struct Decoder {
    layers: Vec<Layer>,
    out: Linear,
}

impl Layer {
    fn new(b: &mut Builder<'_>, stack: &str, i: usize, sizes: (usize, usize), dropout: f64) -> Result<Self> {
        Ok(Self {
            linear: Linear::without_bias(b, &format!("{stack}.L{i}"), sizes.0, sizes.1)?,
            norm: BatchNorm::with(b, &format!("{stack}.N{i}"), sizes.1, BatchNormOptions::TORCH)?,
            dropout: Dropout::new(b, format!("{stack}.D{i}"), dropout),
        })
    }

    fn spec(&self) -> LayerSpec {
        let (batch_norm, dropout) = (Some(self.norm.spec()), self.dropout.spec());
        LayerSpec { batch_norm, slope: SLOPE, dropout, ..plain(&self.linear) }
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let y = self.norm.forward(&self.linear.forward(x, &Covariates::none(x)), pass.mode);
        self.dropout.forward(leaky_relu(&y), pass)
    }
}

impl Encoder {
    /// Tensors `encoder.FC.…`, `encoder.mean_encoder.…`, `encoder.log_var_encoder.…`.
    pub(super) fn new(
        b: &mut Builder<'_>,
        n_genes: usize,
        hidden: &[usize],
        n_latent: usize,
        dropout: f64,
    ) -> Result<Self> {
        let first = Linear::without_bias(b, "encoder.FC.L0", n_genes, hidden[0])?;
        let later = (1..).zip(hidden.windows(2));
        let layers = later.map(|(i, sizes)| Layer::new(b, "encoder.FC", i, (sizes[0], sizes[1]), dropout));
        let layers = layers.collect::<Result<_>>()?;
        let n_hidden = hidden[hidden.len() - 1];
        let mut head =
            |part: &str| Linear::new(b, &format!("encoder.{part}"), n_hidden, n_latent, &CovariateSizes::none());
        Ok(Self { first, layers, mean: head("mean_encoder")?, log_var: head("log_var_encoder")? })
    }

    /// The posterior of each cell's latent state. Unlike in the other native models its variance has no floor.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Posterior {
        let none = Covariates::none(x);
        let hidden = self.layers.iter().fold(self.first.forward(x, &none), |y, layer| layer.forward(&y, pass));
        Posterior { mean: self.mean.forward(&hidden, &none), var: self.log_var.forward(&hidden, &none).exp() }
    }
}

impl Encoder {
    /// What the kernels are told about it.
    pub(super) fn spec(&self) -> PosteriorSpec {
        let layers = std::iter::once(plain(&self.first)).chain(self.layers.iter().map(Layer::spec)).collect();
        PosteriorSpec { layers, mean: self.mean.spec().0, var: self.log_var.spec().0 }
    }
}

impl Decoder {
    /// What the kernels are told about it: its layers and the last map.
    pub(super) fn spec(&self) -> (Vec<LayerSpec>, String) {
        (self.layers.iter().map(Layer::spec).collect(), self.out.spec().0)
    }

    /// Tensors `decoder.FirstL.…`, `decoder.HiddenL.…`, `decoder.recon_decoder.0.…`; `hidden` from the encoder's side.
    pub(super) fn new(
        b: &mut Builder<'_>,
        n_latent: usize,
        hidden: &[usize],
        n_genes: usize,
        dropout: f64,
    ) -> Result<Self> {
        let mut layers = vec![Layer::new(b, "decoder.FirstL", 0, (n_latent, hidden[hidden.len() - 1]), dropout)?];
        for (i, sizes) in (1..).zip(hidden.windows(2).rev()) {
            layers.push(Layer::new(b, "decoder.HiddenL", i, (sizes[1], sizes[0]), dropout)?);
        }
        let out = Linear::new(b, "decoder.recon_decoder.0", hidden[0], n_genes, &CovariateSizes::none())?;
        Ok(Self { layers, out })
    }

    /// Expression, `[n, n_genes]`; nothing keeps it from being negative.
    pub(super) fn forward(&self, z: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let hidden = self.layers.iter().fold(z.shallow_clone(), |y, layer| layer.forward(&y, pass));
        self.out.forward(&hidden, &Covariates::none(z))
    }
}

/// A linear map that nothing follows, as the kernels are told.
fn plain(linear: &Linear) -> LayerSpec {
    let (linear, n_in, n_out) = linear.spec();
    let (batch_norm, dropout) = (None, (String::new(), 0.0));
    LayerSpec { linear, columns: None, n_in, n_out, batch_norm, layer_norm: false, slope: 1.0, dropout }
}

fn leaky_relu(x: &Tensor) -> Tensor {
    x.clamp_min(0.0) + x.clamp_max(0.0) * SLOPE
}

/// Slope below 0, upstream's.
const SLOPE: f64 = 0.3;
