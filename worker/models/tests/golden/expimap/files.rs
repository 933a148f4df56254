//! `saved_model_nb`: scArches' folder, read and written.

use std::fs;

use archipelago_common::{StateDict, Tensor};
use archipelago_models::{
    Blueprint,
    data::{GENE_SETS, slot},
    formats::scarches::{self, SavedFolder},
    upstream::{Namespace, ScarchesModel as _, folder_to_reference},
    zoo::expimap::Expimap,
};
use serde_json::{Value, json};

use crate::case;

fn namespace() -> Namespace {
    Namespace { owner: "owner".parse().unwrap(), dataset: "atlas".parse().unwrap() }
}

fn folder() -> std::path::PathBuf {
    let folder = case::folder("expimap").join("saved_model_nb");
    assert!(folder.is_dir(), "`{}` is not there", folder.display());
    folder
}

#[test]
fn saved_folders_are_read_and_written() {
    let folder = folder();
    let contents: Value = serde_json::from_slice(&fs::read(folder.join("CONTENTS.json")).unwrap()).unwrap();
    let bytes = fs::read(folder.join("expected_params.safetensors")).unwrap();
    let (expected, _) = StateDict::from_safetensors("case", &bytes).unwrap();
    assert!(scarches::is_one(&folder).unwrap());
    let saved = SavedFolder::read(&folder).unwrap();
    assert_eq!(serde_json::to_value(&saved.attributes).unwrap(), contents["attr.pkl"]);
    for (name, tensor) in saved.tensors.iter() {
        assert_eq!(Some(tensor), expected.get(&format!("param.{name}")), "{name}");
    }

    let reference = folder_to_reference(&saved, &namespace()).unwrap();
    assert_eq!(reference.base.card.model, "expimap");
    let registry = Blueprint::of_card(&reference.base.card).unwrap().registry;
    let sets = registry.remembered::<slot::GeneSets>(GENE_SETS).unwrap();
    assert_eq!((sets.terms().len(), sets.terms()[0].as_str()), (8, "term_0"));
    let again = tempfile::tempdir().unwrap();
    let ours = Expimap.to_saved(&reference).unwrap();
    ours.write(again.path()).unwrap();
    let read = SavedFolder::read(again.path()).unwrap();
    assert_eq!(read, ours);
    assert_eq!(folder_to_reference(&read, &namespace()).unwrap(), reference);
    // Every tensor and attribute is there, of the same kind; conditions are in name order, and what is exported is trained.
    assert_eq!(ours.tensors.len(), saved.tensors.len());
    for (name, tensor) in saved.tensors.iter() {
        assert_eq!(ours.tensors.get(name).map(Tensor::spec), Some(tensor.spec()), "{name}");
    }
    for (name, value) in contents["attr.pkl"].as_object().unwrap() {
        let ours = &read.attributes[name];
        assert!(
            ours == value
                || ours.as_f64() == value.as_f64() && ours.is_number()
                || name == "conditions_"
                || name == "is_trained_",
            "{name} is {ours}, expected {value}"
        );
    }
    assert_eq!(read.attributes.len(), contents["attr.pkl"].as_object().unwrap().len());
}

#[test]
fn what_a_site_keeps_is_exported_as_new_terms() {
    let reference = folder_to_reference(&SavedFolder::read(&folder()).unwrap(), &namespace()).unwrap();
    let zeros = |shape: &[usize]| Tensor::from_f32(shape, &vec![0.5; shape.iter().product()]);
    let kept = StateDict::from_iter([
        ("own.encoder.expand_mean_encoder.weight".to_owned(), zeros(&[3, 8])),
        ("own.encoder.expand_mean_encoder.bias".to_owned(), zeros(&[3])),
        ("own.encoder.expand_var_encoder.weight".to_owned(), zeros(&[3, 8])),
        ("own.encoder.expand_var_encoder.bias".to_owned(), zeros(&[3])),
        ("own.decoder.L0.ext_L.weight".to_owned(), zeros(&[50, 2])),
        ("own.decoder.L0.ext_L_m.weight".to_owned(), zeros(&[50, 1])),
        ("own.gene_set/B CELLS".to_owned(), Tensor::from_f32(&[50], &[vec![1.0; 4], vec![0.0; 46]].concat())),
    ]);
    let mut mapped = reference.clone();
    mapped.local.insert(reference.columns.keys().next().unwrap().clone(), kept);
    let saved = Expimap.to_saved(&mapped).unwrap();
    assert_eq!((&saved.attributes["n_ext_"], &saved.attributes["n_ext_m_"]), (&json!(2), &json!(1)));
    assert_eq!(saved.attributes["latent_dim_"], json!(8));
    assert_eq!(saved.tensors.get("decoder.L0.ext_L.weight").unwrap().shape(), [50, 2]);
    assert!(saved.tensors.iter().all(|(name, _)| !name.starts_with("own.")));
    let again = folder_to_reference(&saved, &namespace()).unwrap();
    assert_eq!(again.base.card.config["n_ext"], json!(2));
}

#[test]
fn folders_that_make_no_sense_are_refused() {
    let saved = SavedFolder::read(&folder()).unwrap();
    let refused = |change: &dyn Fn(&mut SavedFolder)| {
        let mut saved = saved.clone();
        change(&mut saved);
        folder_to_reference(&saved, &namespace()).unwrap_err().to_string()
    };
    assert!(refused(&|saved| drop(saved.attributes.remove("mask_"))).contains("another model than"));
    assert!(refused(&|saved| drop(saved.attributes.insert("mask_".to_owned(), json!([])))).contains("no term"));
    let short = json!([[1, 0, 1]]);
    let error = refused(&|saved| drop(saved.attributes.insert("mask_".to_owned(), short.clone())));
    assert!(error.contains("3 entries, expected 50"), "{error}");
    let wrong = json!([vec![2; 50]]);
    assert!(refused(&|saved| drop(saved.attributes.insert("mask_".to_owned(), wrong.clone()))).contains("0 or 1"));
    let fewer = json!([vec![1; 50]]);
    let error = refused(&|saved| drop(saved.attributes.insert("mask_".to_owned(), fewer.clone())));
    assert!(error.contains("expr_L") || error.contains("mean_encoder"), "{error}");
}
