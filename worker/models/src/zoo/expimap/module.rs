//! The network of expiMap: inference, generative, loss.

use archipelago_common::{ConditionKey, part::Contribution};
use tch::{Kind, Tensor};

use super::{
    Configuration,
    config::{ExpimapConfig, LastLayer},
    contributed::{self, Contributed},
    new_terms::{NewTerms, Whose},
    recipe,
    terms::Term,
    weights::{Masked, Outside},
};
use crate::{
    data::{Covariates, Dataset, GENE_SETS, Minibatch, Registry, slot},
    error::{Error, Result},
    fast::{
        Divergence, HeadSpec, Link, LogDispersionSpec, MaskedSpec, PosteriorSpec, ReconstructionSpec, Unsupported,
        VaeSpec,
    },
    losses::{LossTerms, hsic},
    model::{CountModel, Embedder, Module},
    nn::{Builder, DispersionBy, Init, LogDispersion, Pass, Posterior, Role, VARIANCE_FLOOR, Weights, rows_of},
    results::{Answer, Asked, Given},
    train::{Recipe, Run},
    zoo::family::{Condition, Encoder, Output, library},
};

/// The network of expiMap. Its latent state has a number for each term: those with gene sets, then the reference's new ones, then those
/// of the site that maps, then those that came with conditions.
#[derive(Debug)]
pub struct ExpimapModule {
    config: ExpimapConfig,
    /// Log inverse dispersion, a column per condition; none for a squared difference.
    theta: Option<LogDispersion>,
    encoder: Encoder,
    library: Option<Encoder>,
    pub(super) annotated: Masked,
    /// New terms in the order of the latent state.
    pub(super) added: Vec<NewTerms>,
    /// Those that act on the cells of one condition each, in the order of the latent state.
    pub(super) contributed: Vec<Contributed>,
    /// The decoder's column of each condition, `[n_conditions, n_genes]`.
    condition: Tensor,
    terms: Vec<Term>,
    /// The factor of the group lasso of each annotated term.
    pub(super) omega: Option<Vec<f64>>,
    weights: Weights,
}

/// What the encoder says about cells.
#[derive(Debug)]
pub struct Inference {
    /// Posterior of the latent state.
    pub qz: Posterior,
    /// A draw from it, `[n, n_latent]`: upstream draws in evaluation too.
    pub z: Tensor,
}

/// What the decoder makes of latent states.
#[derive(Debug)]
pub struct Decoded {
    /// The sum of the terms' contributions, before the last layer: upstream's `y`.
    pub linear: Tensor,
    /// What the loss takes.
    pub output: Output,
}

/// The terms of the loss, apart.
#[derive(Debug)]
pub struct ExpimapLoss {
    /// Reconstruction loss per cell, `[n]`.
    pub reconstruction: Tensor,
    /// Divergence of the latent state, `[n]`.
    pub kl: Tensor,
    /// How much new terms and the others tell about each other, a scalar; none where that is not asked for.
    pub hsic: Option<Tensor>,
}

impl ExpimapModule {
    /// Builds the network.
    ///
    /// # Errors  [`Error::MissingField`] without gene sets, stored tensors that do not fit
    pub fn new(configuration: &Configuration, registry: &Registry, n_genes: usize, mut b: Builder<'_>) -> Result<Self> {
        let config = &configuration.reference;
        let slot = registry.slot::<slot::GeneSets>(GENE_SETS)?;
        let sets = registry.remembered::<slot::GeneSets>(GENE_SETS).expect("there is a slot of it");
        if sets.n_genes() != n_genes {
            let (found, expected) = (format!("of {} genes", sets.n_genes()), format!("of the panel's {n_genes}"));
            return Err(Error::Value { part: "the gene sets".to_owned(), found, expected });
        }
        let theta = match config.recon_loss.likelihood() {
            Some(_) => {
                let (by, none) = (DispersionBy::Condition, Registry::default());
                Some(LogDispersion::new(&mut b, "theta", n_genes, by, &none, Init::Normal)?)
            }
            None => None,
        };
        let (blocks, hidden) = (config.blocks(), &config.hidden_layer_sizes);
        let encoder = Encoder::new(&mut b, "encoder", n_genes, hidden, slot.width(), &blocks)?;
        let library = match config.use_l_encoder {
            true => Some(Encoder::new(&mut b, "l_encoder", n_genes, &[LIBRARY_UNITS], 1, &blocks)?),
            false => None,
        };
        let outside = Outside::of(config.soft_mask);
        let annotated = Masked::new(&mut b, ANNOTATED, sets, Role::Parameter, outside)?;
        let init = Init::FanIn(b.n_all_conditions());
        let condition = b.condition_rows(CONDITION_COLUMNS, &[n_genes], Role::Condition, init)?;
        let mut added = Vec::new();
        let n_hidden = hidden[hidden.len() - 1];
        if let Some(wanted) = configuration.of_reference(registry, n_genes)? {
            let outside = Outside::of(config.soft_ext_mask);
            added.push(NewTerms::new(&mut b, Whose::Reference, &wanted, n_hidden, outside)?);
        }
        if let Some(wanted) = configuration.of_site(n_genes) {
            let outside = Outside::of(configuration.in_force().soft_ext_mask);
            added.push(NewTerms::new(&mut b, Whose::Site, &wanted, n_hidden, outside)?);
        }
        let of_condition = |(key, wanted): &(_, _)| Contributed::new(&mut b, key, wanted, (n_genes, n_hidden));
        let contributed = configuration.contributed.iter().map(of_condition).collect::<Result<Vec<_>>>()?;
        let terms = Term::all(sets, &added, &contributed);
        let omega = config.omega_of(sets.terms())?;
        let config = configuration.in_force().clone();
        let weights = b.finish();
        Ok(Self { config, theta, encoder, library, annotated, added, contributed, condition, terms, omega, weights })
    }

