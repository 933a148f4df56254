//! `saved_model_nb`: scArches' folder, read and written.

use archipelago_common::{StateDict, Tensor};
use archipelago_models::{
    Blueprint,
    data::{GENE_SETS, slot},
    formats::scarches::SavedFolder,
    upstream::{ScarchesModel as _, with_terms},
    zoo::expimap::Expimap,
};
use serde_json::json;

use crate::runner::folder::{Folder, reference_of};

#[test]
fn saved_folders_are_read_and_written() {
    let (reference, _) = Folder::read("expimap", "saved_model_nb").comes_back(&Expimap);
    assert_eq!(reference.base.card.model, "expimap");
    let registry = Blueprint::of_card(&reference.base.card).unwrap().registry;
    let sets = registry.remembered::<slot::GeneSets>(GENE_SETS).unwrap();
    assert_eq!((sets.terms().len(), sets.terms()[0].as_str()), (8, "term_0"));
}

#[test]
fn what_a_site_keeps_is_exported_as_new_terms() {
    let reference = reference_of(&Folder::read("expimap", "saved_model_nb").saved);
    let zeros = |shape: &[usize]| Tensor::from_f32(shape, &vec![0.5; shape.iter().product()]);
    let kept = StateDict::from_iter([
        ("own.encoder.expand_mean_encoder.weight".to_owned(), zeros(&[3, 8])),
        ("own.encoder.expand_mean_encoder.bias".to_owned(), zeros(&[3])),
        ("own.encoder.expand_var_encoder.weight".to_owned(), zeros(&[3, 8])),
        ("own.encoder.expand_var_encoder.bias".to_owned(), zeros(&[3])),
        ("own.decoder.L0.ext_L.weight".to_owned(), zeros(&[50, 2])),
        ("own.decoder.L0.ext_L_m.weight".to_owned(), zeros(&[50, 1])),
        ("own.gene_set/0/B CELLS".to_owned(), Tensor::from_f32(&[50], &[vec![1.0; 4], vec![0.0; 46]].concat())),
    ]);
    let mut mapped = reference.clone();
    mapped.local.insert(reference.columns.keys().next().unwrap().clone(), kept);
    let saved = Expimap.to_saved(&mapped).unwrap();
    assert_eq!((&saved.attributes["n_ext_"], &saved.attributes["n_ext_m_"]), (&json!(2), &json!(1)));
    assert_eq!(saved.attributes["latent_dim_"], json!(8));
    assert_eq!(saved.tensors.get("decoder.L0.ext_L.weight").unwrap().shape(), [50, 2]);
    assert!(saved.tensors.iter().all(|(name, _)| !name.starts_with("own.")));
    let again = reference_of(&saved);
    assert_eq!(again.base.card.config["n_ext"], json!(2));
}

#[test]
fn terms_have_the_names_that_the_folder_or_the_user_has_for_them() {
    let saved = Folder::read("expimap", "saved_model_nb").saved;
    let names = |saved: &SavedFolder| {
        let reference = reference_of(saved);
        let terms = reference.base.card.config["registry"].to_string();
        (reference, terms)
    };
    let (_, unnamed) = names(&saved);
    assert!(unnamed.contains("\"term_0\"") && unnamed.contains("\"term_7\""), "{unnamed}");
    let given: Vec<String> = (0..8).map(|i| format!("SET {i}")).collect();
    let (reference, named) = names(&with_terms(saved.clone(), given.clone()).unwrap());
    assert!(given.iter().all(|name| named.contains(&format!("\"{name}\""))), "{named}");
    let exported = Expimap.to_saved(&reference).unwrap();
    assert_eq!(exported.attributes["terms_"], json!(given));
    assert_eq!(names(&exported).1, named, "an export has the names");
    let refused = |n: usize| with_terms(saved.clone(), vec!["A".to_owned(); n]).unwrap_err().to_string();
    assert!(refused(7).contains("7 names of terms, expected 8"), "{}", refused(7));
    let other =
        SavedFolder { attributes: [("n_ext_", 1), ("is", 2)].map(|(k, v)| (k.to_owned(), json!(v))).into(), ..saved };
    assert!(with_terms(other, given).unwrap_err().to_string().contains("`mask_` of `EXPIMAP`"));
}

#[test]
fn folders_that_make_no_sense_are_refused() {
    let folder = Folder::read("expimap", "saved_model_nb");
    let refused = |change: &dyn Fn(&mut SavedFolder)| folder.refused(change);
    assert!(refused(&|saved| drop(saved.attributes.remove("mask_"))).contains("`mask_` of `EXPIMAP`"));
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
