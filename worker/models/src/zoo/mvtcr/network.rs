//! The two shapes of mvTCR's network: experts with a latent state for each modality, and one latent state of all.

use tch::Tensor;

use super::{
    chains::{ChainDecoder, ChainEncoder},
    conditions::Conditions,
    config::{MvtcrConfig, Variant},
    mlp::{Mlp, MlpActivation, MlpOptions},
};
use crate::{
    data::Covariates,
    error::Result,
    nn::{Builder, Pass},
};

/// Normal posteriors of cells, by mean and log variance.
#[derive(Debug)]
pub struct Latent {
    /// Mean, `[n, zdim]`.
    pub mean: Tensor,
    /// Log variance, `[n, zdim]`.
    pub log_var: Tensor,
}

/// The layers between input and latent space.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) conditions: Conditions,
    /// Of each chain, in order.
    chains: Vec<(ChainEncoder, ChainDecoder)>,
    shape: Shape,
    length: i64,
}

#[derive(Debug)]
enum Shape {
    /// Each modality has a latent state.
    Experts { rna: Expert, tcr: Expert, genes: Genes },
    /// One latent state of what there is.
    Shared { shared: Expert, genes: Option<Genes> },
}

/// To a latent state and back.
#[derive(Debug)]
struct Expert {
    encoder: Mlp,
    decoder: Mlp,
}

/// From expression to units and back.
#[derive(Debug)]
struct Genes {
    encoder: Mlp,
    decoder: Mlp,
}

/// What is decoded from latent states.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Expression, `[n, n_genes]` each.
    pub rna: Vec<Tensor>,
    /// Logits of the tokens of each chain but its first, chain behind chain: `[n, n_chains * (length - 1), n_tokens]` each.
    pub tcr: Vec<Tensor>,
}

impl Network {
    /// The network of so many genes and of chains of so many positions.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub(super) fn new(b: &mut Builder<'_>, config: &MvtcrConfig, (n_genes, length): (usize, usize)) -> Result<Self> {
        let conditions = Conditions::new(b, config)?;
        let n_modalities = usize::from(config.variant == Variant::Concat) + 1;
        let n_joint = config.hdim * if config.variant.has_experts() { 1 } else { n_modalities };
        let mut chains = Vec::new();
        if config.variant.has_tcr() {
            let list = config.chains.list();
            for chain in &list {
                let name = chain.name();
                let sizes = (length, config.hdim / list.len());
                let encoder = ChainEncoder::new(b, &format!("{name}_encoder"), config, sizes)?;
                let decoder = ChainDecoder::new(b, &format!("{name}_decoder"), config, (length, n_joint))?;
                chains.push((encoder, decoder));
            }
        }
        let shape = if config.variant.has_experts() {
            Shape::Experts {
                genes: Genes::new(b, "rna", config, (n_genes, config.hdim))?,
                tcr: Expert::new(b, "tcr_vae", config, n_joint, &conditions)?,
                rna: Expert::new(b, "rna_vae", config, n_joint, &conditions)?,
            }
        } else {
            // Expression is decoded from the units of all modalities together.
            let genes = match config.variant.has_rna() {
                true => Some(Genes::new(b, "gene", config, (n_genes, n_joint))?),
                false => None,
            };
            Shape::Shared { shared: Expert::new(b, "shared", config, n_joint, &conditions)?, genes }
        };
        Ok(Self { conditions, chains, shape, length: length as i64 })
    }

    /// Posteriors of cells: of expression and receptor where each has one, else of all.
    pub(super) fn encode(
        &self,
        x: &Tensor,
        tokens: Option<&Tensor>,
        covariates: &Covariates,
        pass: &mut Pass<'_>,
    ) -> Vec<Latent> {
        let of_chains: Vec<Tensor> = (self.chains.iter().enumerate())
            .map(|(k, (encoder, _))| encoder.forward(&self.chain(tokens, k), pass))
            .collect();
        let latent = |expert: &Expert, parts: &[&Tensor], pass: &mut Pass<'_>| {
            let input = self.conditions.beside(parts, covariates);
            let halves = expert.encoder.forward(&input, covariates, pass).chunk(2, 1);
            Latent { mean: halves[0].shallow_clone(), log_var: halves[1].shallow_clone() }
        };
        let of_chains: Vec<&Tensor> = of_chains.iter().collect();
        match &self.shape {
            Shape::Experts { rna, tcr, genes } => {
                let of_genes = genes.encoder.forward_cells(x, covariates, pass);
                let of_rna = latent(rna, &[&of_genes], pass);
                vec![of_rna, latent(tcr, &of_chains, pass)]
            }
            Shape::Shared { shared, genes } => {
                let of_genes = genes.as_ref().map(|genes| genes.encoder.forward_cells(x, covariates, pass));
                let parts: Vec<&Tensor> = of_genes.iter().chain(of_chains).collect();
                vec![latent(shared, &parts, pass)]
            }
        }
    }

    /// What latent states are decoded to: experts decode those of `to_rna` to expression and those of `to_tcr` to receptors, one after
    /// the other, which batch norm sees; a shared state is decoded to all there is.
    pub(super) fn decode(
        &self,
        (to_rna, to_tcr): (&[&Tensor], &[&Tensor]),
        tokens: Option<&Tensor>,
        covariates: &Covariates,
        pass: &mut Pass<'_>,
    ) -> Decoded {
        let units_of = |expert: &Expert, z: &Tensor, pass: &mut Pass<'_>| {
            expert.decoder.forward(&self.conditions.beside(&[z], covariates), covariates, pass)
        };
        let mut decoded = Decoded::default();
        match &self.shape {
            Shape::Experts { rna, tcr, genes } => {
                for z in to_rna {
                    let units = units_of(rna, z, pass);
                    decoded.rna.push(genes.decoder.forward(&units, covariates, pass));
                }
                for z in to_tcr {
                    let units = units_of(tcr, z, pass);
                    decoded.tcr.extend(tokens.map(|tokens| self.decode_chains(&units, tokens, pass)));
                }
            }
            Shape::Shared { shared, genes } => {
                for z in to_rna {
                    let units = units_of(shared, z, pass);
                    decoded.rna.extend(genes.as_ref().map(|genes| genes.decoder.forward(&units, covariates, pass)));
                    decoded.tcr.extend(tokens.map(|tokens| self.decode_chains(&units, tokens, pass)));
                }
            }
        }
        decoded
    }

    fn decode_chains(&self, units: &Tensor, tokens: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let chains = self.chains.iter().enumerate();
        let logits: Vec<Tensor> =
            chains.map(|(k, (_, decoder))| decoder.forward(units, &self.chain(Some(tokens), k), pass)).collect();
        Tensor::cat(&logits, 1)
    }

    /// The tokens of one chain, `[n, length]`.
    fn chain(&self, tokens: Option<&Tensor>, k: usize) -> Tensor {
        let tokens = tokens.expect("a network with chains is given tokens");
        tokens.narrow(1, k as i64 * self.length, self.length)
    }

    /// The tokens that are decoded: all but the first of each chain, `[n, n_chains * (length - 1)]`.
    pub(super) fn targets(&self, tokens: &Tensor) -> Tensor {
        let targets = (0..self.chains.len()).map(|k| self.chain(Some(tokens), k).narrow(1, 1, self.length - 1));
        Tensor::cat(&targets.collect::<Vec<_>>(), 1)
    }
}

