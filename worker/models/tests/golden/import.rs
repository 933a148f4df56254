//! Saved models of scvi-tools: every case is read as what it is, and survives export.

use std::{
    io::Cursor,
    path::{Path, PathBuf},
};

use archipelago_common::{DType, StateDict};
use archipelago_models::{
    Error,
    formats::{
        pickle::Scalar,
        scvi_tools::{self, SavedModel, VarNames},
        torch::TorchArchive,
    },
    upstream::{Namespace, to_reference, unknown_arguments},
};
use serde_json::Value as Json;

use crate::case;

/// Folders with cases of saved models: `$ARCHIPELAGO_GOLDEN`, else the repository's, and what lies beside the repository.
fn folders() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/import");
    let mut folders = vec![case::folder("import")];
    folders.extend(std::env::var_os("ARCHIPELAGO_GOLDEN").is_none().then_some(beside));
    folders.into_iter().filter(|folder| case::holds_saved_models(folder)).collect()
}

/// All cases by name; the first folder that has one wins. A directory of other cases has none, and says so.
fn cases() -> Vec<(String, PathBuf)> {
    let mut cases = std::collections::BTreeMap::new();
    for folder in folders() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.join("expected.json").is_file() {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                cases.entry(name).or_insert(path);
            }
        }
    }
    if cases.is_empty() {
        assert!(case::holds_numbers(), "`{}` holds no golden case", case::root().display());
        case::say(&format!("import: skipped, no saved model in `{}`", case::root().display()));
    }
    cases.into_iter().collect()
}

fn expected(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path.join("expected.json")).unwrap()).unwrap()
}

/// The case's tensors; the case in the old layout has none of its own.
fn tensors(path: &Path) -> StateDict {
    let file = path.join("expected.safetensors");
    if !file.is_file() {
        return StateDict::new();
    }
    StateDict::from_safetensors("case", &std::fs::read(file).unwrap()).unwrap().0
}

fn texts(list: &Json) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn names(categories: &[Scalar]) -> Vec<String> {
    categories.iter().map(Scalar::to_string).collect()
}

/// Compares a model with what the case says about it; returns the number of tensors that were compared.
fn check(name: &str, path: &Path, model: &SavedModel) -> usize {
    let expected = expected(path);
    let field = |key: &str| expected.get(key).filter(|value| !value.is_null());
    if let Some(class) = field("model").and_then(Json::as_str).filter(|class| !class.contains(' ')) {
        assert_eq!(model.model_name.as_deref(), Some(class), "{name}");
    }
    if let Some(version) = field("saved_by").and_then(Json::as_str).filter(|by| !by.contains(' ')) {
        assert_eq!(model.version.to_string(), version, "{name}");
    }
    if let Some(genes) = field("genes") {
        assert_eq!(model.genes(), texts(genes), "{name}");
    }
    if let Some(categories) = field("batch_categories") {
        assert_eq!(names(&model.registry.batch.categories), texts(categories), "{name}");
    }
    if let Some(categories) = field("label_categories") {
        // scANVI registers the unlabelled category after the others.
        let labels = names(&model.registry.labels.categories);
        let unlabeled = model.unlabeled_category.as_ref().map(Scalar::to_string);
        let labels: Vec<String> = labels.into_iter().filter(|label| Some(label) != unlabeled.as_ref()).collect();
        let in_data: Vec<String> = texts(categories).into_iter().filter(|l| Some(l) != unlabeled.as_ref()).collect();
        assert_eq!(labels, in_data, "{name}");
    }
    if let Some(options) = field("constructor").and_then(Json::as_object) {
        for (option, value) in options {
            assert_eq!(model.init_params.get(option), Some(value), "{name}: {option}");
        }
    }
    for (key, found) in [("train_indices", &model.indices.train), ("validation_indices", &model.indices.validation)] {
        if let Some(list) = field(key) {
            let list: Vec<usize> = list.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
            assert_eq!(found, &list, "{name}: {key}");
        }
    }
    check_tensors(name, &model.state_dict, &tensors(path)) + check_digests(name, &model.state_dict, &expected)
}

fn check_tensors(name: &str, found: &StateDict, expected: &StateDict) -> usize {
    let parameters = expected.iter().filter_map(|(key, tensor)| Some((key.strip_prefix("param/")?, tensor)));
    let mut n = 0;
    for (key, tensor) in parameters {
        assert_eq!(found.get(key), Some(tensor), "{name}: {key}");
        assert_eq!(found.require(name, key).unwrap().bytes(), tensor.bytes(), "{name}: {key}");
        n += 1;
    }
    n
}

