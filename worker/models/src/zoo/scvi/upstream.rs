//! scVI in scvi-tools: its class, and a saved model to a reference and back. What a model that is made of it has of it is here too.

use archipelago_common::state_dict::Tensor;

use super::{Dispersion, Scvi, ScviConfig};
use crate::{
    blueprint::Blueprint,
    data::{LABELS, LabelNames},
    error::Result,
    formats::scvi_tools::SavedModel,
    model::Model as _,
    reference::Reference,
    upstream::{Class, Namespace, ScviToolsModel},
    zoo::family::scvi_tools::{OF_MODULES, data_registry, export, given_options, import},
};

impl ScviToolsModel for Scvi {
    fn class(&self) -> &'static Class {
        &CLASS
    }

    fn to_reference(&self, saved: &SavedModel, namespace: &Namespace) -> Result<Reference> {
        let model = self.configure(&given_options(saved, &self.options()))?;
        let takes_labels = model.fields().iter().any(|field| field.name == LABELS);
        let names = if takes_labels { saved.registry.labels.names() } else { vec![] };
        let registry = data_registry(saved, LabelNames { names, unlabelled: None })?;
        let blueprint = Blueprint { model, registry, n_genes: saved.genes().len() };
        import(self, &CLASS, saved, &blueprint, namespace, &[])
    }

    /// Tensors that upstream keeps and never uses with these options are filled in: their values change nothing.
    fn to_saved(&self, reference: &Reference) -> Result<SavedModel> {
        let Blueprint { model, registry, .. } = Blueprint::of_card(&reference.base.card)?;
        let config = ScviConfig::parse(&model.options())?;
        Ok(with_unused(export(&CLASS, model.options(), &registry, reference)?, &config))
    }
}

/// Adds the tensors that upstream has with every option. The library encoder starts as the first layer of the other one.
pub(in crate::zoo) fn with_unused(mut saved: SavedModel, config: &ScviConfig) -> SavedModel {
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
/// Its class.
const CLASS: Class = Class {
    name: "SCVI",
    signature: &[
        "n_hidden",
        "n_latent",
        "n_layers",
        "dropout_rate",
        "dispersion",
        "gene_likelihood",
        "use_observed_lib_size",
        "latent_distribution",
    ],
    further: "kwargs",
    of_module: OF_MODULES,
    own_tensor: None,
};
