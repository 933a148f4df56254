//! The registry of version 0.15 and later.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{CategoricalField, ProteinField, SavedRegistry, Understood};
use crate::formats::pickle::{NdArray, Scalar, Value};

/// Reads `registry_`.
pub(super) fn read(registry: Value<'_>) -> Understood<SavedRegistry> {
    let fields = registry.get("field_registries").ok_or("`registry_` has no `field_registries`")?;
    let names = fields.entries().ok_or("`field_registries` is not a dict")?;
    let mut out = SavedRegistry {
        setup_method: registry.get("setup_method_name").and_then(Value::as_str).unwrap_or(SETUP_ANNDATA).to_owned(),
        setup_args: registry.get("setup_args").map(json_entries).transpose()?.unwrap_or_default(),
        ..SavedRegistry::default()
    };
    for (name, field) in names {
        let name = name.as_str().ok_or("a field's name is not text")?;
        read_field(&mut out, name, field).map_err(|detail| format!("field `{name}`: {detail}"))?;
    }
    Ok(out)
}

fn read_field(out: &mut SavedRegistry, name: &str, field: Value<'_>) -> Understood<()> {
    let state = field.get("state_registry");
    let get = |key: &str| state.and_then(|state| state.get(key)).filter(|value| !value.is_none());
    match name {
        "X" => {
            out.genes = get("column_names").map(|names| texts("column_names", names)).transpose()?.unwrap_or_default();
            out.n_cells = count(get("n_obs").or_else(|| field.get("summary_stats")?.get("n_cells")));
        }
        "batch" => out.batch = categorical(get("original_key"), get("categorical_mapping"))?,
        "labels" => out.labels = categorical(get("original_key"), get("categorical_mapping"))?,
        "size_factor" => {
            let location = field.get("data_registry").and_then(|location| location.get("attr_key"));
            out.size_factor_key = location.and_then(Value::as_str).map(str::to_owned);
        }
        "extra_categorical_covs" => out.categorical_covariates = covariates(get("field_keys"), get("mappings"))?,
        "extra_continuous_covs" => {
            let columns = get("columns").map(|columns| texts("columns", columns));
            out.continuous_covariates = columns.transpose()?.unwrap_or_default();
        }
        "proteins" => {
            let location = field.get("data_registry").and_then(|location| location.get("attr_key"));
            let names = get("column_names").ok_or("has no `column_names`")?;
            out.proteins = Some(proteins(location, names, get("protein_batch_mask"))?);
        }
        other => out.other_fields.push(other.to_owned()),
    }
    Ok(())
}

/// A categorical column; one of no name and no categories where none was registered.
pub(super) fn categorical(key: Option<Value<'_>>, mapping: Option<Value<'_>>) -> Understood<CategoricalField> {
    let Some(mapping) = mapping else { return Ok(CategoricalField::default()) };
    let categories =
        mapping.scalars().ok_or_else(|| format!("the mapping is {}, expected plain values", mapping.kind()))?;
    let key = key.and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(CategoricalField { key, categories })
}

/// Categorical covariates in the order of `keys`.
pub(super) fn covariates(keys: Option<Value<'_>>, mappings: Option<Value<'_>>) -> Understood<Vec<CategoricalField>> {
    let (Some(keys), Some(mappings)) = (keys, mappings) else { return Ok(vec![]) };
    let read = |key: String| {
        let mapping = mappings.get(&key).ok_or_else(|| format!("covariate `{key}` has no mapping"))?;
        let categories = mapping.scalars().ok_or_else(|| format!("the mapping of `{key}` is {}", mapping.kind()))?;
        Ok(CategoricalField { key, categories })
    };
    texts("field_keys", keys)?.into_iter().map(read).collect()
}

/// Proteins, and which batches measured them.
pub(super) fn proteins(
    location: Option<Value<'_>>,
    names: Value<'_>,
    mask: Option<Value<'_>>,
) -> Understood<ProteinField> {
    let names: Vec<String> = names
        .scalars()
        .ok_or_else(|| format!("the names are {}, expected a list", names.kind()))?
        .iter()
        .map(Scalar::to_string)
        .collect();
    let mut measured = BTreeMap::new();
    for (code, flags) in mask.and_then(Value::entries).unwrap_or_default() {
        let code = code.as_int().map(|code| code.to_string()).or_else(|| code.as_str().map(str::to_owned));
        let code = code.and_then(|code| code.parse().ok()).ok_or("a batch of the mask is not a code")?;
        let flags = flags.scalars().ok_or("a row of the mask is not a list of truth values")?;
        let flags: Option<Vec<bool>> = flags.iter().map(is_true).collect();
        let flags = flags.filter(|flags| flags.len() == names.len());
        measured.insert(code, flags.ok_or("a row of the mask does not have a truth value per protein")?);
    }
    Ok(ProteinField { key: location.and_then(Value::as_str).map(str::to_owned), names, measured })
}

/// A list of texts; `what` names it in the error.
pub(super) fn texts(what: &str, value: Value<'_>) -> Understood<Vec<String>> {
    value.texts().ok_or_else(|| format!("`{what}` is {}, expected a list of texts", value.kind()))
}

/// A number of things, if it is one.
pub(super) fn count(value: Option<Value<'_>>) -> Option<u64> {
    value.and_then(Value::as_int).and_then(|n| u64::try_from(n).ok())
}

/// Positions of cells; none where the model did not keep them.
pub(super) fn indices(what: &str, value: Option<Value<'_>>) -> Understood<Vec<usize>> {
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(vec![]) };
    let refuse = || format!("`{what}` is {}, expected positions of cells", value.kind());
    let position = |scalar| match scalar {
        Scalar::Int(position) => usize::try_from(position).ok(),
        _ => None,
    };
    // An empty array is of floats, as numpy makes it.
    if NdArray::of(value).is_some_and(|array| array.shape == [0]) {
        return Ok(vec![]);
    }
    value.scalars().ok_or_else(refuse)?.into_iter().map(|scalar| position(scalar).ok_or_else(refuse)).collect()
}

fn json_entries(value: Value<'_>) -> Understood<BTreeMap<String, Json>> {
    match value.to_json() {
        Some(Json::Object(entries)) => Ok(entries.into_iter().collect()),
        _ => Err(format!("`setup_args` is {}, expected a dict", value.kind())),
    }
}

fn is_true(scalar: &Scalar) -> Option<bool> {
    match scalar {
        Scalar::Bool(value) => Some(*value),
        Scalar::Int(value) => Some(*value != 0),
        Scalar::Float(_) | Scalar::Text(_) => None,
    }
}

/// The set-up of a plain AnnData object.
pub const SETUP_ANNDATA: &str = "setup_anndata";
