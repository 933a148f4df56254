//! The network of Multigrate: inference, generative, loss.

use tch::{Kind, Tensor};

use super::{
    alignment::alignment,
    config::{self, MultigrateConfig, Release},
    covariates::Embeddings,
    decoder::{Decoded, Decoder, Measured, Theta},
    experts::{Latent, mixed},
    recipe,
};
use crate::{
    data::{
        Covariates, Dataset, Minibatch, RNA, Registry, SIZE_FACTOR, Slot,
        slot::{Matrix, Number},
    },
    error::Result,
    fast::{
        self, ColumnsSpec, Divergence, EncoderInput, HeadSpec, Mix, ModalitiesSpec, ModalitySpec, Unsupported, VaeSpec,
    },
    losses::LossTerms,
    model::{CountModel, Embedder, Module},
    nn::{Builder, CovariateSizes, Linear, Mode, Pass, Posterior, Stack, Weights},
    results::{Answer, Asked, Given},
    train::{Recipe, Run},
};

/// The network of Multigrate.
#[derive(Debug)]
pub struct MultigrateModule {
    config: MultigrateConfig,
    modalities: Vec<Modality>,
    embeddings: Embeddings,
    size_factor: Option<Slot<Number>>,
    weights: Weights,
}

/// What is built for one modality.
#[derive(Debug)]
struct Modality {
    /// Where its values are; gene expression has no slot.
    slot: Option<Slot<Matrix>>,
    encoder: Encoder,
    decoder: Decoder,
    /// Log inverse dispersion, for counts.
    theta: Option<Theta>,
}

#[derive(Debug)]
struct Encoder {
    body: Stack,
    mean: Linear,
    log_var: Linear,
}

/// What the encoders say about cells.
#[derive(Debug)]
pub struct Inference {
    /// By each modality alone, in order.
    pub marginal: Vec<Latent>,
    /// By all that a cell has.
    pub joint: Latent,
    /// What stands for the covariates of the cells.
    embedded: Tensor,
}

/// The terms of the loss, apart.
#[derive(Debug)]
pub struct MultigrateLoss {
    /// Of each modality, weighted, and 0 where a cell lacks it: `[n]` each.
    pub of_modalities: Vec<Tensor>,
    /// Their sum, `[n]`.
    pub reconstruction: Tensor,
    /// Divergence of the joint latent state, `[n]`.
    pub kl: Tensor,
    /// What pulls together, a scalar, without its weight.
    pub integ: Tensor,
}

impl MultigrateModule {
    /// Builds the network.
    ///
    /// # Errors  a modality that the reference's cells do not have, stored tensors that do not fit
    pub fn new(config: MultigrateConfig, registry: &Registry, n_genes: usize, mut b: Builder<'_>) -> Result<Self> {
        let mut panels = vec![(None, n_genes)];
        for name in &config.modalities {
            let slot = registry.slot::<Matrix>(name.as_str())?;
            panels.push((Some(slot), slot.width()));
        }
        let embeddings = Embeddings::new(&mut b, &config, registry)?;
        let width = embeddings.width(config.cond_dim);
        let modality = |(m, (slot, n_features)): (usize, (Option<Slot<Matrix>>, usize))| {
            let heard = |is_heard: bool| if is_heard { width } else { 0 };
            let n_in = n_features + heard(config.condition_encoders);
            let encoder = Encoder::new(&mut b, &config, m, n_in)?;
            let sizes = (config.z_dim + heard(config.condition_decoders), n_features);
            let decoder = Decoder::new(&mut b, &config, m, sizes)?;
            let theta =
                if config.loss(m).is_of_counts() { Some(Theta::new(&mut b, &config, m, n_features)?) } else { None };
            Ok(Modality { slot, encoder, decoder, theta })
        };
        let modalities = panels.into_iter().enumerate().map(modality).collect::<Result<_>>()?;
        let size_factor = registry.find(SIZE_FACTOR)?;
        if let Some(initialization) = config.initialization {
            // Of all maps, and not of tables, which have rows.
            b.draw_again(|name, size| match size {
                &[n_out, n_in] if name.ends_with(".weight") && !name.contains("_embeddings.") => {
                    Some(initialization.init(config.activation, (n_out, n_in)))
                }
                _ => None,
            });
        }
        Ok(Self { config, modalities, embeddings, size_factor, weights: b.finish() })
    }

