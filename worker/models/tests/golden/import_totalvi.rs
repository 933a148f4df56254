//! totalVI models of scvi-tools as references: the numbers of the version that saved them, here and there.

use std::path::Path;

use archipelago_common::{Columns, ConditionKey, StateDict};
use archipelago_models::{
    Blueprint, CellConditions, Cells, Device, Error, Reference,
    data::Features,
    formats::scvi_tools::{self, SavedModel},
    nn::{Builder, ConditionSource, Source, Trainable, to_tch},
    results::ExpressionAsk,
    upstream::{self, Namespace},
    zoo::totalvi::{
        PROTEINS, ProteinAsk, TotalviConfig, TotalviModule, foreground_probability_of, protein_expression_of,
    },
};
use ndarray::Array2;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use crate::{
    case::{self, Case, Report, Tolerance},
    import_scvi::csr,
    noise::FixedNoise,
    runner::core::evaluation,
};

fn namespace() -> Namespace {
    Namespace { owner: "atlas".parse().unwrap(), dataset: "blood".parse().unwrap() }
}

/// A case and its model. A third party's file is looked for beside the repository too, and may be absent.
fn read(name: &str) -> Option<(SavedModel, Case)> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/import");
    let folders = [case::folder("import").join(name), beside.join(name)];
    let Some(folder) = folders.iter().find(|folder| folder.is_dir()) else {
        case::say(&format!("import/{name}: skipped, the folder is not here"));
        return None;
    };
    let file = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let tensors = StateDict::from_safetensors("case", &file("expected.safetensors")).unwrap().0;
    let json = serde_json::from_slice(&file("expected.json")).unwrap();
    Some((scvi_tools::read(folder, "").unwrap(), Case { name: name.to_owned(), json, tensors }))
}

fn minimal() -> (SavedModel, Case) {
    read("minimal_export_totalvi").expect("the repository has it")
}

/// The conditions of a case's cells.
fn conditions(saved: &SavedModel, case: &Case) -> CellConditions {
    let codes = case.tensors.get("input/batch").unwrap().to_i64("input/batch").unwrap();
    let key = |code: i64| {
        let batch = saved.registry.batch.categories[code as usize].to_string();
        ConditionKey::new(namespace().owner, namespace().dataset, batch).unwrap()
    };
    CellConditions::from_keys(&codes.into_iter().map(key).collect::<Vec<_>>())
}

fn proteins(saved: &SavedModel, case: &Case) -> Features {
    let stored = case.tensors.get("input/proteins").unwrap();
    let values = stored.to_f32("input/proteins").unwrap();
    let values = Array2::from_shape_vec((stored.shape()[0], stored.shape()[1]), values).unwrap();
    Features::dense(saved.registry.proteins.clone().unwrap().names, &values).unwrap()
}

/// Compares the latent means with `{group}/qz_mean`.
fn check_latent(reference: &Reference, saved: &SavedModel, case: &Case, group: &str, report: &mut Report) {
    let x = case.tensors.get("input/x").unwrap();
    let counts = csr(x.shape(), &x.to_f32("input/x").unwrap());
    let cells = Cells::new(&counts).with(PROTEINS, proteins(saved, case));
    let latent = reference.latent(&cells, &conditions(saved, case), Device::Cpu).unwrap().mean;
    let ours = Tensor::from_slice(latent.as_slice().unwrap());
    report.close(case, &format!("{group}/qz_mean"), &ours, case.tolerance("forward"));
}

/// The network of a reference with these conditions.
fn module(reference: &Reference, keys: &[ConditionKey]) -> TotalviModule {
    let Blueprint { model, registry, n_genes } = Blueprint::of_card(&reference.base.card).unwrap();
    let columns: Vec<&Columns> = keys.iter().map(|key| &reference.columns[key]).collect();
    let (base, columns) = (Source::Stored(&reference.base.tensors), ConditionSource::Stored(&columns));
    let builder = Builder::new(base, columns, Trainable::Nothing, [0; 32], tch::Device::Cpu);
    TotalviModule::new(TotalviConfig::parse(&model.options()).unwrap(), &registry, n_genes, builder).unwrap()
}

