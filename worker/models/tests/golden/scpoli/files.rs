//! `saved_model_nb` and `portable_export`: scArches' files, read and written.

use std::{fs, path::Path};

use archipelago_models::{
    Device, Reference, formats::scarches::SavedFolder, upstream::ScarchesModel as _, zoo::scpoli::Scpoli,
};
use serde_json::{Value, json};

use crate::runner::folder::{Folder, is_same, key, reference_of, written};

fn floats(reference: &Reference, name: &str) -> Vec<f32> {
    reference.base.tensors.require("the base", name).unwrap().to_f32(name).unwrap()
}

#[test]
fn a_saved_folder_is_read_with_its_prototypes() {
    let folder = Folder::read("scpoli", "saved_model_nb");
    let saved = &folder.saved;
    // Plain attributes are what the description says; those that are objects are told in other words there.
    let told = folder.attributes();
    assert!(saved.attributes.keys().eq(told.keys()));
    let objects = ["labeled_indices_", "obs_metadata_", "prototypes_labeled_"];
    for (name, value) in told.iter().filter(|(name, _)| !objects.contains(&name.as_str())) {
        assert!(is_same(&saved.attributes[name], value), "{name} is {}", saved.attributes[name]);
    }
    assert_eq!(saved.attributes["labeled_indices_"], json!((0..64).collect::<Vec<_>>()));
    assert_eq!(saved.orders["cell_types_"], ["t2", "t1", "t0"]);

    let reference = reference_of(saved);
    assert_eq!(reference.columns.keys().cloned().collect::<Vec<_>>(), [key("A"), key("B"), key("C")]);
    assert_eq!(reference.base.card.labels, ["t2", "t1", "t0"]);
    assert_eq!(
        (reference.base.card.batch_key.as_str(), reference.base.card.labels_key.as_deref()),
        ("study", Some("cell_type"))
    );
    let mean = floats(&reference, "prototypes.labeled.mean");
    let (first, cov) = (&mean[..5], floats(&reference, "prototypes.labeled.cov")[0]);
    for (ours, expected) in first.iter().zip([0.273, -0.013, -0.317, 0.029, -0.932]) {
        assert!((ours - expected).abs() < 6e-4, "{first:?}");
    }
    assert!((cov - 3.109).abs() < 6e-4, "{cov}");
}

#[test]
fn what_is_written_is_read_again() {
    let written = |reference: &Reference| reference_of(&written(&Scpoli, reference));
    for name in ["saved_model_nb", "portable_export"] {
        let reference = reference_of(&Folder::read("scpoli", name).saved);
        let again = written(&reference);
        // Types come back in name order, in which they are written.
        assert_eq!(again.base.card.labels, ["t0", "t1", "t2"], "{name}");
        let rows = |reference: &Reference| {
            let (labels, mean) = (reference.base.card.labels.clone(), floats(reference, "prototypes.labeled.mean"));
            labels.into_iter().zip(mean.chunks(5).map(<[f32]>::to_vec)).collect::<std::collections::BTreeMap<_, _>>()
        };
        assert_eq!((rows(&again), &again.columns), (rows(&reference), &reference.columns), "{name}");
        assert_eq!(written(&again), again, "{name}");
        let module = again.module(&[key("A")], Device::Cpu).unwrap();
        assert!(module.as_label_model().is_some() && module.weights().n_conditions() == 1);
    }
}

#[test]
fn every_attribute_that_upstream_reads_is_written() {
    let saved = Folder::read("scpoli", "saved_model_nb").saved;
    let ours = Scpoli.to_saved(&reference_of(&saved)).unwrap();
    assert!(ours.attributes.keys().eq(saved.attributes.keys()), "{:?}", ours.attributes.keys());
    let folder = tempfile::tempdir().unwrap();
    ours.write(folder.path()).unwrap();
    let pickle = fs::read(folder.path().join("attr.pkl")).unwrap();
    let has = |words: &str| pickle.windows(words.len()).any(|window| window == words.as_bytes());
    assert!(has("torch\ntensor") && has("pandas.core.frame\nDataFrame"), "tensors and frames are objects there");
}

#[test]
fn folders_that_cannot_be_references_are_refused_in_words() {
    let folder = Folder::read("scpoli", "saved_model_nb");
    let refused = |change: &dyn Fn(&mut SavedFolder)| folder.refused(change);
    let set = |name: &'static str, value: Value| {
        move |saved: &mut SavedFolder| drop(saved.attributes.insert(name.to_owned(), value.clone()))
    };
    let nan = json!({ "mean": { "tensor": vec![vec![Value::Null; 5]; 3] }, "cov": null });
    assert!(refused(&set("prototypes_labeled_", nan)).contains("not a number"));
    let short = json!({ "mean": { "tensor": vec![vec![0.5; 5]; 2] }, "cov": null });
    assert!(refused(&set("prototypes_labeled_", short)).contains("prototypes"));
    let wide = json!({ "mean": { "tensor": vec![vec![0.5; 6]; 3] }, "cov": null });
    assert!(refused(&set("prototypes_labeled_", wide)).contains("expected 3 of 5 numbers"));
    assert!(refused(&set("conditions_", json!({ "study": [] }))).contains("no conditions"));
    assert!(refused(&set("conditions_", json!({ "study": ["A", "A", "B"] }))).contains("two conditions"));
    assert!(refused(&|saved| drop(saved.genes.pop())).contains("49 gene names"));
    assert!(refused(&set("embedding_dims_", json!([4]))).contains("cond_L.weight"));
    assert!(refused(&set("recon_loss_", json!("bernoulli"))).contains("recon_loss"));
    // A prototype whose storage says another length than it has.
    let damaged = tempfile::tempdir().unwrap();
    copy(&folder.path, damaged.path());
    let file = damaged.path().join("attr.pkl");
    let mut bytes = fs::read(&file).unwrap();
    let length = 15_u64.to_le_bytes();
    let at = bytes.windows(8).position(|window| window == length).unwrap();
    bytes[at] = 14;
    fs::write(&file, bytes).unwrap();
    let error = SavedFolder::read(damaged.path()).unwrap_err().to_string();
    assert!(error.contains("prototypes_labeled_"), "{error}");
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
