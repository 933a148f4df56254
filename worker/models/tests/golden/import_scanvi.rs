//! scANVI models of scvi-tools as references: the same latent and the same predictions here, and again there.

use std::path::PathBuf;

use archipelago_common::{ConditionKey, StateDict};
use archipelago_models::{
    CellConditions, Cells, Device, Error, PredictFrom, Reference,
    formats::scvi_tools::{self, SavedModel},
    upstream::{self, Namespace},
};

use crate::{case, import_scvi::csr};

fn namespace() -> Namespace {
    Namespace { owner: "atlas".parse().unwrap(), dataset: "lung".parse().unwrap() }
}

/// The folder of a case; none for a third party's file that this copy does not have.
fn find(name: &str) -> Option<PathBuf> {
    let folder = case::folder("import").join(name);
    if !folder.is_dir() {
        case::say(&format!("import/{name}: skipped, the folder is not here"));
    }
    Some(folder).filter(|folder| folder.is_dir())
}

fn read(name: &str) -> Option<(SavedModel, StateDict)> {
    let folder = find(name)?;
    let expected = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let expected = StateDict::from_safetensors("case", &expected).unwrap().0;
    Some((scvi_tools::read(&folder, "").unwrap(), expected))
}

fn minimal() -> Option<(SavedModel, StateDict)> {
    let found = read("minimal_export_scanvi");
    let is_elsewhere = std::env::var_os("ARCHIPELAGO_GOLDEN").is_some() && case::holds_numbers();
    assert!(found.is_some() || is_elsewhere, "the repository has this case");
    found
}

/// Compares latent means and, where the case has them, predictions.
fn check(reference: &Reference, saved: &SavedModel, expected: &StateDict) {
    let x = expected.get("input/x").unwrap();
    let counts = csr(x.shape(), &x.to_f32("input/x").unwrap());
    let codes = expected.get("input/batch").unwrap().to_i64("input/batch").unwrap();
    let batches = &saved.registry.batch.categories;
    let key = |code: i64| {
        let batch = batches[code as usize].to_string();
        ConditionKey::new(namespace().owner, namespace().dataset, batch).unwrap()
    };
    let conditions = CellConditions::from_keys(&codes.into_iter().map(key).collect::<Vec<_>>());
    let cells = Cells::new(&counts);
    let compare = |name: &str, ours: &ndarray::Array2<f32>| {
        let Some(theirs) = expected.get(name) else { return };
        let theirs = theirs.to_f32(name).unwrap();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let difference = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-5, "{name} differs by {difference}");
    };
    compare("expected/qz_mean", &reference.latent(&cells, &conditions, Device::Cpu).unwrap().mean);
    let predicted = reference.predict_labels(&cells, &conditions, PredictFrom::Mean, 0, Device::Cpu).unwrap();
    compare("expected/predict_soft", &predicted.probabilities);
}

#[test]
fn import_scanvi_gives_the_latent_that_scvi_tools_gives() {
    let Some((saved, expected)) = minimal() else { return };
    let reference = upstream::to_reference(&saved, &namespace()).unwrap();
    check(&reference, &saved, &expected);
    assert_eq!(reference.base.card.labels, ["type3", "type0", "type1", "type2"]);
    assert_eq!(reference.base.card.labels_key.as_deref(), Some("label"));
    assert_eq!(reference.base.card.config["unlabeled_category"], "Unknown");
}

#[test]
fn import_of_an_old_scanvi_keeps_its_probabilities() {
    let Some((saved, expected)) = read("scanvi_v1_0_3") else { return };
    let reference = upstream::to_reference(&saved, &namespace()).unwrap();
    assert_eq!(reference.base.card.config["classifier_parameters"]["logits"], false);
    check(&reference, &saved, &expected);
    let exported = upstream::from_reference(&reference).unwrap();
    let given = exported.init_params.get("classifier_parameters");
    assert_eq!(given, Some(&serde_json::json!({ "logits": false })));
    // On the way through bytes the batch that nobody registered gets scvi-tools' own name again.
    let again = scvi_tools::from_bytes(&scvi_tools::to_bytes(&exported).unwrap()).unwrap();
    check(&upstream::to_reference(&again, &namespace()).unwrap(), &saved, &expected);
}

#[test]
fn export_of_an_imported_scanvi_has_every_tensor_that_was_used_bit_for_bit() {
    let Some((saved, expected)) = minimal() else { return };
    let reference = upstream::to_reference(&saved, &namespace()).unwrap();
    let exported = upstream::from_reference(&reference).unwrap();
    let is_unused = |name: &str| {
        ["l_encoder.", "decoder.px_r_decoder.", "decoder.px_dropout_decoder."].iter().any(|part| name.starts_with(part))
    };
    for (name, tensor) in saved.state_dict.iter() {
        let ours = exported.state_dict.get(name).unwrap_or_else(|| panic!("`{name}` is missing"));
        assert_eq!(ours.spec(), tensor.spec(), "{name}");
        assert!(is_unused(name) || ours == tensor, "{name}");
    }
    assert_eq!(exported.state_dict.len(), saved.state_dict.len());
    assert_eq!(exported.registry.labels, saved.registry.labels);
    assert_eq!(exported.unlabeled_category, saved.unlabeled_category);
    assert!(upstream::unknown_arguments(&exported).unwrap().is_empty(), "{:?}", upstream::unknown_arguments(&exported));
    let again = scvi_tools::from_bytes(&scvi_tools::to_bytes(&exported).unwrap()).unwrap();
    assert_eq!((&again.state_dict, &again.init_params), (&exported.state_dict, &exported.init_params));
    check(&upstream::to_reference(&again, &namespace()).unwrap(), &saved, &expected);
}

#[test]
fn import_scanvi_refuses_what_is_not_one() {
    let Some((saved, _)) = minimal() else { return };
    let refused = |change: &dyn Fn(&mut SavedModel)| {
        let mut saved = saved.clone();
        change(&mut saved);
        upstream::to_reference(&saved, &namespace()).unwrap_err()
    };
    let other = refused(&|saved| saved.model_name = Some("PEAKVI".to_owned()));
    assert!(other.to_string().contains("holds a `PEAKVI`; `SCVI`"), "{other}");
    assert!(matches!(refused(&|saved| saved.unlabeled_category = None), Error::Import { .. }));
    assert!(matches!(refused(&|saved| drop(saved.registry.labels.categories.pop())), Error::Import { .. }));
    refused(&|saved| drop(saved.registry.labels.categories.remove(0)));
    refused(&|saved| drop(saved.state_dict.remove("classifier.classifier.1.bias")));
}