/// Compares what the decoder says with `{group}/normalized_*` and, where it is there, the foreground probability.
fn check_expression(reference: &Reference, saved: &SavedModel, case: &Case, group: &str, report: &mut Report) {
    let x = case.tensors.get("input/x").unwrap();
    let counts = csr(x.shape(), &x.to_f32("input/x").unwrap());
    let cells = Cells::new(&counts).with(PROTEINS, proteins(saved, case));
    let conditions = conditions(saved, case);
    let model = module(reference, conditions.keys());
    let dataset = reference.encode(&cells, &conditions).unwrap();
    let all: Vec<usize> = (0..cells.n_cells()).collect();
    let minibatch = dataset.minibatch(&all, tch::Device::Cpu);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let ask = ProteinAsk::default();
    let mut noise = FixedNoise::new(case);
    let (rna, protein) = protein_expression_of(&model, &minibatch, &ask, &mut rng, &mut evaluation(&mut noise));
    let tolerance = case.tolerance("forward");
    report.close(case, &format!("{group}/normalized_rna"), &rna, tolerance);
    report.close(case, &format!("{group}/normalized_protein"), &protein, tolerance);
    if case.find(&format!("{group}/foreground_probability")).is_some() {
        let mut noise = FixedNoise::new(case);
        let ask = ExpressionAsk::default();
        let ours = foreground_probability_of(&model, &minibatch, &ask, &mut evaluation(&mut noise));
        report.close(case, &format!("{group}/foreground_probability"), &ours, tolerance);
    }
}

fn finish(report: Report) {
    assert!(report.failures.is_empty() && report.n_compared > 0, "{}", report.failures.join("\n"));
}

#[test]
fn import_totalvi_gives_the_latent_that_scvi_tools_gives() {
    let (saved, case) = minimal();
    let reference = upstream::to_reference(&saved, &namespace()).unwrap();
    let mut report = Report::default();
    check_latent(&reference, &saved, &case, "expected", &mut report);
    finish(report);
    let registry = &reference.base.card.config["registry"];
    assert_eq!(registry["protein_key"], "protein");
    assert_eq!(registry["proteins"].as_array().unwrap().len(), 6);
    assert_eq!(reference.base.card.config["behaviour"], "current");
}

#[test]
fn import_of_an_old_totalvi_keeps_the_numbers_of_its_version() {
    let Some((saved, case)) = read("totalvi_v1_1_5") else { return };
    let reference = upstream::to_reference(&saved, &namespace()).unwrap();
    let config = &reference.base.card.config;
    assert_eq!(config["behaviour"], "before-1.3.1");
    assert_eq!(config["extra_decoder_kwargs"]["activation_function_bg"], "exp");
    let mut report = Report::default();
    check_latent(&reference, &saved, &case, "legacy", &mut report);
    check_expression(&reference, &saved, &case, "legacy", &mut report);

    // What 1.4.2 makes of the same tensors if they are converted: the encoder sees something else.
    let mut current = reference.clone();
    current.base.card.config.insert("behaviour".to_owned(), "current".into());
    check_latent(&current, &saved, &case, "expected", &mut report);
    check_expression(&current, &saved, &case, "expected", &mut report);
    let shift = case.tensor("legacy/qz_mean") - case.tensor("expected/qz_mean");
    report.holds("the two differ", shift.abs().max().double_value(&[]) > 0.1);

    let exported = upstream::from_reference(&reference).unwrap();
    assert_eq!(exported.version.to_string(), "1.1.5");
    assert!(exported.state_dict.get("log_per_batch_efficiency").is_none());
    let again = scvi_tools::from_bytes(&scvi_tools::to_bytes(&exported).unwrap()).unwrap();
    let again = upstream::to_reference(&again, &namespace()).unwrap();
    check_latent(&again, &saved, &case, "legacy", &mut report);
    check_expression(&again, &saved, &case, "legacy", &mut report);
    finish(report);
}

