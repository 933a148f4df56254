//! Writes a saved model that scvi-tools 1.4 loads: plain values and tensors, no object of numpy or pandas.

use std::path::Path;

use archipelago_common::fs;
use serde_json::{Map, Value as Json, json};

use super::{CategoricalField, SavedModel, VarNames, read::MODEL, state::SETUP_ANNDATA};
use crate::{
    error::{Error, Result},
    formats::{pickle::Scalar, torch::TorchWriter},
};

/// Writes `model.pt` into a folder, which is made where it is missing.
///
/// The version text is the saved model's own: scvi-tools chooses by it what a model computes, and refuses some whose numbers are no
/// longer its own.
///
/// # Errors  those of [`to_bytes`]; [`Error::Common`] if the file cannot be written
pub fn write(model: &SavedModel, folder: &Path) -> Result<()> {
    let bytes = to_bytes(model)?;
    fs::create_dir(folder)?;
    Ok(fs::write_atomic(&folder.join(MODEL), &bytes)?)
}

/// The bytes of `model.pt`; the same for the same model.
///
/// # Errors  [`Error::Import`] for a model set up with a MuData object: where its parts lie is not kept
pub fn to_bytes(model: &SavedModel) -> Result<Vec<u8>> {
    let VarNames::Flat(var_names) = &model.var_names else {
        let detail = "a model of several modalities cannot be exported; set it up with one AnnData object".to_owned();
        return Err(Error::Import { file: MODEL.into(), detail });
    };
    let mut file = TorchWriter::default();
    file.dict(|file| {
        file.pickle.text("model_state_dict");
        file.tensors(model.state_dict.iter());
        file.pickle.text("var_names");
        file.pickle.list(var_names, |pickle, name| pickle.text(name));
        file.pickle.text("attr_dict");
        file.pickle.json(&attributes(model));
    });
    Ok(file.finish())
}

fn attributes(model: &SavedModel) -> Json {
    let mut attributes = json!({
        "registry_": {
            "scvi_version": model.version.to_string(),
            "model_name": model.model_name,
            "setup_args": setup_args(model),
            "field_registries": field_registries(model),
            "setup_method_name": SETUP_ANNDATA,
        },
        "init_params_": model.init_params.write(),
        "is_trained_": model.is_trained,
    });
    if let Some(unlabeled) = &model.unlabeled_category {
        attributes["unlabeled_category_"] = unlabeled.into();
    }
    attributes
}

/// The arguments of `setup_anndata` that describe the registry; others stay as they were given.
fn setup_args(model: &SavedModel) -> Json {
    let registry = &model.registry;
    if registry.is_foreign {
        return json!(registry.setup_args);
    }
    let keys = |keys: Vec<&String>| if keys.is_empty() { Json::Null } else { json!(keys) };
    let mut args: Map<String, Json> = registry.setup_args.clone().into_iter().collect();
    let mut set = |name: &str, value: Json| drop(args.insert(name.to_owned(), value));
    set("batch_key", registered_key(&registry.batch));
    set("size_factor_key", json!(registry.size_factor_key));
    set("categorical_covariate_keys", keys(registry.categorical_covariates.iter().map(|c| &c.key).collect()));
    set("continuous_covariate_keys", keys(registry.continuous_covariates.iter().collect()));
    match &registry.proteins {
        Some(proteins) => set("protein_expression_obsm_key", json!(proteins.key)),
        None => set("labels_key", registered_key(&registry.labels)),
    }
    if let Some(unlabeled) = &model.unlabeled_category {
        set("unlabeled_category", unlabeled.into());
    }
    args.entry("layer").or_insert(Json::Null);
    Json::Object(args)
}

fn field_registries(model: &SavedModel) -> Json {
    let registry = &model.registry;
    let (genes, layer) = (model.genes(), registry.setup_args.get("layer").and_then(Json::as_str));
    let mut x = json!({ "n_vars": genes.len(), "column_names": genes });
    let mut x_summary = json!({ "n_vars": genes.len() });
    if let Some(n_cells) = registry.n_cells {
        x["n_obs"] = n_cells.into();
        x_summary["n_cells"] = n_cells.into();
    }
    let mut labels = column(&registry.labels, "_scvi_labels", "n_labels");
    if let Some(unlabeled) = &model.unlabeled_category {
        labels["state_registry"]["unlabeled_category"] = unlabeled.into();
    }
    let mut fields = json!({
        "X": field(if layer.is_some() { "layers" } else { "X" }, json!(layer), x, x_summary),
        "batch": column(&registry.batch, "_scvi_batch", "n_batch"),
        "labels": labels,
        "size_factor": match &registry.size_factor_key {
            Some(key) => field("obs", json!(key), json!({}), json!({})),
            None => absent(json!({})),
        },
        "extra_categorical_covs": categorical_covariates(&registry.categorical_covariates),
        "extra_continuous_covs": continuous_covariates(&registry.continuous_covariates),
    });
    if let Some(proteins) = &registry.proteins {
        let mut state = json!({ "column_names": proteins.names });
        if !proteins.measured.is_empty() {
            state["protein_batch_mask"] =
                proteins.measured.iter().map(|(code, flags)| (code.to_string(), json!(flags))).collect();
        }
        let summary = json!({ "n_proteins": proteins.names.len() });
        fields["proteins"] = field("obsm", json!(proteins.key), state, summary);
    }
    fields
}

fn categorical_covariates(covariates: &[CategoricalField]) -> Json {
    let summary = json!({ "n_extra_categorical_covs": covariates.len() });
    if covariates.is_empty() {
        return absent(summary);
    }
    let keys: Vec<&str> = covariates.iter().map(|covariate| covariate.key.as_str()).collect();
    let sizes: Vec<usize> = covariates.iter().map(|covariate| covariate.categories.len()).collect();
    let mappings: Json = covariates.iter().map(|covariate| (covariate.key.clone(), categories(covariate))).collect();
    let state = json!({ "mappings": mappings, "field_keys": keys, "n_cats_per_key": sizes });
    field("obsm", json!("_scvi_extra_categorical_covs"), state, summary)
}

fn continuous_covariates(columns: &[String]) -> Json {
    let summary = json!({ "n_extra_continuous_covs": columns.len() });
    if columns.is_empty() {
        return absent(summary);
    }
    field("obsm", json!("_scvi_extra_continuous_covs"), json!({ "columns": columns }), summary)
}

/// The field of a categorical column, or of the one category that stands for none.
fn column(column: &CategoricalField, place: &str, count: &str) -> Json {
    let (mapping, key) = match column.categories.as_slice() {
        [] => (json!([0]), place),
        _ => (categories(column), column.key.as_str()),
    };
    let n_categories = column.categories.len().max(1);
    let state = json!({ "categorical_mapping": mapping, "original_key": key });
    field("obs", json!(place), state, json!({ count: n_categories }))
}

fn categories(column: &CategoricalField) -> Json {
    column.categories.iter().map(|category: &Scalar| Json::from(category)).collect()
}

fn registered_key(column: &CategoricalField) -> Json {
    if column.is_registered() { json!(column.key) } else { Json::Null }
}

fn field(attribute: &str, key: Json, state: Json, summary: Json) -> Json {
    let location = json!({ "attr_name": attribute, "attr_key": key });
    json!({ "data_registry": location, "state_registry": state, "summary_stats": summary })
}

fn absent(summary: Json) -> Json {
    json!({ "data_registry": {}, "state_registry": {}, "summary_stats": summary })
}
