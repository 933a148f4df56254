//! `saved_model`: scArches' folder, read and written.

use std::fs;

use archipelago_common::{StateDict, layout::Growth};
use archipelago_models::{
    formats::scarches::{self, SavedFolder},
    upstream::{Namespace, ScarchesModel as _, folder_to_reference},
    zoo::scgen::Scgen,
};
use serde_json::{Value, json};

use crate::case;

fn namespace() -> Namespace {
    Namespace { owner: "owner".parse().unwrap(), dataset: "atlas".parse().unwrap() }
}

#[test]
fn a_saved_folder_is_read_and_written() {
    let folder = case::folder("scgen").join("saved_model");
    let contents: Value = serde_json::from_slice(&fs::read(folder.join("CONTENTS.json")).unwrap()).unwrap();
    let bytes = fs::read(folder.join("expected_params.safetensors")).unwrap();
    let (expected, _) = StateDict::from_safetensors("case", &bytes).unwrap();
    assert!(scarches::is_one(&folder).unwrap());
    let saved = SavedFolder::read(&folder).unwrap();
    assert_eq!(serde_json::to_value(&saved.attributes).unwrap(), contents["attr.pkl"]);
    assert_eq!(saved.tensors.len(), expected.len());
    for (name, tensor) in saved.tensors.iter() {
        assert_eq!(Some(tensor), expected.get(&format!("param.{name}")), "{name}");
    }

    let reference = folder_to_reference(&saved, &namespace()).unwrap();
    assert!(reference.columns.is_empty() && reference.parts.is_empty(), "the folder has no conditions and no cells");
    assert!(matches!(reference.base.card.layout.growth, Growth::NoSurgery { .. }));
    let again = tempfile::tempdir().unwrap();
    let ours = Scgen.to_saved(&reference).unwrap();
    ours.write(again.path()).unwrap();
    let read = SavedFolder::read(again.path()).unwrap();
    assert_eq!((&read, &read.tensors), (&ours, &saved.tensors));
    assert_eq!(folder_to_reference(&read, &namespace()).unwrap(), reference);
    for (name, value) in contents["attr.pkl"].as_object().unwrap() {
        // What is exported is trained.
        let expected = if name == "is_trained_" { &json!(true) } else { value };
        assert!(read.attributes[name] == *expected || read.attributes[name].as_f64() == expected.as_f64(), "{name}");
    }
    assert_eq!(read.attributes.len(), contents["attr.pkl"].as_object().unwrap().len());
}

#[test]
fn a_folder_that_does_not_fit_together_is_refused() {
    let saved = SavedFolder::read(&case::folder("scgen").join("saved_model")).unwrap();
    let refused = |change: &dyn Fn(&mut SavedFolder)| {
        let mut saved = saved.clone();
        change(&mut saved);
        folder_to_reference(&saved, &namespace()).unwrap_err().to_string()
    };
    assert!(refused(&|saved| drop(saved.genes.pop())).contains("49 gene names, and `x_dim_` is 50"));
    assert!(refused(&|saved| drop(saved.attributes.remove("z_dim_"))).contains("another model than `TRVAE`"));
    let wide = refused(&|saved| drop(saved.attributes.insert("z_dim_".to_owned(), json!(6))));
    assert!(wide.contains("is 5 columns wide, expected 6 columns"), "{wide}");
    let layers = json!([16, 8, 4]);
    let deep = refused(&|saved| drop(saved.attributes.insert("hidden_layer_sizes_".to_owned(), layers.clone())));
    assert!(deep.contains("`decoder.FirstL.N0.bias` is 8 columns wide, expected 4 columns"), "{deep}");
}