#[test]
fn export_of_an_imported_totalvi_has_every_tensor_that_was_used_bit_for_bit() {
    let (saved, case) = minimal();
    let reference = upstream::to_reference(&saved, &namespace()).unwrap();
    let exported = upstream::from_reference(&reference).unwrap();
    for (name, tensor) in saved.state_dict.iter() {
        let ours = exported.state_dict.get(name).unwrap_or_else(|| panic!("`{name}` is missing"));
        assert_eq!(ours.spec(), tensor.spec(), "{name}");
        assert!(name.starts_with("decoder.px_dropout_decoder_gene.") || ours == tensor, "{name}");
    }
    assert_eq!(exported.state_dict.len(), saved.state_dict.len());
    assert_eq!(exported.registry.proteins, saved.registry.proteins);
    assert!(upstream::unknown_arguments(&exported).unwrap().is_empty(), "{:?}", upstream::unknown_arguments(&exported));
    let again = scvi_tools::from_bytes(&scvi_tools::to_bytes(&exported).unwrap()).unwrap();
    assert_eq!((&again.state_dict, &again.init_params), (&exported.state_dict, &exported.init_params));
    let mut report = Report::default();
    let again = upstream::to_reference(&again, &namespace()).unwrap();
    check_latent(&again, &saved, &case, "expected", &mut report);
    finish(report);
}

#[test]
fn which_proteins_a_batch_measured_survives_the_way_there_and_back() {
    let (mut saved, _) = minimal();
    let masks = [(0, vec![true; 6]), (1, vec![true, false, true, true, true, false]), (2, vec![true; 6])];
    saved.registry.proteins.as_mut().unwrap().measured = masks.into_iter().collect();
    let reference = upstream::to_reference(&saved, &namespace()).unwrap();
    let flags = |columns: &Columns| columns.0.get("protein_measured.condition").unwrap().to_f32("measured").unwrap();
    let of_batch: Vec<Vec<f32>> = reference.columns.values().map(flags).collect();
    assert_eq!(of_batch[1], [1.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
    assert_eq!(upstream::from_reference(&reference).unwrap().registry.proteins, saved.registry.proteins);
    let module = reference.module(&reference.columns.keys().cloned().collect::<Vec<_>>(), Device::Cpu).unwrap();
    let measured = &module.weights().get("protein_measured.condition").unwrap();
    assert_eq!(measured.size(), [3, 6]);
    let exact = Tolerance { rtol: 0.0, atol: 0.0 };
    let expected =
        to_tch("mask", reference.columns.values().nth(1).unwrap().0.get("protein_measured.condition").unwrap());
    let mut report = Report::default();
    report.tensors("the mask of the second batch", &measured.get(1), &expected.unwrap(), exact);
    finish(report);
}

#[test]
fn import_totalvi_refuses_what_is_not_one() {
    let (saved, _) = minimal();
    let refused = |change: &dyn Fn(&mut SavedModel)| {
        let mut saved = saved.clone();
        change(&mut saved);
        upstream::to_reference(&saved, &namespace()).unwrap_err()
    };
    let other = refused(&|saved| saved.model_name = Some("PEAKVI".to_owned()));
    assert!(other.to_string().contains("holds a `PEAKVI`; `SCVI`"), "{other}");
    assert!(matches!(refused(&|saved| saved.registry.proteins = None), Error::Import { .. }));
    let panel = refused(&|saved| saved.registry.other_fields.push("panel".to_owned()));
    assert!(panel.to_string().contains("panel_key"), "{panel}");
    refused(&|saved| drop(saved.state_dict.remove("py_r")));
    refused(&|saved| drop(saved.registry.proteins.as_mut().unwrap().names.pop()));
}
