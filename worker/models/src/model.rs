//! The seam between the zoo and everything generic: training, surgery, evaluation.
//!
//! A [`Model`] is a kind of network that the zoo lists; with its options it is a [`Configured`] model, which builds [`Module`]s.
//! A module knows tensors only, and says by further traits what it can be asked: an [`Embedder`] for places of cells, a
//! [`CountModel`] for decoded counts. Whoever trains, maps or evaluates works with these traits and never with a concrete model.

use std::{collections::BTreeMap, fmt};

use archipelago_common::{ConditionKey, Figure, Layout, StateDict, part::Contribution};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tch::Tensor;

use crate::{
    data::{Covariates, Dataset, Field, Minibatch, Registry},
    error::{Error, Result},
    extension::Extension,
    fast::{Unsupported, VaeSpec},
    losses::LossTerms,
    nn::{Builder, Pass, Posterior, Weights},
    options::OptionCard,
    parts::Parts,
    results::{Answer, Asked, Block, BlockCard, Given, QuestionCard},
    start::Drawn,
    surgery::upstream::{Flags, UpstreamRules},
    train::{Recipe, Run, TrainDefaults, Watched},
    upstream::Upstream,
};

/// Options of a model, by name; sorted, so that equal options are equal bytes.
pub type Config = BTreeMap<String, Value>;

/// What a person should know about a model before choosing it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ModelCard {
    /// Name in the zoo and on the command line.
    pub name: &'static str,
    /// The name the field uses.
    pub title: &'static str,
    /// Where it was published.
    pub paper: &'static str,
    /// What it is for, in one sentence.
    pub purpose: &'static str,
    /// How its surgery behaves in a federation.
    pub federation: &'static str,
    /// How its authors train it.
    pub training: TrainDefaults,
    /// Arguments of `train` that show it at work.
    pub example: &'static str,
}

/// A kind of network in the zoo.
pub trait Model: Sync {
    /// Its card.
    fn card(&self) -> ModelCard;

    /// Every option.
    fn options(&self) -> Vec<OptionCard>;

    /// The model with these options; those that are not given have their defaults.
    ///
    /// # Errors  [`Error::Config`] naming the option
    fn configure(&self, options: &Config) -> Result<Box<dyn Configured>>;

    /// Options that map well, where they are not the defaults: what the field's surgery tutorials use.
    fn options_for_surgery(&self) -> Config {
        Config::new()
    }

    /// Options drawn at random from those that its authors search among; nothing for a model that nobody has searched.
    fn trial(&self, _rng: &mut ChaCha8Rng) -> Option<Trial> {
        None
    }

    /// The options that a query can be mapped with, to add something to the model that its site keeps.
    fn options_of_query(&self) -> &'static [&'static str] {
        &[]
    }

    /// The options that a query can be mapped with by upstream's surgery; the reference that comes of it has them.
    fn options_of_upstream_query(&self) -> &'static [&'static str] {
        self.options_of_query()
    }

    /// The model with the options of a reference and with what a site adds.
    ///
    /// # Errors  [`Error::Config`] for an addition that it does not take
    fn extended(&self, options: &Config, extension: &Extension) -> Result<Box<dyn Configured>> {
        match extension.is_empty() {
            true => self.configure(options),
            false => Err(Error::Config { model: self.card().name, detail: NOT_EXTENDED.to_owned() }),
        }
    }

    /// The model with the options of a reference and with what sites have added, as [kept](crate::kept) tensors tell.
    ///
    /// # Errors  [`Error::Config`] naming the option
    fn with_kept(&self, options: &Config, _kept: &StateDict) -> Result<Box<dyn Configured>> {
        self.configure(options)
    }

    /// The model and the fields of a reference that upstream's surgery gives this addition, to be part of a new reference.
    ///
    /// # Errors  [`Error::Config`] for an addition that it does not take
    fn grown(
        &self,
        options: &Config,
        registry: Registry,
        extension: &Extension,
    ) -> Result<(Box<dyn Configured>, Registry)> {
        Ok((self.extended(options, extension)?, registry))
    }

    /// What these flags mean to upstream's surgery of this model; nothing for a model that has none.
    fn upstream_rules(&self, _flags: &Flags) -> Option<Box<dyn UpstreamRules>> {
        None
    }

    /// What it is in the package that it comes from.
    fn upstream(&self) -> Option<Upstream> {
        None
    }

    /// What only it can be asked; its modules [answer](Module::answer).
    fn questions(&self) -> &'static [QuestionCard] {
        &[]
    }

    /// Parts by whose members cells are mapped: a site fetches them before it maps.
    fn maps_by(&self) -> &'static [&'static str] {
        &[]
    }

    /// Parts of what a site that maps keeps for itself. Such a part leaves where a task asks for it and the site's policy lets it, and is
    /// in no directory that `map` writes. A module of a version that holds some is built [with](Self::with_kept) all of them.
    fn kept_parts(&self) -> &'static [&'static str] {
        &[]
    }

    /// The model whose trained references it can start from.
    fn starts_from(&self) -> Option<&'static str> {
        None
    }
}

