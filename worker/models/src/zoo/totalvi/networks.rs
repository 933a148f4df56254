//! Encoder and decoder of totalVI.

use tch::{Kind, Tensor};

use super::{BackgroundActivation, TotalviConfig};
use crate::{
    data::{Covariates, Registry, SIZE_FACTOR},
    error::Result,
    nn::{Activation, Builder, CovariateSizes, Linear, Pass, Posterior, Stack, StackOptions, VARIANCE_FLOOR},
};

/// Cells to the posteriors of latent state and log library size.
#[derive(Debug)]
pub(super) struct Encoder {
    z: Branch,
    library: Branch,
}

/// A stack with heads for mean and variance.
#[derive(Debug)]
struct Branch {
    stack: Stack,
    mean: Linear,
    var: Linear,
}

impl Encoder {
    pub(super) fn new(b: &mut Builder<'_>, config: &TotalviConfig, registry: &Registry, n_in: usize) -> Result<Self> {
        let encodes = config.encode_covariates;
        let covariates = if encodes { covariate_sizes(registry) } else { CovariateSizes::none() };
        let n_in = n_in + if encodes { registry.n_continuous() } else { 0 };
        let stack = |n_layers| StackOptions {
            n_layers,
            n_hidden: config.n_hidden,
            n_out: config.n_hidden,
            covariates: covariates.clone(),
            inject: true,
            dropout: config.dropout_rate_encoder,
            batch_norm: config.use_batch_norm.in_encoder(),
            batch_norm_offsets: false,
            layer_norm: config.use_layer_norm.in_encoder(),
            activation: Activation::Relu,
        };
        let z = ["encoder", "z_mean_encoder", "z_var_encoder"];
        let library = ["l_gene_encoder", "l_gene_mean_encoder", "l_gene_var_encoder"];
        Ok(Self {
            z: Branch::new(b, z, n_in, config.n_latent, &stack(config.n_layers_encoder))?,
            library: Branch::new(b, library, n_in, 1, &stack(1))?,
        })
    }

