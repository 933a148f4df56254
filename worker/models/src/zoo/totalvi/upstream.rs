//! totalVI in scvi-tools: its class, and a saved model to a reference and back.
//!
//! What the tensors mean depends on the version that saved them (see [`Behaviour`]); a model keeps its version's meaning here.

use std::collections::BTreeMap;

use archipelago_common::{Columns, StateDict, Tensor as Stored};

use super::{BackgroundActivation, Behaviour, DecoderOptions, MEASURED, PROTEINS, Totalvi, TotalviConfig};
use crate::{
    blueprint::Blueprint,
    data::{Encoding, LabelNames, OBSM, Panel, Values, slot::Matrix},
    error::Result,
    formats::scvi_tools::{ProteinField, SavedModel, ToolsVersion},
    model::{Config, Model as _},
    options,
    reference::Reference,
    upstream::{Class, Namespace, ScviToolsModel},
    zoo::family::scvi_tools::{OF_MODULES, data_registry, export, given_options, import},
};

impl ScviToolsModel for Totalvi {
    fn class(&self) -> &'static Class {
        &CLASS
    }

    fn to_reference(&self, saved: &SavedModel, namespace: &Namespace) -> Result<Reference> {
        let Some(proteins) = saved.registry.proteins.as_ref().filter(|proteins| !proteins.names.is_empty()) else {
            return Err(saved.refuse("no proteins were registered"));
        };
        if saved.registry.other_fields.iter().any(|field| field == PANEL) {
            let detail = "its protein background belongs to panels of batches (`panel_key`), expected one per batch";
            return Err(saved.refuse(detail));
        }
        let config = config(saved)?;
        let names = if config.takes_labels() { saved.registry.labels.names() } else { vec![] };
        let panel = Panel { names: proteins.names.clone(), values: Values::Counts, may_lack: true };
        let source = proteins.key.as_ref().map(|key| format!("{OBSM}{key}"));
        let registry = data_registry(saved, LabelNames { names, unlabelled: None })?
            .with(PROTEINS, Encoding::Matrix(panel))
            .found_at(PROTEINS, source);
        let n_batches = saved.registry.batch.categories.len();
        let facts: Vec<Columns> = (0..n_batches).map(|code| measured(proteins, code, &config)).collect();
        let blueprint = Blueprint { model: Box::new(config), registry, n_genes: saved.genes().len() };
        let state_dict = completed(&saved.state_dict, proteins.names.len(), n_batches);
        import(self, &CLASS, &SavedModel { state_dict, ..saved.clone() }, &blueprint, namespace, &facts)
    }

    /// A reference from before 1.3.1 keeps its version, and later versions of scvi-tools refuse it, as its numbers are not theirs.
    fn to_saved(&self, reference: &Reference) -> Result<SavedModel> {
        let Blueprint { model, registry, .. } = Blueprint::of_card(&reference.base.card)?;
        let config = TotalviConfig::parse(&model.options())?;
        let mut saved = export(&CLASS, constructor_arguments(&config), &registry, reference)?;
        let panel =
            registry.remembered::<Matrix>(PROTEINS).ok_or_else(|| saved.refuse("it has no panel of proteins"))?;
        // What came from a modality has no key of obsm.
        let source = registry.get(PROTEINS).and_then(|field| field.source.as_deref());
        let key = source.and_then(|source| source.strip_prefix(OBSM)).unwrap_or(PROTEIN_KEY);
        saved.registry.proteins = Some(ProteinField {
            key: Some(key.to_owned()),
            measured: masks(reference, &panel.names)?,
            names: panel.names.clone(),
        });
        if config.behaviour == Behaviour::Before131 {
            let detail = |detail: String| crate::Error::Import { file: CLASS.name.into(), detail };
            saved.version = old_version(reference).parse().map_err(detail)?;
            saved.state_dict.remove(EFFICIENCY);
        }
        fill_unused_head(&mut saved.state_dict);
        Ok(saved)
    }
}

/// Options, with what the saving version did and did not say.
fn config(saved: &SavedModel) -> Result<TotalviConfig> {
    let given = given_options(saved, &Totalvi.options());
    let mut config = TotalviConfig::parse(&given)?;
    if !has_scaled_encoder_input(&saved.version) {
        config.behaviour = Behaviour::Before131;
    }
    if has_exponential_background(&saved.version) && !given.contains_key(DECODER_OPTIONS) {
        config.extra_decoder_kwargs.activation_function_bg = BackgroundActivation::Exp;
    }
    Ok(config)
}

