//! mvTCR in the files of its package: options by their places in upstream's dict, and constants that it saves as tensors.

use std::collections::BTreeMap;

use archipelago_common::{ConditionKey, StateDict};
use serde_json::{Map, Value as Json, json};

use super::{Chains, Mvtcr, MvtcrConfig, Variant, chains::positions, config, module::RECEPTOR};
use crate::{
    blueprint::Blueprint,
    data::{AMINO_ACIDS, Encoding, ReceptorForm, Registry},
    error::Result,
    formats::{archive::SavedArchive, scarches::SavedFolder},
    model::{Config, Configured as _},
    nn::from_tch,
    reference::Reference,
    upstream::{ArchiveModel, DataAtHand, Namespace},
    zoo::family::saved::{self, INPUT_DIM, Saved},
};

impl ArchiveModel for Mvtcr {
    fn package(&self) -> &'static str {
        "mvtcr 0.2.1"
    }

    fn told_by(&self) -> &'static [&'static str] {
        &[ARCHITECTURE, "aa_to_id", TYPE]
    }

    fn condition_column(&self, saved: &SavedArchive) -> Option<String> {
        let name = saved.values.get(CONDITIONAL)?.as_str()?;
        Some(name.strip_suffix(ONE_HOT).unwrap_or(name).to_owned())
    }

    fn to_reference(&self, saved: &SavedArchive, data: &DataAtHand, namespace: &Namespace) -> Result<Reference> {
        let config = MvtcrConfig::parse(&options(saved)?)?;
        let mut registry = Registry::default();
        if config.variant.has_tcr() {
            let form = ReceptorForm { chains: config.chains.list(), length: length(saved, &config)? };
            registry = registry.with(RECEPTOR, Encoding::Receptor(form));
        }
        let registry = registry.of_model(&config.fields());
        let key = |name: &String| ConditionKey::new(namespace.owner.clone(), namespace.dataset.clone(), name.clone());
        let keys = data.batches.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        let attributes = BTreeMap::from([(INPUT_DIM.to_owned(), json!(data.genes.len()))]);
        let folder = SavedFolder::new(saved.tensors.clone(), attributes, data.genes.clone());
        let blueprint = Blueprint { model: Box::new(config), registry, n_genes: data.genes.len() };
        let mut reference = saved::reference_of(Saved {
            n_genes: INPUT_DIM,
            model: config::NAME,
            saved: &folder,
            blueprint: &blueprint,
            keys: &keys,
            axes: vec![],
            batch_key: &data.batch_key,
            summaries: StateDict::new(),
        })?;
        reference.base.card.training.insert("saved_by".to_owned(), json!(self.package()));
        Ok(reference)
    }

    fn to_saved(&self, reference: &Reference) -> Result<SavedArchive> {
        let card = &reference.base.card;
        let blueprint = Blueprint::of_card(card)?;
        let config = MvtcrConfig::parse(&blueprint.model.options())?;
        let mut tensors = saved::tensors(reference)?;
        if config.variant.has_tcr() {
            let form = blueprint.registry.remembered::<crate::data::slot::Receptor>(RECEPTOR);
            let length = form.map_or(0, |form| form.length) as i64;
            let waves = from_tch(&positions(length, config.embedding_size as i64).unsqueeze(1));
            for chain in config.chains.list() {
                for side in ["encoder", "decoder"] {
                    let _ = tensors.insert(format!("{}_{side}.{WAVES}", chain.name()), waves.clone());
                }
            }
        }
        let values = [
            (ARCHITECTURE, architecture(&config)),
            (TYPE, json!(type_of(config.variant))),
            ("aa_to_id", alphabet()),
            (CONDITIONAL, if config.conditional { json!(format!("{}{ONE_HOT}", card.batch_key)) } else { Json::Null }),
            ("balanced_sampling", if config.balanced_sampling { json!("clonotype") } else { Json::Null }),
            ("metadata", json!([])),
            ("optimization_mode_params", Json::Null),
            ("label_key", Json::Null),
            ("train_history", json!({})),
            ("val_history", json!({})),
        ];
        Ok(SavedArchive { tensors, values: values.map(|(name, value)| (name.to_owned(), value)).into() })
    }
}

/// Upstream's name of a variant; one without expression is that of concatenation, which finds no options of expression.
fn type_of(variant: Variant) -> &'static str {
    match variant {
        Variant::Moe => "moe",
        Variant::Poe => "poe",
        Variant::Concat | Variant::Tcr => "separate",
        Variant::Rna => "rna",
    }
}

