//! Constructor arguments: which there are, and how versions nested them.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::Understood;
use crate::formats::pickle::Value;

/// Merges the levels of `init_params_`.
pub(super) fn read(value: Value<'_>) -> Understood<BTreeMap<String, Json>> {
    let Some(Json::Object(levels)) = value.to_json() else {
        return Err(format!("`init_params_` is {}, expected a dict of options", value.kind()));
    };
    let mut merged = BTreeMap::new();
    if let (Some(Json::Object(named)), Some(Json::Object(nested))) = (levels.get("non_kwargs"), levels.get("kwargs")) {
        merged.extend(named.clone());
        nested.values().filter_map(Json::as_object).for_each(|inner| merged.extend(inner.clone()));
    } else {
        // Before the split, values are arguments and dicts hold further ones.
        for (name, value) in levels {
            match value {
                Json::Object(inner) => merged.extend(inner),
                value => drop(merged.insert(name, value)),
            }
        }
    }
    NOT_OPTIONS.iter().for_each(|name| drop(merged.remove(*name)));
    Ok(merged)
}

/// `init_params_` in the form of version 1.4.
pub(super) fn write(model_name: &str, arguments: &BTreeMap<String, Json>) -> Json {
    let signature = signature(model_name);
    let (named, further): (Map<String, Json>, Map<String, Json>) =
        arguments.clone().into_iter().partition(|(name, _)| signature.contains(&name.as_str()));
    let catch_all = if model_name == "SCVI" { "kwargs" } else { "model_kwargs" };
    json!({ "kwargs": { catch_all: further }, "non_kwargs": named })
}

/// Whether a constructor or its module takes an argument of this name.
pub(super) fn is_known(model_name: &str, name: &str) -> bool {
    signature(model_name).contains(&name) || MODULE.contains(&name)
}

/// Names in a constructor's signature.
fn signature(model_name: &str) -> &'static [&'static str] {
    match model_name {
        "SCANVI" => &[
            "n_hidden",
            "n_latent",
            "n_layers",
            "dropout_rate",
            "dispersion",
            "gene_likelihood",
            "use_observed_lib_size",
            "linear_classifier",
        ],
        "TOTALVI" => &[
            "n_latent",
            "gene_dispersion",
            "protein_dispersion",
            "gene_likelihood",
            "latent_distribution",
            "empirical_protein_background_prior",
            "override_missing_proteins",
        ],
        _ => &[
            "n_hidden",
            "n_latent",
            "n_layers",
            "dropout_rate",
            "dispersion",
            "gene_likelihood",
            "use_observed_lib_size",
            "latent_distribution",
        ],
    }
}

/// Options of the modules that a constructor passes on.
const MODULE: &[&str] = &[
    "batch_representation",
    "classifier_parameters",
    "deeply_inject_covariates",
    "dropout_rate_decoder",
    "dropout_rate_encoder",
    "encode_covariates",
    "extra_decoder_kwargs",
    "latent_distribution",
    "log_variational",
    "n_hidden",
    "n_hidden_decoder",
    "n_hidden_encoder",
    "n_layers_decoder",
    "n_layers_encoder",
    "use_batch_norm",
    "use_layer_norm",
    "use_observed_lib_size",
    "use_size_factor_key",
    "y_prior",
];

/// Arguments that say nothing about the network: a device, a loader, and what old versions handed on elsewhere.
const NOT_OPTIONS: [&str; 5] = ["datamodule", "pretrained_model", "registry", "unlabeled_category", "use_cuda"];