    /// The options it was built with.
    pub fn config(&self) -> &MultigrateConfig {
        &self.config
    }

    /// What stands for the total count of each cell, `[n, 1]`.
    pub(super) fn size_factors(&self, minibatch: &Minibatch) -> Tensor {
        match self.size_factor {
            Some(slot) => minibatch.get(slot).shallow_clone(),
            None => minibatch.x.sum_dim_intlist([1_i64].as_slice(), true, minibatch.x.kind()),
        }
    }

    /// Inverse dispersion of a modality of counts, as cells of these covariates have it.
    pub(super) fn dispersion(&self, modality: usize, covariates: &Covariates) -> Option<Tensor> {
        let theta = self.modalities[modality].theta.as_ref()?;
        Some(theta.of_cells(&self.groups(covariates)).exp())
    }

    /// What stands for covariates, which may be others than the cells' own.
    pub(super) fn embedded(&self, minibatch: &Minibatch, covariates: &Covariates, pass: &mut Pass<'_>) -> Tensor {
        self.embeddings.of_cells(minibatch, covariates, pass)
    }

    /// 1 where the encoder of a modality counts, `[n, n_modalities]`. Values may be below 0: a modality that adds up to less is
    /// left out there, and in the loss of the current release it is not, as upstream.
    pub(super) fn encoded(&self, minibatch: &Minibatch) -> Tensor {
        self.present(minibatch, |sum| sum.gt(0.0))
    }

    /// Modalities of which no cell has a value, although their encoders are trained: names and nothing to learn from.
    pub(super) fn empty_modality(&self, dataset: &Dataset<'_>) -> Option<&str> {
        let is_trained = |m: usize| {
            let prefix = format!("encoders.{m}.");
            let mut own = self.weights.iter().filter(|(name, _)| name.starts_with(&prefix));
            own.any(|(_, weight)| weight.tensor.requires_grad())
        };
        let is_empty = |slot: Option<Slot<Matrix>>| dataset.values_of(slot).data().iter().all(|&value| value == 0.0);
        let mut found = self.modalities.iter().enumerate();
        let (m, _) = found.find(|(m, modality)| is_trained(*m) && is_empty(modality.slot))?;
        Some(if m == 0 { RNA } else { self.config.modalities[m - 1].as_str() })
    }

    /// The cells of a data set that have each modality, by the rule of the loss.
    pub(super) fn presence(&self, dataset: &Dataset<'_>) -> Vec<Vec<bool>> {
        let of = |modality: &Modality| {
            let values = dataset.values_of(modality.slot);
            let has = |sum: f64| match self.config.release {
                Release::Current => sum != 0.0,
                Release::Legacy => sum > 0.0,
            };
            values.row_sums().into_iter().map(has).collect()
        };
        self.modalities.iter().map(of).collect()
    }

