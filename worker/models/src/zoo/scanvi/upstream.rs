//! scANVI in scvi-tools: its class, and a saved model to a reference and back.

use serde_json::Value as Json;

use super::{Scanvi, ScanviConfig};
use crate::{
    blueprint::Blueprint,
    data::LabelNames,
    error::Result,
    formats::{
        pickle::Scalar,
        scvi_tools::{SavedModel, ToolsVersion},
    },
    model::{Config, Model as _},
    options,
    reference::Reference,
    upstream::{Class, Namespace, ScviToolsModel},
    zoo::{
        family::scvi_tools::{OF_MODULES, data_registry, export, given_options, import},
        scvi::upstream::with_unused,
    },
};

impl ScviToolsModel for Scanvi {
    fn class(&self) -> &'static Class {
        &CLASS
    }

    /// A model saved before scvi-tools 1.1 has a classifier that ends in probabilities, and keeps it.
    fn to_reference(&self, saved: &SavedModel, namespace: &Namespace) -> Result<Reference> {
        let unlabelled = saved.unlabeled_category.as_ref().map(Scalar::to_string);
        let unlabelled =
            unlabelled.ok_or_else(|| saved.refuse("it does not say which label stands for unlabelled cells"))?;
        let mut labels = saved.registry.labels.names();
        if labels.pop_if(|last| *last == unlabelled).is_none() {
            let detail = format!("the last label is not `{unlabelled}`, which stands for unlabelled cells");
            return Err(saved.refuse(detail));
        }
        let mut given = given_options(saved, &self.options());
        given.insert(UNLABELLED.to_owned(), unlabelled.clone().into());
        let mut config = ScanviConfig::parse(&given)?;
        config.own.classifier_parameters.logits &= !yields_probabilities(&saved.version);
        let registry = data_registry(saved, LabelNames { names: labels, unlabelled: Some(unlabelled) })?;
        let blueprint = Blueprint { model: Box::new(config), registry, n_genes: saved.genes().len() };
        import(self, &CLASS, saved, &blueprint, namespace, &[])
    }

    fn to_saved(&self, reference: &Reference) -> Result<SavedModel> {
        let Blueprint { model, registry, .. } = Blueprint::of_card(&reference.base.card)?;
        let config = ScanviConfig::parse(&model.options())?;
        let mut saved = export(&CLASS, constructor_arguments(&config), &registry, reference)?;
        let unlabelled = Scalar::Text(config.own.unlabeled_category.clone());
        saved.registry.labels.categories.push(unlabelled.clone());
        saved.unlabeled_category = Some(unlabelled);
        Ok(with_unused(saved, &config.scvi))
    }
}

/// Whether the classifier ends in a softmax and so yields probabilities, not logits: before 1.1.
fn yields_probabilities(version: &ToolsVersion) -> bool {
    version.is_before([1, 1, 0])
}

/// Options of ours that upstream's constructor takes; what it takes for training is left out.
fn constructor_arguments(config: &ScanviConfig) -> Config {
    let mut arguments = options::to_config(config);
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
/// Its class.
const CLASS: Class = Class {
    name: "SCANVI",
    signature: &[
        "n_hidden",
        "n_latent",
        "n_layers",
        "dropout_rate",
        "dispersion",
        "gene_likelihood",
        "use_observed_lib_size",
        "linear_classifier",
    ],
    further: "model_kwargs",
    of_module: OF_MODULES,
    own_tensor: Some("y_prior"),
};
