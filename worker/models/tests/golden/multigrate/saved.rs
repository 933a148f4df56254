//! Saved models of both releases as references, and back: the loss of a case's cells is the case's.

use std::collections::BTreeMap;

use archipelago_common::{Section, StateDict};
use archipelago_models::{
    Device,
    formats::{
        pickle::Scalar,
        scvi_tools::{self, Arguments, CategoricalField, Indices, SavedModel, SavedRegistry, VarNames},
    },
    nn::{Mode, Pass, from_tch},
    upstream::{self, Namespace},
};
use serde_json::{Value, json};
use tch::Kind;

use super::{
    is_network,
    setup::{is_legacy, kl_weight, minibatch_of},
};
use crate::{
    case::{self, Case, Tolerance},
    noise::Draws,
};

/// The model of a case as upstream would have saved it.
fn saved(case: &Case) -> SavedModel {
    let options = &case.json["options"];
    let lengths: Vec<usize> = serde_json::from_value(options["modality_lengths"].clone()).unwrap();
    let sizes: Vec<usize> = serde_json::from_value(options["cat_dims"].clone()).unwrap();
    let covariate = |(k, n): (usize, &usize)| CategoricalField {
        key: format!("Key {k}"),
        categories: (0..*n).map(|category| Scalar::Text(format!("category{category}"))).collect(),
    };
    let named =
        ["condition_encoders", "normalization", "z_dim", "cond_dim", "loss_coefs", "losses", "mix", "kernel_type"];
    let further =
        ["n_layers_encoders", "n_layers_decoders", "n_hidden_encoders", "n_hidden_decoders", "activation", "mmd"];
    let curves =
        ["cont_cov_type", "n_layers_cont_embed", "n_hidden_cont_embed", "modality_alignment", "alignment_type"];
    let given = named.iter().chain(&further).chain(&curves);
    let mut arguments: BTreeMap<String, Value> =
        given.filter_map(|&name| Some((name.to_owned(), options.get(name)?.clone()))).collect();
    arguments.insert("dropout".to_owned(), json!(0.0));
    // The cases call no norm so, and 0.0.2 takes the word for it.
    if is_legacy(case) && options["normalization"].is_null() {
        arguments.insert("normalization".to_owned(), json!("none"));
    }
    if let Some(at) = options["integrate_on_idx"].as_u64() {
        arguments.insert("integrate_on".to_owned(), json!(format!("Key {at}")));
    }
    let state_dict: StateDict = case
        .group("param/")
        .iter()
        .map(|(name, _)| {
            let tensor = case.tensor(&format!("param/{name}"));
            let kind = if tensor.kind() == Kind::Int64 { Kind::Int64 } else { Kind::Float };
            (name.to_owned(), from_tch(&tensor.to_kind(kind)))
        })
        .collect();
    let genes: Vec<String> = (0..lengths.iter().sum()).map(|i: usize| format!("feature{i}")).collect();
    let has_continuous = options["n_cont"].as_u64().unwrap_or(0) > 0;
    SavedModel {
        version: "1.4.3".parse().unwrap(),
        model_name: Some("MultiVAE".to_owned()),
        state_dict,
        var_names: VarNames::Flat(genes.clone()),
        init_params: Arguments { named: arguments, further: BTreeMap::new() },
        chosen: BTreeMap::new(),
        registry: SavedRegistry {
            genes,
            size_factor_key: Some("factors".to_owned()),
            categorical_covariates: sizes.iter().enumerate().map(covariate).collect(),
            continuous_covariates: if has_continuous { vec!["age".to_owned()] } else { vec![] },
            ..SavedRegistry::default()
        },
        unlabeled_category: None,
        is_trained: true,
        indices: Indices::default(),
    }
}

fn namespace() -> Namespace {
    Namespace { owner: "atlas".parse().unwrap(), dataset: "blood".parse().unwrap() }
}

#[test]
fn a_saved_model_computes_what_it_did_and_goes_back() {
    case::run(super::MODEL, is_network, |case, report| {
        let saved = saved(case);
        let reference = upstream::to_reference(&saved, &namespace()).unwrap();
        let keys: Vec<_> = reference.columns.keys().cloned().collect();
        report.holds("every key is on an axis", keys.iter().all(|key| *key.section() != Section::Condition));
        let module = reference.module(&keys, Device::Cpu).unwrap();
        let (cells, mut noise) = (minibatch_of(case, Kind::Float), Draws::of_step(case, 0));
        let mut pass = Pass { mode: Mode::Training, noise: &mut noise };
        let loss = tch::no_grad(|| module.loss(&cells, kl_weight(case), &mut pass).loss);
        report.close(case, "out/loss", &loss, Tolerance { rtol: 1e-5, atol: 1e-4 });
        let back = upstream::from_reference(&reference).unwrap();
        if !is_legacy(case) {
            report.holds(&format!("{}: tensors", case.name), back.state_dict == saved.state_dict);
        }
        let named = &back.registry.categorical_covariates[0].key;
        report.holds(&format!("{}: covariates are called as they were: {named}", case.name), named == "Key 0");
        let again = upstream::to_reference(&back, &namespace()).unwrap();
        report.holds(&format!("{}: columns there and back", case.name), again.columns == reference.columns);
        report.holds(&format!("{}: tensors there and back", case.name), again.base.tensors == reference.base.tensors);
        let file = tempfile::tempdir().unwrap();
        scvi_tools::write(&back, file.path()).unwrap();
        let read = scvi_tools::read(file.path(), "").unwrap();
        report.holds(&format!("{}: a file", case.name), read.state_dict == back.state_dict);
        report.holds("covariates", read.registry.categorical_covariates == back.registry.categorical_covariates);
    });
}

#[test]
fn what_cannot_be_a_reference_is_refused_in_words() {
    case::run(
        super::MODEL,
        |name| name == "paired_nb_mse",
        |case, report| {
            let mut refused = |change: &dyn Fn(&mut SavedModel), word: &str| {
                let mut saved = saved(case);
                change(&mut saved);
                let said = upstream::to_reference(&saved, &namespace()).unwrap_err().to_string();
                report.holds(&format!("{said} speaks of {word}"), said.contains(word));
            };
            refused(&|saved| saved.registry.categorical_covariates.clear(), "no categorical covariates");
            refused(&|saved| drop(saved.registry.genes.pop()), "features, and it names");
            refused(
                &|saved| saved.registry.continuous_covariates = vec!["a".to_owned(), "b".to_owned()],
                "at most one fits its own network",
            );
            refused(
                &|saved| drop(saved.init_params.named.insert("ignore_covariates".to_owned(), json!(["Key 0"]))),
                "`ignore_covariates`",
            );
            refused(
                &|saved| drop(saved.registry.setup_args.insert("rna_indices_end".to_owned(), json!(3))),
                "sums of 3 features",
            );
        },
    );
}