    fn values<'a>(&self, minibatch: &'a Minibatch) -> Vec<&'a Tensor> {
        self.modalities.iter().map(|modality| modality.slot.map_or(&minibatch.x, |slot| minibatch.get(slot))).collect()
    }

    /// What the kernels are told about the networks, of which they may `decode` or encode only.
    fn spec(&self, decodes: bool) -> std::result::Result<VaeSpec, Unsupported> {
        let networks = self.modalities.iter().enumerate();
        let mut networks = networks.map(|(m, modality)| self.modality_spec(m, modality, decodes));
        let first = networks.next().expect("gene expression is always there")?;
        let of_each = self.modalities.iter().zip(&super::MODALITY_FIGURES).enumerate();
        let of_each = of_each.map(|(m, (modality, (figure, _)))| ModalitySpec {
            slot: modality.slot,
            weight: self.config.modality_coef(m),
            figure,
        });
        let modalities = ModalitiesSpec {
            of_each: of_each.collect(),
            others: networks.collect::<std::result::Result<_, _>>()?,
            mix: match self.config.mix {
                config::Mix::Product => Mix::Product,
                config::Mix::Mixture => Mix::Mean,
            },
            weight: self.config.recon_coef,
            measured: match self.config.release {
                Release::Current => fast::Measured::WhereNotZero,
                Release::Legacy => fast::Measured::WhereAboveZero,
            },
            totals: self.size_factor,
        };
        Ok(VaeSpec { modalities: Some(modalities), ..first })
    }

    fn modality_spec(&self, m: usize, modality: &Modality, decodes: bool) -> std::result::Result<VaeSpec, Unsupported> {
        let (mut encoder, decoder) = (modality.encoder.body.spec()?, modality.decoder.spec()?);
        let mut layers = decoder.layers;
        let hears =
            [(self.config.condition_encoders, &mut encoder[0]), (self.config.condition_decoders, &mut layers[0])];
        for (_, first) in hears.into_iter().filter(|(hears, _)| *hears) {
            first.n_in -= self.embeddings.width(self.config.cond_dim);
            first.columns = Some(ColumnsSpec::Beside(self.embeddings.spec()?));
        }
        let theta = modality.theta.as_ref().filter(|_| decodes);
        Ok(VaeSpec {
            n_genes: modality.slot.map_or(encoder[0].n_in, |slot| slot.width()),
            n_latent: self.config.z_dim,
            encoder,
            mean: modality.encoder.mean.spec().0,
            var: modality.encoder.log_var.spec().0,
            variance_floor: 0.0,
            divergence: Divergence::Times(self.config.kl_coef),
            decoder: layers,
            head: HeadSpec::Full(decoder.head),
            dropout: decoder.dropout,
            log_r: theta.map(|theta| theta.spec(m)).transpose()?,
            reconstruction: decoder.reconstruction,
            input: EncoderInput::Count,
            discrepancy: None,
            anchors: None,
            labels: None,
            modalities: None,
        })
    }

    /// 1 where a cell has a modality, `[n, n_modalities]`, as told by the sum of its values.
    fn present(&self, minibatch: &Minibatch, has: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let sums = self.values(minibatch).into_iter().map(|x| x.sum_dim_intlist([1_i64].as_slice(), true, x.kind()));
        Tensor::cat(&sums.map(|sum| has(&sum).to_kind(sum.kind())).collect::<Vec<_>>(), 1)
    }

    /// Posteriors of the cells and one draw from each: of the modalities in order, then of the joint one.
    pub fn inference(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Inference {
        let embedded = self.embedded(minibatch, &minibatch.covariates, pass);
        let beside = self.config.condition_encoders.then_some(&embedded);
        let mut marginal = Vec::with_capacity(self.modalities.len());
        for (modality, x) in self.modalities.iter().zip(self.values(minibatch)) {
            let (mean, log_var) = modality.encoder.forward(x, beside, pass);
            let noise = pass.noise.normal("modality", &mean.size(), mean.device());
            marginal.push(Latent::drawn(mean, log_var, &noise));
        }
        let present = self.encoded(minibatch);
        let (mean, log_var) = mixed(self.config.mix, &marginal, &present);
        let noise = pass.noise.normal("z", &mean.size(), mean.device());
        Inference { marginal, joint: Latent::drawn(mean, log_var, &noise), embedded }
    }

    /// Decodes latent states to every modality, in order.
    pub fn generative(&self, z: &Tensor, inference: &Inference, pass: &mut Pass<'_>) -> Vec<Decoded> {
        self.decoded(z, &inference.embedded, pass)
    }

    /// The same, of cells of other covariates.
    pub(super) fn decoded(&self, z: &Tensor, embedded: &Tensor, pass: &mut Pass<'_>) -> Vec<Decoded> {
        let input = if self.config.condition_decoders { Tensor::cat(&[z, embedded], 1) } else { z.shallow_clone() };
        self.modalities.iter().map(|modality| modality.decoder.forward(&input, pass)).collect()
    }

    /// The group of each cell, `[n]`.
    fn groups(&self, covariates: &Covariates) -> Tensor {
        match self.config.integrates_on() {
            Some(key) => covariates.axes[key].shallow_clone(),
            None => covariates.condition.zeros_like(),
        }
    }

    /// The terms of the loss of each cell. In evaluation, which is how surgery of a site trains, nothing pulls together.
    pub fn loss_terms(
        &self,
        minibatch: &Minibatch,
        inference: &Inference,
        decoded: &[Decoded],
        mode: Mode,
    ) -> MultigrateLoss {
        let size_factor = self.size_factors(minibatch);
        let groups = self.groups(&minibatch.covariates);
        let present = self.present(minibatch, |sum| match self.config.release {
            Release::Current => sum.ne(0.0),
            Release::Legacy => sum.gt(0.0),
        });
        let of_modality = |(m, (modality, x)): (usize, (&Modality, &Tensor))| {
            let weights = present.select(1, m as i64) * self.config.modality_coef(m);
            let measured = Measured { x, size_factor: &size_factor, groups: &groups, weights: &weights };
            decoded[m].reconstruction(&measured, modality.theta.as_ref())
        };
        let pairs = self.modalities.iter().zip(self.values(minibatch));
        let of_modalities: Vec<Tensor> = pairs.enumerate().map(of_modality).collect();
        let reconstruction = of_modalities.iter().fold(of_modalities[0].zeros_like(), |sum, one| sum + one);
        let joint = &inference.joint;
        let kl = ((joint.log_var.exp() + joint.mean.square() - 1.0 - &joint.log_var) * 0.5).sum_dim_intlist(
            [-1_i64].as_slice(),
            false,
            joint.mean.kind(),
        );
        let integ = if self.config.integ() > 0.0 && mode == Mode::Training {
            alignment(&self.config, joint, &inference.marginal, &present, &groups)
        } else {
            Tensor::zeros([], (kl.kind(), kl.device()))
        };
        MultigrateLoss { of_modalities, reconstruction, kl, integ }
    }
}