    /// The options in force: of a query's mapping, its own.
    pub fn config(&self) -> &ExpimapConfig {
        &self.config
    }

    /// The terms, one for each number of the latent state.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// All new terms, in the order of the latent state.
    pub(super) fn new_terms(&self) -> impl Iterator<Item = &NewTerms> {
        self.added.iter().chain(self.contributed.iter().map(|contributed| &contributed.terms))
    }

    /// How many numbers of the latent state are every cell's, before those that came with conditions.
    pub(super) fn n_shared(&self) -> i64 {
        self.terms.len() as i64 - self.contributed.iter().map(Contributed::n_terms).sum::<i64>()
    }

    /// Posteriors of the cells and one draw from each.
    pub fn inference(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Inference {
        let qz = self.posterior(minibatch, pass);
        let (n, device) = (qz.mean.size()[0], qz.mean.device());
        let mut noise = vec![pass.noise.normal("z", &[n, self.n_shared()], device)];
        for terms in &self.contributed {
            // Only where it counts: what a condition brought does not change the numbers drawn for the cells of others.
            let is_own = terms.is_own(&minibatch.covariates).gt(0.0).any().int64_value(&[]) != 0;
            let shape = [n, terms.n_terms()];
            noise.push(match is_own {
                true => pass.noise.normal("z", &shape, device),
                false => Tensor::zeros(shape, (Kind::Float, device)),
            });
        }
        let noise = Tensor::cat(&noise, 1);
        let z = qz.sample(&noise);
        Inference { qz, z }
    }

    /// A draw of the total count of each cell, `[n, 1]`; the count itself where no encoder learns it.
    pub fn totals(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor {
        match self.learnt_totals(minibatch, pass) {
            None => library(minibatch),
            Some(ql) => ql.sample(&pass.noise.normal("l", &ql.mean.size(), ql.mean.device())).exp(),
        }
    }

    /// The posterior of the logarithm of the total count, where an encoder learns it.
    pub(super) fn learnt_totals(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Option<Posterior> {
        let encoder = self.library.as_ref()?;
        Some(encoder.forward(&minibatch.x.log1p(), Condition::Codes(&minibatch.covariates), pass))
    }

    /// Decodes latent states. `covariates` may name other conditions than the cells' own.
    pub fn generative(&self, z: &Tensor, totals: &Tensor, covariates: &Covariates) -> Decoded {
        let mut start = self.annotated.mask.size()[1];
        let known = self.annotated.forward(&z.narrow(1, 0, start)) + rows_of(&self.condition, covariates);
        let mut of_next = |n_terms: i64| {
            start += n_terms;
            z.narrow(1, start - n_terms, n_terms)
        };
        let linear = self
            .added
            .iter()
            .fold(known, |linear, added| linear + added.forward(&of_next(added.wanted().n_terms() as i64)));
        let linear = self.contributed.iter().fold(linear, |linear, contributed| {
            linear + contributed.forward(&of_next(contributed.n_terms()), covariates)
        });
        let last = |linear: &Tensor| match self.config.last_layer() {
            LastLayer::Softmax => linear.softmax(-1, Kind::Float),
            LastLayer::Identity => linear.shallow_clone(),
            LastLayer::Softplus => linear.softplus(),
            LastLayer::Exp => linear.exp(),
            LastLayer::Relu => linear.relu(),
        };
        let output = last(&linear);
        let output = match self.config.recon_loss.likelihood() {
            None => Output::Values(output),
            Some(_) if self.config.last_layer() == LastLayer::Softmax => {
                let rate = &output * totals;
                Output::Counts { share: output, rate, dropout: None }
            }
            Some(_) => {
                let sums = output.sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float);
                Output::Counts { share: &output / (sums + SMALLEST_SUM), rate: output, dropout: None }
            }
        };
        Decoded { linear, output }
    }

    /// Inverse dispersion of each cell's genes, where there is one.
    pub fn dispersion(&self, minibatch: &Minibatch, covariates: &Covariates) -> Option<Tensor> {
        self.theta.as_ref().map(|theta| theta.select(minibatch, covariates).exp())
    }

    /// The terms of the loss of each cell.
    pub fn loss_terms(&self, minibatch: &Minibatch, inference: &Inference, decoded: &Decoded) -> ExpimapLoss {
        let theta = self.dispersion(minibatch, &minibatch.covariates);
        let n_free = self.added.last().map_or(0, |added| added.wanted().n_free);
        let hsic = (self.config.use_hsic && n_free > 0).then(|| {
            let z = inference.z.narrow(1, 0, self.n_shared());
            match self.config.hsic_one_vs_all {
                true => hsic::one_against_all(&z, n_free),
                false => hsic::together(&z, n_free),
            }
        });
        ExpimapLoss {
            reconstruction: decoded.output.loss(&minibatch.x, theta.as_ref()),
            kl: self.divergence(&inference.qz, &minibatch.covariates),
            hsic,
        }
    }

    /// The divergence of the latent state of each cell, `[n]`, over the terms that decode it.
    fn divergence(&self, qz: &Posterior, covariates: &Covariates) -> Tensor {
        let terms = |start, n| Posterior { mean: qz.mean.narrow(1, start, n), var: qz.var.narrow(1, start, n) };
        let mut start = self.n_shared();
        self.contributed.iter().fold(terms(0, start).kl_standard_normal(), |sum, contributed| {
            start += contributed.n_terms();
            sum + contributed.divergence(&terms(start - contributed.n_terms(), contributed.n_terms()), covariates)
        })
    }

    /// What is known of the terms that decode each cell: for the others the prior, at its middle.
    pub(super) fn decoding(&self, inference: Inference, covariates: &Covariates) -> Inference {
        if self.contributed.is_empty() {
            return inference;
        }
        let mut is_on = vec![Tensor::ones([1, self.n_shared()], (Kind::Float, inference.z.device()))];
        let of_terms = |terms: &Contributed| terms.is_own(covariates).repeat([1, terms.n_terms()]);
        is_on.extend(self.contributed.iter().map(of_terms));
        let n = is_on.iter().map(|part| part.size()[0]).max().unwrap_or(1);
        let is_on: Vec<Tensor> = is_on.iter().map(|part| part.expand([n, -1], false)).collect();
        let is_on = Tensor::cat(&is_on, 1);
        let Inference { qz: Posterior { mean, var }, z } = inference;
        let var = var * &is_on + (is_on.ones_like() - &is_on);
        Inference { qz: Posterior { mean: mean * &is_on, var }, z: z * is_on }
    }

    /// What the optimiser minimises, where `warmup` is the share of the divergence's weight; a scalar.
    pub fn total(&self, terms: &ExpimapLoss, warmup: f64) -> Tensor {
        let loss = (&terms.reconstruction + &terms.kl * (warmup * self.config.alpha_kl)).mean(Kind::Float);
        match &terms.hsic {
            Some(hsic) => loss + hsic * self.config.beta,
            None => loss,
        }
    }
}

impl Module for ExpimapModule {
    fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Numbers that upstream draws for weights outside the sets are none of the model's.
    fn prepare(&self, _: &Dataset<'_>, _: &[ConditionKey]) -> Result<()> {
        let added = self.added.iter().filter_map(|added| added.constrained.as_ref());
        std::iter::once(&self.annotated).chain(added).for_each(Masked::hold);
        Ok(())
    }

    /// The new terms of a site that maps.
    fn contributions(&self, _: &Dataset<'_>, cells: &[usize]) -> Result<Vec<Contribution>> {
        Ok(contributed::of_site(self.weights.local(), cells).into_iter().collect())
    }

    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, pass: &mut Pass<'_>) -> LossTerms {
        let inference = self.inference(minibatch, pass);
        let totals = self.totals(minibatch, pass);
        let decoded = self.generative(&inference.z, &totals, &minibatch.covariates);
        let terms = self.loss_terms(minibatch, &inference, &decoded);
        let loss = self.total(&terms, kl_weight);
        let further = terms.hsic.map(|hsic| (hsic::FIGURE, hsic)).into_iter().collect();
        LossTerms { loss, reconstruction: terms.reconstruction, kl_local: terms.kl, further, latent: None }
    }

    fn as_count_model(&self) -> Option<&dyn CountModel> {
        Some(self)
    }

    fn recipe<'a>(&'a self, run: Run<'a, '_>) -> Result<Recipe<'a>> {
        recipe::of_run(self, run)
    }

    fn train_spec(&self) -> Result<VaeSpec, Unsupported> {
        if self.new_terms().next().is_some() {
            return Err(Unsupported("there are new terms"));
        }
        if self.library.is_some() {
            return Err(Unsupported("the total count is learnt"));
        }
        let reconstruction = match (self.config.recon_loss.spec()?, self.config.last_layer()) {
            (counts @ ReconstructionSpec::Counts(_), LastLayer::Softmax) => counts,
            (ReconstructionSpec::Counts(_), _) => {
                return Err(Unsupported("expected counts are no shares of the total"));
            }
            (ReconstructionSpec::Squared { .. }, last) => {
                let link = match last {
                    LastLayer::Softmax => return Err(Unsupported("shares are compared with values")),
                    LastLayer::Identity => Link::Identity,
                    LastLayer::Softplus => Link::Softplus,
                    LastLayer::Exp => Link::Exp,
                    LastLayer::Relu => Link::Relu,
                };
                ReconstructionSpec::Squared { link, is_mean: false }
            }
        };
        let PosteriorSpec { layers: encoder, mean, var } = self.encoder.spec()?;
        let [n_genes, n_latent] = self.annotated.mask.size()[..] else { unreachable!("a mask is a matrix") };
        let columns = Some(CONDITION_COLUMNS.to_owned());
        Ok(VaeSpec {
            n_genes: n_genes as usize,
            n_latent: n_latent as usize,
            encoder,
            mean,
            var,
            variance_floor: VARIANCE_FLOOR,
            divergence: Divergence::Times(self.config.alpha_kl),
            decoder: Vec::new(),
            head: HeadSpec::Masked(MaskedSpec { columns, ..self.annotated.spec() }),
            dropout: None,
            log_r: self.theta.as_ref().map(|_| LogDispersionSpec::Condition("theta.condition".to_owned())),
            reconstruction,
            input: self.config.recon_loss.input_spec(),
            discrepancy: None,
            anchors: None,
            labels: None,
            modalities: None,
        })
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }

    fn answer(&self, question: &str, asked: &Asked<'_>, given: &Given) -> Result<Answer> {
        super::questions::answer(self, question, asked, given)
    }
}