/// Options to try, for a search.
#[derive(Clone, PartialEq, Debug)]
pub struct Trial {
    /// Options of the model.
    pub options: Config,
    /// The learning rate.
    pub rate: f64,
}

/// A model with its options: read once, then asked.
pub trait Configured: fmt::Debug {
    /// All options by name, defaults included.
    fn options(&self) -> Config;

    /// What it takes of a cell, beside its condition.
    fn fields(&self) -> Vec<Field>;

    /// Whether surgery can move a query's embedding.
    fn moves_embedding(&self) -> bool;

    /// Whether the library size is learnt from the counts, and not their total.
    fn learns_library(&self) -> bool {
        false
    }

    /// Says what its options leave to the number of genes, as it is for so many: over fewer genes its network is otherwise the same.
    fn settle(&mut self, _n_genes: usize) {}

    /// The tensors that upstream draws for a new model with so many conditions, in its order; `None` where it is not known,
    /// and the model starts from numbers of our own.
    fn upstream_start(&self, _registry: &Registry, _n_genes: usize, _n_conditions: usize) -> Option<Vec<Drawn>> {
        None
    }

    /// What it reports of a fit. Every module's [`LossTerms`] have the usual ones; further ones are there by their names.
    fn figures(&self) -> &'static [Figure] {
        &Figure::USUAL
    }

    /// The figure by which the best state is told, and the best of several runs.
    fn chosen_by(&self) -> Watched {
        Watched::LOSS
    }

    /// What versions over its references hold: what the module's tensors say, and what the model adds to it (parts, values
    /// derived from them, that surgery trains nothing and why).
    fn layout(&self, of_tensors: Layout) -> Layout {
        of_tensors
    }

    /// The tensors of a reference, with room for what upstream's surgery adds to it; `fresh` are those of a new module.
    ///
    /// # Errors  tensors that do not fit
    fn enlarged(&self, before: &StateDict, _fresh: &StateDict) -> Result<StateDict> {
        Ok(before.clone())
    }

    /// Builds a module from fresh or stored tensors.
    ///
    /// # Errors  covariates or tensors that do not fit
    fn build(&self, registry: &Registry, n_genes: usize, builder: Builder<'_>) -> Result<Box<dyn Module>>;
}

/// A network: tensors in, tensors out.
pub trait Module {
    /// Its tensors by name.
    fn weights(&self) -> &Weights;

    /// Computes what follows from the cells and is not trained, such as priors per condition; before training. `keys` are those of the
    /// conditions, by code.
    ///
    /// # Errors  cells that give no prior, naming their condition
    fn prepare(&self, _dataset: &Dataset<'_>, _keys: &[ConditionKey]) -> Result<()> {
        Ok(())
    }

    /// The loss, with the warm-up weight of the KL term.
    fn loss(&self, minibatch: &Minibatch, kl_weight: f64, pass: &mut Pass<'_>) -> LossTerms;

    /// How it wants to be trained, beside its plan.
    ///
    /// # Errors  what makes a run impossible
    fn recipe<'a>(&'a self, _run: Run<'a, '_>) -> Result<Recipe<'a>> {
        Ok(Recipe::default())
    }

    /// What these cells, all of one condition, contribute to the parts that the model's layout declares, after training: at most
    /// one contribution a part. The same for the same cells and tensors, to the last bit.
    ///
    /// # Errors  numbers that no part can hold
    fn contributions(&self, _dataset: &Dataset<'_>, _cells: &[usize]) -> Result<Vec<Contribution>> {
        Ok(Vec::new())
    }

    /// Where mapped cells come to lie among those of the reference, `[n_cells, n_latent]`, for a model that maps by what
    /// [parts](Model::maps_by) say; by default where its encoder puts them. Each condition's cells as if no others were there.
    ///
    /// # Errors  fields that the model needs for it, parts that make no sense
    fn place(&self, latent: Array2<f32>, _dataset: &Dataset<'_>, _parts: &Parts) -> Result<Array2<f32>> {
        Ok(latent)
    }

    /// What the kernels are told about it, to train and evaluate it without autograd.
    ///
    /// # Errors  why they cannot
    fn train_spec(&self) -> Result<VaeSpec, Unsupported> {
        Err(Unsupported("the model has no description for the kernels"))
    }

    /// The part that gives cells a place in a latent space, for a module that does.
    fn as_embedder(&self) -> Option<&dyn Embedder> {
        None
    }

    /// The model inside that decodes latent states, for a module that does.
    fn as_count_model(&self) -> Option<&dyn CountModel> {
        None
    }

    /// The answer to one of the model's own questions, which `asked` asks of this module.
    ///
    /// # Errors  [`Error::NotAnswered`], [`Error::Argument`], and what the computation failed with
    fn answer(&self, question: &str, _asked: &Asked<'_>, _given: &Given) -> Result<Answer> {
        Err(Error::NotAnswered { question: question.to_owned() })
    }

    /// The classifier inside, for a module that learns and predicts labels.
    fn as_label_model(&self) -> Option<&dyn LabelModel> {
        None
    }
}