impl MultigrateLoss {
    /// What the optimiser minimises, with the warm-up weight of the divergence; a scalar.
    pub fn total(&self, kl_weight: f64, config: &MultigrateConfig) -> Tensor {
        let per_cell = &self.reconstruction * config.recon_coef + &self.kl * (kl_weight * config.kl_coef);
        per_cell.mean(None::<Kind>) + &self.integ * config.integ()
    }
}

impl Encoder {
    /// Tensors `encoders.{m}.…`, `mus.{m}.…` and `logvars.{m}.…`.
    fn new(b: &mut Builder<'_>, config: &MultigrateConfig, m: usize, n_in: usize) -> Result<Self> {
        let (n, none) = (config.z_dim, CovariateSizes::none());
        Ok(Self {
            body: Stack::new(b, &format!("encoders.{m}.mlp"), n_in, &config.encoder(m))?,
            mean: Linear::new(b, &format!("mus.{m}"), n, n, &none)?,
            log_var: Linear::new(b, &format!("logvars.{m}"), n, n, &none)?,
        })
    }

    fn forward(&self, x: &Tensor, beside: Option<&Tensor>, pass: &mut Pass<'_>) -> (Tensor, Tensor) {
        let none = Covariates::none(x);
        let hidden = self.body.forward_beside(x, beside, pass);
        (self.mean.forward(&hidden, &none), self.log_var.forward(&hidden, &none))
    }
}

impl Module for MultigrateModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, pass: &mut Pass<'_>) -> LossTerms {
        let inference = self.inference(minibatch, pass);
        let decoded = self.generative(&inference.joint.z, &inference, pass);
        let terms = self.loss_terms(minibatch, &inference, &decoded, pass.mode);
        let loss = terms.total(kl_weight, &self.config);
        let names = super::MODALITY_FIGURES.iter().map(|(name, _)| *name);
        let of_modalities = names.zip(terms.of_modalities);
        let further = of_modalities.chain([(super::INTEG, terms.integ)]).collect();
        LossTerms { loss, reconstruction: terms.reconstruction, kl_local: terms.kl, further, latent: None }
    }

    fn train_spec(&self) -> std::result::Result<VaeSpec, Unsupported> {
        if self.config.pulls_together() {
            return Err(Unsupported("something pulls groups or modalities together"));
        }
        self.spec(true)
    }

    fn recipe<'a>(&'a self, run: Run<'a, '_>) -> Result<Recipe<'a>> {
        recipe::of_run(self, run)
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }

    /// Where genes are counts; other values are imputed.
    fn as_count_model(&self) -> Option<&dyn CountModel> {
        self.config.loss(0).is_of_counts().then_some(self as &dyn CountModel)
    }

    fn answer(&self, question: &str, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
        self.answered(question, asked, given)
    }
}

impl Embedder for MultigrateModule {
    fn posterior_spec(&self) -> std::result::Result<VaeSpec, Unsupported> {
        self.spec(false)
    }

    /// The joint posterior; upstream's representation is a draw from it.
    fn posterior(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Posterior {
        match &minibatch.minified {
            Some(kept) => Posterior::kept(kept),
            None => {
                let joint = self.inference(minibatch, pass).joint;
                Posterior { mean: joint.mean, var: joint.log_var.exp() }
            }
        }
    }
}