impl Expert {
    fn new(
        b: &mut Builder<'_>,
        name: &str,
        config: &MvtcrConfig,
        n_units: usize,
        conditions: &Conditions,
    ) -> Result<Self> {
        let reversed: Vec<usize> = config.shared_hidden.iter().rev().copied().collect();
        let has_conditions = conditions.are_columns();
        let encoder = MlpOptions {
            hidden: &config.shared_hidden,
            activation: config.activation,
            output: MlpActivation::Linear,
            dropout: config.dropout,
            batch_norm: config.batch_norm,
            regularises_last: false,
            has_conditions,
        };
        let decoder = MlpOptions { hidden: &reversed, output: config.activation, regularises_last: true, ..encoder };
        let (heard, zdim) = (conditions.width(), config.zdim);
        Ok(Self {
            encoder: Mlp::new(b, &format!("{name}_encoder"), (n_units + heard, 2 * zdim), encoder)?,
            decoder: Mlp::new(b, &format!("{name}_decoder"), (zdim + heard, n_units), decoder)?,
        })
    }
}

impl Genes {
    /// Tensors `{name}_encoder.…` and `{name}_decoder.…`.
    fn new(b: &mut Builder<'_>, name: &str, config: &MvtcrConfig, (n_genes, n_in): (usize, usize)) -> Result<Self> {
        let reversed: Vec<usize> = config.gene_hidden.iter().rev().copied().collect();
        let encoder = MlpOptions {
            hidden: &config.gene_hidden,
            activation: config.gene_activation,
            output: config.gene_activation,
            dropout: config.gene_dropout,
            batch_norm: config.gene_batch_norm,
            regularises_last: true,
            has_conditions: false,
        };
        let decoder =
            MlpOptions { hidden: &reversed, output: MlpActivation::Linear, regularises_last: false, ..encoder };
        Ok(Self {
            encoder: Mlp::new(b, &format!("{name}_encoder"), (n_genes, config.hdim), encoder)?,
            decoder: Mlp::new(b, &format!("{name}_decoder"), (n_in, n_genes), decoder)?,
        })
    }
}

/// Product of two posteriors and a standard normal prior.
pub(super) fn product(one: &Latent, other: &Latent) -> Latent {
    let (p, q) = ((-&one.log_var).exp(), (-&other.log_var).exp());
    let log_var = -(&p + &q + 1.0).log();
    Latent { mean: (&one.mean * p + &other.mean * q) * log_var.exp(), log_var }
}
