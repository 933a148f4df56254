//! scVI: a saved model to a reference, and back. What other models have of it is converted here too.

use std::collections::BTreeMap;

use archipelago_common::{BaseCard, Columns, Layout, state_dict::Tensor};

use super::{
    CategoricalField, Indices, SavedModel, SavedRegistry, VarNames,
    convert::{Namespace, batches, data_registry, provenance, reference, refuse, texts, upstream_tensors},
    state::SETUP_ANNDATA,
};
use crate::{
    blueprint::Blueprint,
    data::{CATEGORICAL, CONTINUOUS, LABELS, LabelNames, SIZE_FACTOR, slot},
    device::Device,
    error::{Error, Result},
    formats::pickle::Scalar,
    model::{Config, Model},
    options::OptionCard,
    reference::Reference,
    zoo::scvi::{Dispersion, Scvi, ScviConfig},
};

/// The reference that a saved scVI model is. Its batches become conditions of the namespace.
///
/// # Errors  [`Error::Import`] for another model, [`Error::Config`] for options this program does not have, and tensors
/// that do not fit the options
pub fn to_reference(saved: &SavedModel, namespace: &Namespace) -> Result<Reference> {
    if saved.model_name != "SCVI" {
        return Err(refuse(format!("it holds a `{}`, expected an `SCVI`", saved.model_name)));
    }
    let model = Scvi.configure(&given_options(saved, &Scvi.options()))?;
    let takes_labels = model.fields().iter().any(|field| field.name == LABELS);
    let names = if takes_labels { texts(&saved.registry.labels) } else { vec![] };
    let registry = data_registry(&saved.registry, LabelNames { names, unlabelled: None })?;
    import(&Scvi, saved, Blueprint { model, registry, n_genes: saved.genes().len() }, namespace, &[])
}

