//! scANVI: a saved model to a reference, and back.

use serde_json::Value as Json;

use super::{
    SavedModel,
    convert::{Namespace, data_registry, refuse, texts},
    scvi::{export, given_options, import, with_unused},
};
use crate::{
    blueprint::Blueprint,
    data::LabelNames,
    error::Result,
    formats::pickle::Scalar,
    model::{Config, Configured as _, Model as _},
    reference::Reference,
    zoo::scanvi::{Scanvi, ScanviConfig},
};

/// The reference that a saved scANVI model is. Its batches become conditions of the namespace.
///
/// A model saved before scvi-tools 1.1 has a classifier that ends in probabilities, and keeps it.
///
/// # Errors  [`Error::Import`](crate::Error::Import) for another model or labels without the unlabelled category,
/// [`Error::Config`](crate::Error::Config) for options this program does not have, and tensors that do not fit the options
pub fn to_reference(saved: &SavedModel, namespace: &Namespace) -> Result<Reference> {
    if saved.model_name != "SCANVI" {
        return Err(refuse(format!("it holds a `{}`, expected a `SCANVI`", saved.model_name)));
    }
    let unlabelled = saved.unlabeled_category.as_ref().map(Scalar::to_string);
    let unlabelled = unlabelled.ok_or_else(|| refuse("it does not say which label stands for unlabelled cells"))?;
    let mut labels = texts(&saved.registry.labels);
    if labels.pop_if(|last| *last == unlabelled).is_none() {
        return Err(refuse(format!("the last label is not `{unlabelled}`, which stands for unlabelled cells")));
    }
    let mut given = given_options(saved, &Scanvi.options());
    given.insert(UNLABELLED.to_owned(), unlabelled.clone().into());
    let mut config = ScanviConfig::parse(&given)?;
    config.own.classifier_parameters.logits &= !saved.classifier_yields_probabilities();
    let labels = LabelNames { names: labels, unlabelled: Some(unlabelled) };
    let registry = data_registry(&saved.registry, labels)?;
    let blueprint = Blueprint { model: Box::new(config), registry, n_genes: saved.genes().len() };
    import(&Scanvi, saved, blueprint, namespace, &[])
}

/// The saved model that a scANVI reference is, for scvi-tools 1.4.
///
/// # Errors  as [`scvi::from_reference`](super::scvi::from_reference)
pub fn from_reference(reference: &Reference) -> Result<SavedModel> {
    let (mut saved, config) = export(&Scanvi, reference)?;
    let config = ScanviConfig::parse(&config)?;
    saved.init_params = constructor_arguments(&config);
    let unlabelled = Scalar::Text(config.own.unlabeled_category.clone());
    saved.registry.labels.categories.push(unlabelled.clone());
    saved.unlabeled_category = Some(unlabelled);
    Ok(with_unused(saved, &config.scvi))
}

/// Options of ours that upstream's constructor takes; what it takes for training is left out.
fn constructor_arguments(config: &ScanviConfig) -> Config {
    let mut arguments = config.options();
    TRAINING.iter().for_each(|name| drop(arguments.remove(*name)));
    let Some(Json::Object(classifier)) = arguments.remove(CLASSIFIER) else { return arguments };
    let is_default = |name: &str, value: &Json| value.is_null() || (name == "logits" && *value == true);
    let given: serde_json::Map<String, Json> =
        classifier.into_iter().filter(|(name, value)| !is_default(name, value)).collect();
    if !given.is_empty() {
        arguments.insert(CLASSIFIER.to_owned(), given.into());
    }
    arguments
}

/// The option that names the category of unlabelled cells; upstream keeps it beside the constructor's arguments.
const UNLABELLED: &str = "unlabeled_category";
/// Options that are not the constructor's.
const TRAINING: [&str; 3] = ["classification_ratio", "n_samples_per_label", UNLABELLED];
/// The option that holds what the classifier has of its own.
const CLASSIFIER: &str = "classifier_parameters";