fn check_digests(name: &str, found: &StateDict, expected: &Json) -> usize {
    let Some(digests) = expected.get("state_digest").and_then(Json::as_object) else { return 0 };
    // The digest of an old totalVI model is of what a reader adds as well: zeros for a tensor that came later.
    let digests: Vec<_> =
        digests.iter().filter(|(key, _)| *key != "log_per_batch_efficiency" || found.get(key).is_some()).collect();
    for (key, digest) in &digests {
        let tensor = found.require(name, key).unwrap();
        let values: Vec<f64> = match tensor.dtype() {
            DType::F32 => tensor.to_f32(key).unwrap().into_iter().map(f64::from).collect(),
            _ => tensor.to_i64(key).unwrap().into_iter().map(|value| value as f64).collect(),
        };
        let shape: Vec<u64> = tensor.shape().iter().map(|&n| n as u64).collect();
        assert_eq!(serde_json::json!(shape), digest["shape"], "{name}: {key}");
        let close = |a: f64, b: &Json| (a - b.as_f64().unwrap()).abs() <= 1e-4 + 1e-5 * a.abs();
        assert!(close(values.iter().sum(), &digest["sum"]), "{name}: {key}");
        assert!(close(values.iter().map(|v| v.abs()).sum(), &digest["abs_sum"]), "{name}: {key}");
        for (value, first) in values.iter().zip(digest["first"].as_array().unwrap()) {
            // As singles: the text of a double may be read an ulp off.
            assert_eq!(*value as f32, first.as_f64().unwrap() as f32, "{name}: {key}");
        }
        let last = |value: f64| value as f32;
        assert_eq!(values.last().copied().map(last), digest["last"].as_f64().map(last), "{name}: {key}");
    }
    // Pyro's store is no tensor, and nothing else may be left out or added.
    assert_eq!(found.len(), digests.len(), "{name}: number of tensors");
    digests.len()
}