/// A module that gives cells a place in a latent space.
pub trait Embedder: Module {
    /// The posterior of each cell's latent state.
    fn posterior(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Posterior;

    /// The latent representation: the posterior mean, unless the latent state is transformed.
    fn latent_mean(&self, posterior: &Posterior, _pass: &mut Pass<'_>) -> Tensor {
        posterior.mean.shallow_clone()
    }

    /// Whether exact surgery may draw the latent states of a query to where cells of the reference lie: where they have a normal prior, and
    /// nothing else shapes them.
    fn is_drawn(&self) -> bool {
        false
    }

    /// What the first layer of its decoder makes of a draw from each cell's posterior, `[n, n_hidden]`, for a model whose authors
    /// look at that.
    fn first_decoded(&self, _minibatch: &Minibatch, _pass: &mut Pass<'_>) -> Option<Tensor> {
        None
    }

    /// What the kernels are told about it, to compute posteriors.
    ///
    /// # Errors  why they cannot
    fn posterior_spec(&self) -> Result<VaeSpec, Unsupported> {
        self.train_spec()
    }
}

/// What of the posterior is wanted of cells. The mean is the same to the bit either way; the variance costs another map of the encoder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moments {
    /// The mean alone.
    Mean,
    /// The mean and the variance.
    MeanAndVariance,
}

/// A draw from the posterior of some cells.
#[derive(Debug)]
pub struct LatentDraw {
    /// Latent state, `[n, n_latent]`.
    pub z: Tensor,
    /// Library size, `[n, 1]`; its logarithm where the model's decoder takes that.
    pub library: Tensor,
}

/// A module that decodes latent states to the features of its fields.
pub trait CountModel: Embedder {
    /// What it decodes, gene expression first.
    fn blocks(&self) -> Vec<BlockCard> {
        vec![BlockCard::RNA]
    }

    /// One draw per cell.
    fn draw(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> LatentDraw;

    /// The latent state that a draw from the posterior stands for, as [`Self::draw`] gives it.
    fn latent_state(&self, z: Tensor) -> Tensor;

    /// Decodes a draw to the blocks, in order. `covariates` may name other conditions than the cells' own.
    fn decode(
        &self,
        draw: &LatentDraw,
        minibatch: &Minibatch,
        covariates: &Covariates,
        pass: &mut Pass<'_>,
    ) -> Vec<Box<dyn Block>>;

    /// Log of one importance weight `p(x, z) / q(z | x)` per cell, `[n]`; the marginal likelihood is the mean of many.
    fn log_importance_weight(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Tensor;

    /// Posterior of the log library size, where it is latent.
    fn library(&self, minibatch: &Minibatch, pass: &mut Pass<'_>) -> Option<Posterior>;
}

/// A module that predicts labels, for having learnt those of some cells.
pub trait LabelModel: Module {
    /// The probability of each label, `[n, n_labels]`.
    fn label_probabilities(&self, minibatch: &Minibatch, from: PredictFrom, pass: &mut Pass<'_>) -> Tensor;
}

/// What of a cell's posterior is classified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PredictFrom {
    /// Its mean.
    #[default]
    Mean,
    /// One draw from it.
    Draw,
}

/// What a model says that takes no addition.
const NOT_EXTENDED: &str = "a query adds nothing to it: it takes neither options nor gene sets of a query";