    pub(super) fn latent(&self, x: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Posterior {
        self.z.forward(x, covariates, pass)
    }

    pub(super) fn library(&self, x: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Posterior {
        self.library.forward(x, covariates, pass)
    }
}

impl Branch {
    fn new(
        b: &mut Builder<'_>,
        [stack, mean, var]: [&str; 3],
        n_in: usize,
        n_out: usize,
        options: &StackOptions,
    ) -> Result<Self> {
        let (none, n_hidden) = (CovariateSizes::none(), options.n_out);
        Ok(Self {
            stack: Stack::new(b, &format!("encoder.{stack}"), n_in, options)?,
            mean: Linear::new(b, &format!("encoder.{mean}"), n_hidden, n_out, &none)?,
            var: Linear::new(b, &format!("encoder.{var}"), n_hidden, n_out, &none)?,
        })
    }

    fn forward(&self, x: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Posterior {
        let hidden = self.stack.forward(x, covariates, pass);
        let var = self.var.forward(&hidden, covariates).exp() + VARIANCE_FLOOR;
        Posterior { mean: self.mean.forward(&hidden, covariates), var }
    }
}

/// Latent states to the parameters of RNA and protein counts. Every layer takes the covariates; a head takes them and the
/// decoder's input a second time, beside its trunk.
#[derive(Debug)]
pub(super) struct Decoder {
    genes: Stack,
    background: Stack,
    foreground: Stack,
    mixture: Stack,
    scale: Stack,
    back_mean: Stack,
    back_sd: Stack,
    fore_scale: Stack,
    /// Only where genes are zero-inflated.
    dropout: Option<Stack>,
    mixing: Stack,
    activation: BackgroundActivation,
    softplus: bool,
}

/// What the decoder says about cells, before any noise.
#[derive(Debug)]
pub(super) struct Decoded {
    /// Expected share of each gene.
    pub(super) scale: Tensor,
    /// Zero-inflation logits of genes.
    pub(super) dropout: Option<Tensor>,
    /// Mean of the log background of each protein.
    pub(super) back_mean: Tensor,
    /// Its standard deviation.
    pub(super) back_sd: Tensor,
    /// Foreground over background, above 1.
    pub(super) fore_scale: Tensor,
    /// Logit of a protein count's being background.
    pub(super) mixing: Tensor,
}

impl Decoder {
    pub(super) fn new(
        b: &mut Builder<'_>,
        config: &TotalviConfig,
        registry: &Registry,
        n_genes: usize,
        n_proteins: usize,
    ) -> Result<Self> {
        let n_in = config.n_latent + registry.n_continuous();
        let trunk = StackOptions {
            n_layers: config.n_layers_decoder,
            n_hidden: config.n_hidden,
            n_out: config.n_hidden,
            covariates: covariate_sizes(registry),
            inject: true,
            dropout: config.dropout_rate_decoder,
            batch_norm: config.use_batch_norm.in_decoder(),
            batch_norm_offsets: false,
            layer_norm: config.use_layer_norm.in_decoder(),
            activation: Activation::Relu,
        };
        let plain = StackOptions {
            n_layers: 1,
            dropout: 0.0,
            batch_norm: false,
            batch_norm_offsets: false,
            layer_norm: false,
            activation: Activation::None,
            ..trunk.clone()
        };
        let mut stack =
            |name: &str, n_in, options: &StackOptions| Stack::new(b, &format!("decoder.{name}"), n_in, options);
        let n_head = config.n_hidden + n_in;
        let genes = StackOptions { n_out: n_genes, ..plain.clone() };
        let proteins = StackOptions { n_out: n_proteins, ..plain };
        let rectified = StackOptions { activation: Activation::Relu, ..proteins.clone() };
        let is_inflated = config.gene_likelihood.has_dropout();
        Ok(Self {
            genes: stack("px_decoder", n_in, &trunk)?,
            scale: stack("px_scale_decoder", n_head, &genes)?,
            background: stack("py_back_decoder", n_in, &trunk)?,
            back_mean: stack("py_back_mean_log_alpha", n_head, &proteins)?,
            back_sd: stack("py_back_mean_log_beta", n_head, &proteins)?,
            foreground: stack("py_fore_decoder", n_in, &trunk)?,
            fore_scale: stack("py_fore_scale_decoder", n_head, &rectified)?,
            mixture: stack("sigmoid_decoder", n_in, &trunk)?,
            dropout: if is_inflated { Some(stack("px_dropout_decoder_gene", n_head, &genes)?) } else { None },
            mixing: stack("py_background_decoder", n_head, &proteins)?,
            activation: config.extra_decoder_kwargs.activation_function_bg,
            softplus: registry.get(SIZE_FACTOR).is_some(),
        })
    }

    /// Decodes `u`, latent states and continuous covariates, `[n, n_in]`.
    pub(super) fn forward(&self, u: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Decoded {
        let mut trunk = |stack: &Stack| Tensor::cat(&[stack.forward(u, covariates, pass), u.shallow_clone()], -1);
        let (genes, background) = (trunk(&self.genes), trunk(&self.background));
        let (foreground, mixture) = (trunk(&self.foreground), trunk(&self.mixture));
        let mut head = |stack: &Stack, input: &Tensor| stack.forward(input, covariates, pass);
        let logits = head(&self.scale, &genes);
        let back_sd = head(&self.back_sd, &background);
        let back_sd = match self.activation {
            BackgroundActivation::Softplus => back_sd.softplus(),
            BackgroundActivation::Exp => back_sd.exp(),
        };
        Decoded {
            scale: if self.softplus { logits.softplus() } else { logits.softmax(-1, Kind::Float) },
            dropout: self.dropout.as_ref().map(|stack| head(stack, &mixture)),
            back_mean: head(&self.back_mean, &background),
            back_sd: back_sd + EPS,
            fore_scale: head(&self.fore_scale, &foreground) + 1.0 + EPS,
            mixing: head(&self.mixing, &mixture),
        }
    }
}

fn covariate_sizes(registry: &Registry) -> CovariateSizes {
    CovariateSizes { conditions: true, categorical: registry.covariate_sizes() }
}

/// Keeps a standard deviation above 0.
const EPS: f64 = 1e-8;