#[test]
fn import_reads_every_case_as_what_it_is() {
    for (name, path) in cases() {
        let model = scvi_tools::read(&path, "").unwrap_or_else(|e| panic!("{name}: {e}: {e:?}"));
        let n = check(&name, &path, &model);
        assert!(n > 0 || name == "scvi_legacy_layout", "{name}: no tensor was compared");
        assert_eq!(unknown_arguments(&model).unwrap(), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn import_of_the_old_layout_gives_the_model_that_the_new_layout_gives() {
    let cases: std::collections::BTreeMap<_, _> = cases().into_iter().collect();
    let (Some(old), Some(new)) = (cases.get("scvi_legacy_layout"), cases.get("scvi_v1_4_2")) else {
        return case::say("import: skipped, the cases `scvi_legacy_layout` and `scvi_v1_4_2` are not both here");
    };
    let by_file = scvi_tools::read(&old.join("model_params.pt"), "").unwrap();
    let (old, new) = (scvi_tools::read(old, "").unwrap(), scvi_tools::read(new, "").unwrap());
    assert_eq!(by_file, old);
    assert_eq!((old.model_name.as_deref(), new.model_name.as_deref()), (None, Some("SCVI")));
    assert_eq!(old.state_dict, new.state_dict);
    assert_eq!(old.genes(), new.genes());
    assert_eq!(old.registry.batch, new.registry.batch);
    assert_eq!(old.registry.labels, new.registry.labels);
    assert_eq!(old.indices, new.indices);
    assert!(old.init_params.iter().all(|(name, value)| new.init_params.get(name) == Some(value)));
    assert!(old.version.is_before([0, 15, 0]) && !new.version.is_before([1, 4, 2]));
}

#[test]
fn import_knows_what_the_saving_version_computed() {
    let namespace = Namespace { owner: "atlas".parse().unwrap(), dataset: "lung".parse().unwrap() };
    for (name, path) in cases() {
        let (model, expected) = (scvi_tools::read(&path, "").unwrap(), expected(&path));
        let config = to_reference(&model, &namespace).unwrap().base.card.config;
        if let Some(logits) = expected.get("classifier_outputs_logits").and_then(Json::as_bool) {
            assert_eq!(config["classifier_parameters"]["logits"], logits, "{name}");
        }
        if let Some(activation) = expected.get("background_scale_activation").and_then(Json::as_str) {
            let is_exponential = config["extra_decoder_kwargs"]["activation_function_bg"] == "exp";
            assert_eq!(is_exponential, activation == "ExpActivation", "{name}");
            assert_eq!(config["behaviour"], "before-1.3.1", "{name}");
            assert!(model.state_dict.get("log_per_batch_efficiency").is_none(), "{name}");
            assert_eq!(model.registry.proteins.as_ref().unwrap().names.len(), 100, "{name}");
        }
        if model.version.to_string() == "1.4.2" {
            assert_ne!(config.get("behaviour"), Some(&Json::from("before-1.3.1")), "{name}");
            assert_ne!(config.get("classifier_parameters").map(|own| &own["logits"]), Some(&false.into()), "{name}");
        }
    }
}

#[test]
fn export_reads_back_as_the_same_model() {
    for (name, path) in cases() {
        let model = scvi_tools::read(&path, "").unwrap();
        let folder = tempfile::tempdir().unwrap();
        scvi_tools::write(&model, folder.path()).unwrap();
        let again = scvi_tools::read(folder.path(), "").unwrap();
        check(&name, &path, &SavedModel { indices: model.indices.clone(), ..again.clone() });
        assert_eq!(again.state_dict, model.state_dict, "{name}");
        assert_eq!(again.init_params, model.init_params, "{name}");
        assert_eq!(again.registry.batch, model.registry.batch, "{name}");
        assert_eq!(again.registry.labels, model.registry.labels, "{name}");
        assert_eq!(again.registry.proteins, model.registry.proteins, "{name}");
        assert_eq!(again.unlabeled_category, model.unlabeled_category, "{name}");
        assert_eq!(scvi_tools::to_bytes(&again).unwrap(), scvi_tools::to_bytes(&model).unwrap(), "{name}");
    }
}

#[test]
fn export_has_the_attributes_that_scvi_tools_accepts() {
    for (name, path) in cases() {
        let Some(mut accepted) = expected(&path).get("attr_dict").cloned() else { continue };
        let model = scvi_tools::read(&path, "").unwrap();
        let bytes = scvi_tools::to_bytes(&model).unwrap();
        let mut archive = TorchArchive::new(Cursor::new(bytes), Path::new("model.pt")).unwrap();
        let pickle = archive.pickle().unwrap();
        let mut ours = pickle.root().get("attr_dict").unwrap().to_json().unwrap();
        // An argument that is null and one that is not given are the same to a constructor.
        drop_null_options(&mut accepted);
        drop_null_options(&mut ours);
        assert_eq!(ours["registry_"], accepted["registry_"], "{name}");
        assert_eq!(ours, accepted, "{name}");
    }
}

fn drop_null_options(attributes: &mut Json) {
    for dict in ["/registry_/setup_args", "/init_params_/non_kwargs"] {
        attributes.pointer_mut(dict).unwrap().as_object_mut().unwrap().retain(|_, value| !value.is_null());
    }
}

#[test]
fn import_refuses_an_archive_cut_anywhere() {
    let (_, path) = cases().into_iter().find(|(name, _)| name == "minimal_export_scvi").unwrap();
    let bytes = std::fs::read(path.join("model.pt")).unwrap();
    let lengths = (0..bytes.len()).step_by(97).chain(bytes.len() - 64..bytes.len());
    for length in lengths {
        match scvi_tools::from_bytes(&bytes[..length]) {
            Err(Error::Import { .. }) => {}
            other => panic!("cut at {length} of {}: {other:?}", bytes.len()),
        }
    }
    assert!(scvi_tools::from_bytes(&bytes).is_ok());
}

#[test]
fn import_of_damaged_bytes_is_an_error_or_a_model_but_never_a_panic() {
    let (_, path) = cases().into_iter().find(|(name, _)| name == "scvi_v1_4_2_query").unwrap();
    let bytes = std::fs::read(path.join("model.pt")).unwrap();
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(61) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        refused += usize::from(scvi_tools::from_bytes(&damaged).is_err());
    }
    // A checksum covers the members; padding and unread members are all that may change unnoticed.
    assert!(refused * 2 > bytes.len() / 61, "only {refused} damaged files were refused");
}

#[test]
fn import_says_what_a_folder_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let error = scvi_tools::read(folder.path(), "").unwrap_err().to_string();
    assert!(error.contains("neither `model.pt` nor `model_params.pt`"), "{error}");

    let other = folder.path().join("weights.h5");
    std::fs::write(&other, b"").unwrap();
    let error = scvi_tools::read(&other, "").unwrap_err().to_string();
    assert!(error.contains("expected a folder, or a file whose name ends in `model.pt`"), "{error}");
}

#[test]
fn import_refuses_the_stream_of_old_pytorch_by_name() {
    let magic = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
    let error = scvi_tools::from_bytes(&magic).unwrap_err().to_string();
    assert!(error.contains("before 1.6"), "{error}");
}

#[test]
fn import_finds_files_by_prefix() {
    let (_, path) = cases().into_iter().find(|(name, _)| name == "scvi_v1_4_2").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lung_model.pt");
    std::fs::copy(path.join("model.pt"), &file).unwrap();
    let model = scvi_tools::read(&path, "").unwrap();
    assert!(matches!(model.var_names, VarNames::Flat(_)));
    assert_eq!(scvi_tools::read(folder.path(), "lung_").unwrap(), model);
    assert_eq!(scvi_tools::read(&file, "").unwrap(), model);
    assert!(scvi_tools::read(folder.path(), "").is_err());
}