/// The tensors in the shapes of today: efficiencies, which came with 1.3.1, are one; a background that all batches share is each
/// batch's own.
fn completed(tensors: &StateDict, n_proteins: usize, n_batches: usize) -> StateDict {
    let mut tensors = tensors.clone();
    if tensors.get(EFFICIENCY).is_none() {
        let zeros = vec![0.0; n_proteins * n_batches];
        tensors.insert(EFFICIENCY, Stored::from_f32(&[n_proteins, n_batches], &zeros));
    }
    for name in ["background_pro_alpha", "background_pro_log_beta"] {
        let shared = tensors.get(name).filter(|tensor| tensor.shape() == [n_proteins]);
        if let Some(values) = shared.and_then(|tensor| tensor.to_f32(name).ok()) {
            let each: Vec<f32> = values.iter().flat_map(|&value| vec![value; n_batches]).collect();
            tensors.insert(name, Stored::from_f32(&[n_proteins, n_batches], &each));
        }
    }
    tensors
}

/// Which proteins a batch was stained for: all, unless the registry says otherwise.
fn measured(proteins: &ProteinField, code: usize, config: &TotalviConfig) -> Columns {
    let n = proteins.names.len();
    let flags = proteins.measured.get(&code).filter(|_| !config.override_missing_proteins);
    let flags: Vec<f32> =
        flags.map_or_else(|| vec![1.0; n], |flags| flags.iter().map(|&flag| f32::from(u8::from(flag))).collect());
    Columns([(format!("{MEASURED}.condition"), Stored::from_f32(&[n], &flags))].into_iter().collect())
}

/// Whether the standard deviation of the protein background is an exponential, not a softplus: before 1.2.
fn has_exponential_background(version: &ToolsVersion) -> bool {
    version.is_before([1, 2, 0])
}

/// Whether the encoder sees counts scaled by their means, and the efficiency per batch and log-normal terms are in the loss: from
/// 1.3.1.
fn has_scaled_encoder_input(version: &ToolsVersion) -> bool {
    !version.is_before([1, 3, 1])
}

/// Options of ours that upstream's constructor takes.
fn constructor_arguments(config: &TotalviConfig) -> Config {
    let mut arguments = options::to_config(config);
    arguments.remove("behaviour");
    if config.extra_decoder_kwargs == DecoderOptions::default() {
        arguments.remove(DECODER_OPTIONS);
    }
    arguments
}

/// Which proteins were measured, by code of the batch; nothing where all were, as upstream.
fn masks(reference: &Reference, proteins: &[String]) -> Result<BTreeMap<usize, Vec<bool>>> {
    let name = format!("{MEASURED}.condition");
    let mut masks = BTreeMap::new();
    for (code, columns) in reference.columns.values().enumerate() {
        let flags = columns.0.require("the columns", &name)?.to_f32(&name)?;
        masks.insert(code, flags.iter().map(|&flag| flag != 0.0).collect::<Vec<bool>>());
    }
    let is_complete = masks.values().all(|flags| flags.len() == proteins.len() && flags.iter().all(|&flag| flag));
    Ok(if is_complete { BTreeMap::new() } else { masks })
}

/// The version that an old model was saved by, or the last one whose numbers its are.
fn old_version(reference: &Reference) -> String {
    let saved_by = reference.base.card.training.get("scvi_tools_version").and_then(serde_json::Value::as_str);
    saved_by.unwrap_or(LAST_OLD_VERSION).to_owned()
}

/// Adds the head of zero inflation where nothing uses it.
fn fill_unused_head(tensors: &mut StateDict) {
    let used: Vec<(String, Stored)> = tensors
        .iter()
        .filter_map(|(name, tensor)| {
            Some((format!("{DROPOUT_HEAD}{}", name.strip_prefix(SCALE_HEAD)?), tensor.clone()))
        })
        .collect();
    for (name, like) in used {
        if tensors.get(&name).is_none() {
            let zeros = vec![0.0; like.shape().iter().product()];
            tensors.insert(name, Stored::from_f32(like.shape(), &zeros));
        }
    }
}

/// The tensor of efficiencies.
const EFFICIENCY: &str = "log_per_batch_efficiency";
/// The option that names what makes the background's standard deviation.
const DECODER_OPTIONS: &str = "extra_decoder_kwargs";
/// The registered field of protein panels.
const PANEL: &str = "panel";
/// The key of obsm in exported models whose reference does not remember one.
const PROTEIN_KEY: &str = "protein_expression";
/// The last version before today's behaviour.
const LAST_OLD_VERSION: &str = "1.3.0";
/// A head of genes that every model uses.
const SCALE_HEAD: &str = "decoder.px_scale_decoder.";
/// The head of genes that only zero inflation uses.
const DROPOUT_HEAD: &str = "decoder.px_dropout_decoder_gene.";
/// Its class.
const CLASS: Class = Class {
    name: "TOTALVI",
    signature: &[
        "n_latent",
        "gene_dispersion",
        "protein_dispersion",
        "gene_likelihood",
        "latent_distribution",
        "empirical_protein_background_prior",
        "override_missing_proteins",
    ],
    further: "model_kwargs",
    of_module: OF_MODULES,
    own_tensor: Some("background_pro_alpha"),
};