/// Our options, and where upstream has each: its part, its name there.
const PLACES: [(&str, &str, &str); 17] = [
    ("activation", JOINT, "activation"),
    ("batch_norm", JOINT, "batch_norm"),
    ("dropout", JOINT, "dropout"),
    ("hdim", JOINT, "hdim"),
    ("shared_hidden", JOINT, "shared_hidden"),
    ("zdim", JOINT, "zdim"),
    ("c_embedding_dim", JOINT, "c_embedding_dim"),
    ("use_embedding_for_cond", JOINT, "use_embedding_for_cond"),
    ("gene_activation", RNA, "activation"),
    ("gene_batch_norm", RNA, "batch_norm"),
    ("gene_dropout", RNA, "dropout"),
    ("gene_hidden", RNA, "gene_hidden"),
    ("embedding_size", TCR, "embedding_size"),
    ("num_heads", TCR, "num_heads"),
    ("forward_expansion", TCR, "forward_expansion"),
    ("encoding_layers", TCR, "encoding_layers"),
    ("decoding_layers", TCR, "decoding_layers"),
];

/// The options of a saved model.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for a variant that is not known
fn options(saved: &SavedArchive) -> Result<Config> {
    let architecture = saved.values.get(ARCHITECTURE).cloned().unwrap_or_default();
    let part = |name: &str| architecture.get(name).filter(|part| part.is_object());
    let variant = match saved.values.get(TYPE).and_then(Json::as_str) {
        Some("moe") => "moe",
        Some("poe") => "poe",
        Some("separate") if part(RNA).is_none() => "tcr",
        Some("separate") => "concat",
        Some("rna") => "rna",
        other => {
            return Err(SavedArchive::refuse(format!("its `{TYPE}` is {other:?}, expected moe, poe, separate or rna")));
        }
    };
    let places = PLACES.iter().chain([&DROPOUT]);
    let found = places.filter_map(|(ours, of, theirs)| Some(((*ours).to_owned(), part(of)?.get(*theirs)?.clone())));
    let mut options: Config = found.filter(|(_, value)| !value.is_null()).collect();
    options.insert("variant".to_owned(), json!(variant));
    if let Some(weights) = architecture.get(WEIGHTS) {
        options.insert(WEIGHTS.to_owned(), weights.clone());
    }
    let has_conditions = saved.values.get(CONDITIONAL).is_some_and(|name| !name.is_null());
    options.insert("conditional".to_owned(), json!(has_conditions));
    match part(TCR).and_then(|part| part.get(BETA_ONLY)).and_then(Json::as_bool) {
        Some(true) => drop(options.insert("chains".to_owned(), json!("beta"))),
        Some(false) if variant == "moe" => drop(options.insert("tcr_from_rna_only".to_owned(), json!(true))),
        _ => {}
    }
    Ok(options)
}

/// Options as upstream's dict; what it fills in from the data set is not there.
fn architecture(config: &MvtcrConfig) -> Json {
    let options = config.options();
    let mut parts: BTreeMap<&str, Map<String, Json>> = BTreeMap::new();
    for (ours, part, theirs) in PLACES.iter().chain([&DROPOUT]) {
        parts.entry(*part).or_default().insert((*theirs).to_owned(), options[*ours].clone());
    }
    if config.chains == Chains::Beta || config.tcr_from_rna_only {
        let is_beta = config.chains == Chains::Beta;
        parts.entry(TCR).or_default().insert(BETA_ONLY.to_owned(), json!(is_beta));
    }
    if !config.variant.has_rna() {
        parts.remove(RNA);
    }
    if !config.variant.has_tcr() {
        parts.remove(TCR);
    }
    let joint = parts.entry(JOINT).or_default();
    joint.insert("losses".to_owned(), json!(["MSE", "CE"]));
    let mut all: Map<String, Json> =
        parts.into_iter().map(|(name, part)| (name.to_owned(), Json::Object(part))).collect();
    all.insert(WEIGHTS.to_owned(), json!(config.loss_weights));
    all.insert("batch_size".to_owned(), json!(super::TRAINING.minibatch));
    all.insert("learning_rate".to_owned(), json!(super::TRAINING.adam.rate));
    Json::Object(all)
}

/// Amino acids of a chain, by the width of the map behind its encoder.
///
/// # Errors  a file without it
fn length(saved: &SavedArchive, config: &MvtcrConfig) -> Result<usize> {
    let name = format!("{}_encoder.fc_reduction.weight", config.chains.list()[0].name());
    let flat = saved.tensors.require("the model file", &name)?.shape().get(1).copied().unwrap_or_default();
    Ok(flat / config.embedding_size)
}

fn alphabet() -> Json {
    let letters = std::iter::once('_').chain(AMINO_ACIDS.chars()).chain(['+', '<', '>']);
    Json::Object(letters.zip(0..).map(|(letter, code): (char, i64)| (letter.to_string(), json!(code))).collect())
}

const ARCHITECTURE: &str = "params_architecture";
const TYPE: &str = "model_type";
const CONDITIONAL: &str = "conditional";
const ONE_HOT: &str = "_ohe";
const JOINT: &str = "joint";
const RNA: &str = "rna";
const TCR: &str = "tcr";
const WEIGHTS: &str = "loss_weights";
const BETA_ONLY: &str = "beta_only";
const DROPOUT: (&str, &str, &str) = ("tcr_dropout", TCR, "dropout");
const WAVES: &str = "positional_encoding.pe";
