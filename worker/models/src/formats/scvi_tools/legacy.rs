//! The set-up dictionary of versions before 0.15, in the form of today's registry.

use serde_json::Value as Json;

use super::{
    SavedRegistry, Understood,
    state::{self, SETUP_ANNDATA},
};
use crate::formats::pickle::Value;

/// Reads `scvi_setup_dict_`.
pub(super) fn read(setup: Value<'_>) -> Understood<SavedRegistry> {
    let within = |outer: &str, inner: &str| setup.get(outer)?.get(inner).filter(|value| !value.is_none());
    let column = |name: &str| {
        let column = within("categorical_mappings", name);
        let get = |key: &str| column.and_then(|column| column.get(key));
        state::categorical(get("original_key"), get("mapping")).map_err(|detail| format!("`{name}`: {detail}"))
    };
    let mut out = SavedRegistry {
        setup_method: SETUP_ANNDATA.to_owned(),
        n_cells: state::count(within("summary_stats", "n_cells")),
        batch: column("_scvi_batch")?,
        labels: column("_scvi_labels")?,
        categorical_covariates: state::covariates(
            within("extra_categoricals", "keys"),
            within("extra_categoricals", "mappings"),
        )?,
        ..SavedRegistry::default()
    };
    if let Some(keys) = setup.get("extra_continuous_keys").filter(|keys| !keys.is_none()) {
        out.continuous_covariates = state::texts("extra_continuous_keys", keys)?;
    }
    if let Some(names) = setup.get("protein_names").filter(|names| !names.is_none()) {
        let location = within("data_registry", "protein_expression").and_then(|location| location.get("attr_key"));
        out.proteins = Some(state::proteins(location, names, setup.get("totalvi_batch_mask"))?);
    }
    let layer = within("data_registry", "X").filter(|x| x.get("attr_name").and_then(Value::as_str) == Some("layers"));
    if let Some(layer) = layer.and_then(|x| x.get("attr_key")).and_then(Value::as_str) {
        out.setup_args.insert("layer".to_owned(), Json::from(layer));
    }
    Ok(out)
}
