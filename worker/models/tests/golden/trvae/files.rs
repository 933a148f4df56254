//! `adaptor_*` and `saved_model_*`: scArches' files, read and written.

use std::collections::BTreeMap;

use archipelago_common::StateDict;
use archipelago_models::{
    Reference,
    formats::scarches::{SavedFolder, adaptor::Adaptor},
    upstream::ScarchesModel as _,
    zoo::{
        family::adaptor::{adaptor_of, columns_of, shared_genes},
        trvae::Trvae,
    },
};
use serde_json::{Value, json};

use crate::{
    case::{self, Case, Report},
    runner::folder::{Folder, key, namespace},
};

pub(super) fn is_one(name: &str) -> bool {
    name.starts_with("adaptor_")
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// The reference of tensors under a prefix of a case.
fn reference(case: &Case, prefix: &str, conditions: &Value) -> Reference {
    let model = &case.json["adaptors"][0]["adapt_params"]["model_params"];
    let genes = texts(&model["varnames"]);
    let attributes = [
        ("hidden_layer_sizes_", model["hidden_layer_sizes"].clone()),
        ("latent_dim_", model["latent_dim"].clone()),
        ("recon_loss_", model["recon_loss"].clone()),
        ("mmd_on_", json!("z")),
        ("conditions_", conditions.clone()),
        ("input_dim_", json!(genes.len())),
    ];
    let attributes: BTreeMap<String, Value> =
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Trvae.to_reference(&SavedFolder::new(case.group(prefix), attributes, genes), &namespace()).unwrap()
}

fn adaptor(case: &Case, i: usize) -> Adaptor {
    let params = &case.json["adaptors"][i]["adapt_params"];
    let model = params["model_params"].as_object().unwrap().clone().into_iter().collect();
    let condition = params["condition"].as_str().unwrap().to_owned();
    Adaptor { condition, columns: case.group(&format!("adaptor{i}.")), model }
}

/// A condition's columns as an adaptor, through files, and attached to another model of the same base.
#[test]
fn adaptors() {
    case::run("trvae", is_one, |case, report| {
        let mut attached = reference(case, "target.", &case.json["target_conditions"]);
        for i in 0..case.json["adaptors"].as_array().unwrap().len() {
            let expected = adaptor(case, i);
            let of_source = &case.json["adaptors"][i]["source_conditions"];
            let source = reference(case, &format!("source{i}."), of_source);
            let ours = adaptor_of(&source, &key(&expected.condition)).unwrap();
            report.holds(&format!("{}: adaptor {i}", case.name), ours == expected);
            let folder = tempfile::tempdir().unwrap();
            ours.write(folder.path()).unwrap();
            report.holds(&format!("{}: files {i}", case.name), Adaptor::read(folder.path()).unwrap() == expected);
            let columns = columns_of(&attached, &expected).unwrap();
            report.holds(&format!("{}: genes {i}", case.name), shared_genes(&attached, &expected) == 1.0);
            attached = attached.with(key(&expected.condition), columns).unwrap();
        }
        check_tensors(case, "attached.", &Trvae.to_saved(&attached).unwrap(), report);
        refuses_what_does_not_fit(case, &attached, report);
    });
}

/// Compares a saved model with tensors that are in the case's own order of conditions.
fn check_tensors(case: &Case, prefix: &str, ours: &SavedFolder, report: &mut Report) {
    let order = texts(&case.json["attached_conditions"]);
    let names = texts(&ours.attributes["conditions_"]);
    let codes: Vec<i64> = order.iter().map(|name| names.iter().position(|own| own == name).unwrap() as i64).collect();
    let codes = tch::Tensor::from_slice(&codes);
    for (name, tensor) in ours.tensors.iter() {
        let tensor = archipelago_models::nn::to_tch(name, tensor).unwrap();
        let is_per_condition = name == "theta" || name.ends_with("cond_L.weight");
        let tensor = if is_per_condition { tensor.index_select(1, &codes) } else { tensor };
        report.holds(&format!("{}: {prefix}{name}", case.name), tensor == case.tensor(&format!("{prefix}{name}")));
    }
    report.holds(&format!("{}: number of tensors", case.name), ours.tensors.len() == case.group(prefix).len());
}

fn refuses_what_does_not_fit(case: &Case, reference: &Reference, report: &mut Report) {
    let mut refused = |what: &str, change: &dyn Fn(&mut Adaptor)| {
        let mut adaptor = adaptor(case, 0);
        change(&mut adaptor);
        let error = columns_of(reference, &adaptor).unwrap_err().to_string();
        report.holds(&format!("{}: {what}: {error}", case.name), error.contains(what));
    };
    refused("latent_dim", &|adaptor| drop(adaptor.model.insert("latent_dim".to_owned(), json!(6))));
    refused("recon_loss", &|adaptor| drop(adaptor.model.remove("recon_loss")));
    refused("cond_L", &|adaptor| drop(std::mem::replace(&mut adaptor.columns, StateDict::new())));
}

#[test]
fn saved_folders_are_read_and_written() {
    let folder = Folder::read("trvae", "saved_model_nb");
    assert_eq!(folder.saved.genes, (0..50).map(|gene| format!("g{gene}")).collect::<Vec<_>>());
    let (reference, _) = folder.comes_back(&Trvae);
    assert_eq!(reference.columns.keys().cloned().collect::<Vec<_>>(), [key("A"), key("B"), key("C")]);
}

#[test]
fn a_folder_that_is_another_models_is_refused() {
    let folder = Folder::read("trvae", "saved_model_nb");
    let refused = |change: &dyn Fn(&mut SavedFolder)| folder.refused(change);
    assert!(refused(&|saved| drop(saved.attributes.remove("mmd_on_"))).contains("every model: `mmd_on_` of `TRVAE`; "));
    assert!(
        refused(&|saved| drop(saved.attributes.insert("conditions_".to_owned(), json!([])))).contains("no conditions")
    );
    assert!(refused(&|saved| drop(saved.genes.pop())).contains("49 gene names"));
    assert!(refused(&|saved| drop(saved.attributes.insert("latent_dim_".to_owned(), json!(6)))).contains("expr_L"));
    let names = SavedFolder { genes: vec!["a,b".to_owned()], ..folder.saved.clone() };
    let error = names.write(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
    assert!(error.contains("a,b"), "{error}");
}