/// The constructor arguments that are options of ours.
pub(super) fn given_options(saved: &SavedModel, options: &[OptionCard]) -> Config {
    let is_option = |name: &str| options.iter().any(|option| option.name == name);
    let known = |(name, value): &(&String, &serde_json::Value)| is_option(name) && !value.is_null();
    saved.init_params.iter().filter(known).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// The reference of any model whose data are those of scVI.
pub(super) fn import(
    model: &dyn Model,
    saved: &SavedModel,
    blueprint: Blueprint,
    namespace: &Namespace,
    facts: &[Columns],
) -> Result<Reference> {
    let card = BaseCard {
        format: BaseCard::PLAIN_FORMAT,
        model: model.card().name.to_owned(),
        config: blueprint.to_card_config(),
        genes: saved.genes().to_vec(),
        batch_key: saved.registry.batch.key.clone(),
        labels_key: blueprint.registry.obs_key(LABELS).map(str::to_owned),
        labels: blueprint.registry.labels().to_vec(),
        // Completed when the module is built.
        layout: Layout::plain(BTreeMap::new()),
        moves_embedding: blueprint.model.moves_embedding(),
        training: provenance(saved),
        recipe: None,
    };
    reference(&blueprint, card, &namespace.conditions(&saved.registry.batch)?, &saved.state_dict, facts)
}

/// The saved model that an scVI reference is, for scvi-tools 1.4.
///
/// Tensors that upstream keeps and never uses with these options are filled in: their values change nothing.
///
/// # Errors  [`Error::UnknownModel`] for another model, a reference without conditions, tensors that do not fit the card
pub fn from_reference(reference: &Reference) -> Result<SavedModel> {
    let (model, config) = export(&Scvi, reference)?;
    let config = ScviConfig::parse(&config)?;
    Ok(with_unused(model, &config))
}

/// The saved model of any model whose data are those of scVI, and its options.
pub(super) fn export(model: &dyn Model, reference: &Reference) -> Result<(SavedModel, Config)> {
    let card = &reference.base.card;
    if card.model != model.card().name {
        return Err(Error::UnknownModel { name: card.model.clone(), available: format!("`{}`", model.card().name) });
    }
    if reference.columns.is_empty() {
        return Err(refuse(
            "a reference without conditions cannot be saved: scvi-tools knows no model without batches",
        ));
    }
    let blueprint = Blueprint::of_card(card)?;
    let keys: Vec<_> = reference.columns.keys().cloned().collect();
    let module = reference.module(&keys, Device::Cpu)?;
    let state_dict = upstream_tensors(module.as_ref());
    let column = |key: &str, names: &[String]| CategoricalField {
        key: key.to_owned(),
        categories: names.iter().cloned().map(Scalar::Text).collect(),
    };
    let (registry, config) = (blueprint.registry, blueprint.model.options());
    let categorical = registry.remembered::<slot::Categories>(CATEGORICAL).cloned().unwrap_or_default();
    let continuous = registry.remembered::<slot::Numbers>(CONTINUOUS).cloned().unwrap_or_default();
    let saved = SavedModel {
        version: WRITTEN_VERSION.parse().map_err(refuse)?,
        model_name: model.card().name.to_uppercase(),
        state_dict,
        var_names: VarNames::Flat(card.genes.clone()),
        init_params: config.clone(),
        registry: SavedRegistry {
            setup_method: SETUP_ANNDATA.to_owned(),
            n_cells: card.training.get("n_cells").and_then(serde_json::Value::as_u64),
            genes: card.genes.clone(),
            batch: batches(reference),
            labels: card.labels_key.as_ref().map(|key| column(key, &card.labels)).unwrap_or_default(),
            size_factor_key: registry
                .get(SIZE_FACTOR)
                .map(|_| registry.obs_key(SIZE_FACTOR).unwrap_or(SIZE_FACTOR_KEY).to_owned()),
            categorical_covariates: categorical.iter().map(|(key, names)| column(key, names)).collect(),
            continuous_covariates: continuous,
            ..SavedRegistry::default()
        },
        unlabeled_category: None,
        is_trained: true,
        indices: Indices::default(),
    };
    Ok((saved, config))
}

/// Adds the tensors that upstream has with every option. The library encoder starts as the first layer of the other one.
pub(super) fn with_unused(mut saved: SavedModel, config: &ScviConfig) -> SavedModel {
    let n_genes = saved.genes().len();
    let (n_batches, n_labels) = (saved.registry.batch.categories.len(), saved.registry.labels.categories.len());
    let tensors = &mut saved.state_dict;
    let zeros = |shape: &[usize]| Tensor::from_f32(shape, &vec![0.0; shape.iter().product()]);
    let mut unused: Vec<(String, Tensor)> = tensors
        .iter()
        .filter_map(|(name, tensor)| Some((format!("{L_ENCODER}{}", name.strip_prefix(Z_ENCODER)?), tensor.clone())))
        .collect();
    for (head, n_out) in [
        ("l_encoder.mean_encoder", 1),
        ("l_encoder.var_encoder", 1),
        ("decoder.px_r_decoder", n_genes),
        ("decoder.px_dropout_decoder", n_genes),
    ] {
        unused.push((format!("{head}.weight"), zeros(&[n_out, config.n_hidden])));
        unused.push((format!("{head}.bias"), zeros(&[n_out])));
    }
    match config.dispersion {
        Dispersion::Gene => unused.push(("px_r".to_owned(), zeros(&[n_genes]))),
        Dispersion::GeneBatch => unused.push(("px_r".to_owned(), zeros(&[n_genes, n_batches]))),
        Dispersion::GeneLabel => unused.push(("px_r".to_owned(), zeros(&[n_genes, n_labels]))),
        Dispersion::GeneCell => {}
    }
    for (name, tensor) in unused {
        if tensors.get(&name).is_none() {
            tensors.insert(name, tensor);
        }
    }
    saved
}

/// First layer of the encoder of the latent state.
const Z_ENCODER: &str = "z_encoder.encoder.fc_layers.Layer 0.";
/// The only layer of the encoder of the library size.
const L_ENCODER: &str = "l_encoder.encoder.fc_layers.Layer 0.";
/// The version whose numbers ours are.
const WRITTEN_VERSION: &str = "1.4.2";
/// The obs column of size factors in exported models whose reference does not say what it was called.
const SIZE_FACTOR_KEY: &str = "size_factor";