impl Embedder for ExpimapModule {
    fn posterior(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Posterior {
        if let Some(kept) = &minibatch.minified {
            return Posterior::kept(kept);
        }
        let input = self.config.recon_loss.encoder_input(&minibatch.x);
        let hidden = self.encoder.hidden(&input, Condition::Codes(&minibatch.covariates), pass);
        let all = |first: Posterior, next: Posterior| Posterior {
            mean: Tensor::cat(&[first.mean, next.mean], 1),
            var: Tensor::cat(&[first.var, next.var], 1),
        };
        self.new_terms().fold(self.encoder.heads(&hidden), |qz, terms| all(qz, terms.posterior(&hidden)))
    }

    /// Upstream's `y`: the genes before the last layer.
    fn first_decoded(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Option<Tensor> {
        let z = self.inference(minibatch, pass).z;
        let totals = self.totals(minibatch, pass);
        Some(self.generative(&z, &totals, &minibatch.covariates).linear)
    }
}

/// The weights of the terms with gene sets.
pub(super) const ANNOTATED: &str = "decoder.L0.expr_L.weight";
/// The decoder's columns of conditions.
const CONDITION_COLUMNS: &str = "decoder.L0.cond_L.weight.condition";
/// Units of the total count's encoder.
pub(super) const LIBRARY_UNITS: usize = 128;
/// Keeps shares finite where nothing is expected of any gene.
const SMALLEST_SUM: f64 = 1e-8;
