//! Modules and minibatches as a case describes them.

use archipelago_common::{Columns, StateDict};
use archipelago_models::{
    data::{Covariates, Encoding, GENE_SETS, GeneSets, Minibatch, NEW_GENE_SETS, Registry},
    model::Module as _,
    nn::{Builder, ConditionSource, LayerRules, Noise, Source, Trainable},
    upstream::Layout,
    zoo::expimap::{Configuration, ExpimapConfig, ExpimapModule},
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::case::{Case, Tolerance};
pub(super) use crate::runner::{gradients, upstream};

/// A module's options and gene sets.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) configuration: Configuration,
    pub(super) registry: Registry,
}

/// Options of a case: those of its constructor, and those of its training.
pub(super) fn config(case: &Case) -> ExpimapConfig {
    let mut options = archipelago_models::Config::new();
    let names = ["alpha", "alpha_kl", "alpha_l1", "alpha_l1_epoch_anneal", "gamma_ext", "gamma_epoch_anneal", "beta"];
    let given = case.json.get("constructor").unwrap_or(&case.json).as_object().unwrap();
    for (name, value) in given.iter().filter(|(name, _)| OF_CONSTRUCTOR.contains(&name.as_str())) {
        options.insert(name.clone(), value.clone());
    }
    let train = case.json["train"].as_object().cloned().unwrap_or_default();
    for (name, value) in train.iter().chain(case.json.as_object().unwrap()) {
        if names.contains(&name.as_str()) && !value.is_null() || name == "gamma_anneal_each" {
            options.insert(name.clone(), value.clone());
        }
    }
    if let Some(omega) = train.get("omega").and_then(Value::as_array) {
        let factors = omega.iter().enumerate().map(|(i, factor)| format!("TERM_{i}={factor}"));
        options.insert("omega".to_owned(), json!(factors.collect::<Vec<_>>().join(",")));
    }
    ExpimapConfig::parse(&options).unwrap()
}

/// Options and sets of a case, with masks of `[n_terms, n_genes]` and options of its own.
pub(super) fn model_of(config: ExpimapConfig, mask: &Tensor, ext_mask: Option<&Tensor>) -> Model {
    let registry = Registry::default().with(GENE_SETS, Encoding::GeneSets(sets(mask, "TERM")));
    let registry = match ext_mask {
        Some(mask) => registry.with(NEW_GENE_SETS, Encoding::GeneSets(sets(mask, "constrained"))),
        None => registry,
    };
    Model { configuration: Configuration::new(config, None), registry }
}

pub(super) fn model(case: &Case) -> Model {
    model_of(config(case), &case.tensor("in.mask"), case.find("in.ext_mask").as_ref())
}

/// The sets of a mask of `[n_terms, n_genes]`.
pub(super) fn sets(mask: &Tensor, name: &str) -> GeneSets {
    let (n_terms, n_genes) = mask.size2().unwrap();
    let row = |term: i64| Vec::<f32>::try_from(mask.get(term).to_kind(Kind::Float)).unwrap();
    let members = |row: Vec<f32>| (0..).zip(row).filter(|(_, is)| *is > 0.0).map(|(gene, _)| gene).collect();
    let terms = (0..n_terms).map(|i| format!("{name}_{i}")).collect();
    GeneSets::new(terms, (0..n_terms).map(row).map(members).collect(), n_genes as usize).unwrap()
}

/// The stored minibatch.
pub(super) fn minibatch(case: &Case) -> Minibatch {
    minibatch_of(case.tensor("in.x"), case.tensor("in.batch"))
}

/// Cells of these conditions.
pub(super) fn minibatch_of(x: Tensor, condition: Tensor) -> Minibatch {
    let covariates = Covariates { condition, axes: vec![], categorical: vec![] };
    Minibatch::of_tensors(&Registry::default(), x, covariates, |_| unreachable!("no field is registered"))
}

impl Model {
    fn build(&self, n_genes: usize, builder: Builder<'_>) -> ExpimapModule {
        ExpimapModule::new(&self.configuration, &self.registry, n_genes, builder).unwrap()
    }

    /// Base and columns that upstream's tensors are in our layout.
    pub(super) fn split(&self, upstream: &StateDict) -> (StateDict, Vec<Columns>) {
        let n_conditions = upstream.require("case", "encoder.FC.L0.cond_L.weight").unwrap().shape()[1];
        let fresh = ConditionSource::Fresh(n_conditions);
        let builder = Builder::new(Source::Fresh, fresh, Trainable::Nothing, [0; 32], Device::Cpu);
        Layout::of(self.build(n_genes(upstream), builder).weights()).split(upstream).unwrap()
    }

    /// The module of upstream's tensors.
    pub(super) fn module(
        &self,
        upstream: &StateDict,
        trainable: Trainable,
        rules: Option<&dyn LayerRules>,
    ) -> ExpimapModule {
        let (base, columns) = self.split(upstream);
        let columns: Vec<&Columns> = columns.iter().collect();
        let conditions = ConditionSource::Stored(&columns);
        let builder = Builder::new(Source::Stored(&base), conditions, trainable, [0; 32], Device::Cpu);
        self.build(n_genes(upstream), rules.into_iter().fold(builder, Builder::with_rules))
    }

    /// The module of one condition after that, with nothing but its columns to train, and what a site adds.
    pub(super) fn of_condition(&self, base: &StateDict, local: &StateDict, columns: &Columns) -> ExpimapModule {
        let own = [columns];
        let conditions = ConditionSource::Stored(&own);
        let builder = Builder::new(Source::Stored(base), conditions, Trainable::Conditions, [0; 32], Device::Cpu);
        self.build(n_genes(base), builder.with_local(local))
    }
}

fn n_genes(upstream: &StateDict) -> usize {
    upstream.require("case", "encoder.FC.L0.expr_L.weight").unwrap().shape()[1]
}

/// The gradient of a bias that feeds batch norm is rounding noise.
pub(super) fn gradient_tolerance(case: &Case, name: &str) -> Tolerance {
    let stated = case.tolerance("grad");
    let feeds_norm = name.ends_with(".bias") && name.contains(".FC.L") && config(case).use_bn;
    if feeds_norm { Tolerance { atol: 1e-4, ..stated } } else { stated }
}

/// The noise of one pass: a draw of the latent state, and where an encoder learns it, one of the total count.
pub(super) struct Draws {
    z: Tensor,
    l: Option<Tensor>,
}

impl Draws {
    /// What is stored under a name.
    pub(super) fn of(case: &Case, name: &str) -> Self {
        Self { z: case.tensor(name), l: case.find(&format!("{name}.l")) }
    }

    /// A draw of the latent state alone.
    pub(super) fn latent(z: Tensor) -> Self {
        Self { z, l: None }
    }
}

impl Noise for Draws {
    fn normal(&mut self, site: &'static str, shape: &[i64], _: Device) -> Tensor {
        let drawn = if site == "l" { self.l.as_ref().expect("the case learns the total count") } else { &self.z };
        assert_eq!(drawn.size(), shape, "{site}");
        drawn.shallow_clone()
    }

    fn keep(&mut self, _: &str, _: &[i64], _: f64, _: Device) -> Option<Tensor> {
        None
    }
}

/// Options that scArches' constructor takes.
const OF_CONSTRUCTOR: [&str; 12] = [
    "hidden_layer_sizes",
    "dr_rate",
    "recon_loss",
    "use_bn",
    "use_ln",
    "decoder_last_layer",
    "use_l_encoder",
    "n_ext",
    "soft_mask",
    "soft_ext_mask",
    "hsic_one_vs_all",
    "use_hsic",
];
