//! scVI models of scvi-tools as references: the same latent here, and again there.

use archipelago_anndata::Csr;
use archipelago_common::{ConditionKey, StateDict};
use archipelago_models::{
    CellConditions, Cells, Device, Error, Reference,
    formats::{
        pickle::Scalar,
        scvi_tools::{self, CategoricalField, SavedModel},
    },
    upstream::{self, Namespace},
};

use crate::case;

fn namespace() -> Namespace {
    Namespace { owner: "atlas".parse().unwrap(), dataset: "lung".parse().unwrap() }
}

fn key(batch: &Scalar) -> ConditionKey {
    ConditionKey::new(namespace().owner, namespace().dataset, batch.to_string()).unwrap()
}

/// A case of scVI, and the file with what the model gives.
struct Case {
    name: &'static str,
    saved: SavedModel,
    expected: StateDict,
}

/// Cases whose expected outputs are in another case's folder have that one second.
const CASES: [(&str, &str); 4] = [
    ("minimal_export_scvi", "minimal_export_scvi"),
    ("scvi_legacy_layout", "scvi_v1_4_2"),
    ("scvi_v1_4_2", "scvi_v1_4_2"),
    ("scvi_v1_4_2_query", "scvi_v1_4_2_query"),
];

fn cases() -> Vec<Case> {
    let folder = case::folder("import");
    let read = |(name, outputs): (&'static str, &str)| {
        let expected = std::fs::read(folder.join(outputs).join("expected.safetensors"));
        let (Ok(expected), true) = (expected, folder.join(name).is_dir()) else {
            case::say(&format!("import/{name}: skipped, it is not in `{}`", folder.display()));
            return None;
        };
        let expected = StateDict::from_safetensors("case", &expected).unwrap().0;
        Some(Case { name, saved: scvi_tools::read(&folder.join(name), "").unwrap(), expected })
    };
    let cases: Vec<Case> = CASES.into_iter().filter_map(read).collect();
    let is_elsewhere = std::env::var_os("ARCHIPELAGO_GOLDEN").is_some() && case::holds_numbers();
    assert!(is_elsewhere || !cases.is_empty(), "`{}` holds no saved scVI model", folder.display());
    cases
}

/// The case that is changed to be refused, where it is here.
fn first() -> Option<Case> {
    cases().into_iter().next()
}

/// The largest difference between the latent means of a reference and those of a case.
fn difference(case: &Case, reference: &Reference, batches: &[Scalar]) -> f32 {
    let x = case.expected.require(case.name, "input/x").unwrap();
    let counts = csr(x.shape(), &x.to_f32("input/x").unwrap());
    let codes = case.expected.require(case.name, "input/batch").unwrap().to_i64("input/batch").unwrap();
    let per_cell: Vec<ConditionKey> = codes.into_iter().map(|code| key(&batches[code as usize])).collect();
    let conditions = CellConditions::from_keys(&per_cell);
    let latent = reference.latent(&Cells::new(&counts), &conditions, Device::Cpu).unwrap();
    let expected = case.expected.require(case.name, "expected/qz_mean").unwrap().to_f32("qz_mean").unwrap();
    assert_eq!(latent.mean.len(), expected.len(), "{}", case.name);
    latent.mean.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub(crate) fn csr(shape: &[usize], dense: &[f32]) -> Csr {
    let (mut indptr, mut indices, mut data) = (vec![0], vec![], vec![]);
    for row in dense.chunks_exact(shape[1]) {
        for (gene, &count) in row.iter().enumerate().filter(|(_, count)| **count != 0.0) {
            indices.push(gene as u32);
            data.push(count);
        }
        indptr.push(indices.len());
    }
    Csr::new(shape[0], shape[1], indptr, indices, data).unwrap()
}

#[test]
fn import_scvi_gives_the_latent_that_scvi_tools_gives() {
    for case in cases() {
        let reference = upstream::to_reference(&case.saved, &namespace()).unwrap();
        let difference = difference(&case, &reference, &case.saved.registry.batch.categories);
        assert!(difference <= 1e-5, "{}: latent means differ by {difference}", case.name);
    }
}

#[test]
fn import_scvi_keeps_genes_batches_and_options() {
    for case in cases() {
        let reference = upstream::to_reference(&case.saved, &namespace()).unwrap();
        let card = &reference.base.card;
        assert_eq!(card.genes, case.saved.genes(), "{}", case.name);
        assert_eq!(card.batch_key, "batch", "{}", case.name);
        assert_eq!(
            Some(&card.config["gene_likelihood"]),
            case.saved.init_params.get("gene_likelihood"),
            "{}",
            case.name
        );
        let keys: Vec<ConditionKey> = case.saved.registry.batch.categories.iter().map(key).collect();
        assert_eq!(reference.columns.keys().cloned().collect::<Vec<_>>(), keys, "{}", case.name);
    }
}

#[test]
fn export_of_an_imported_scvi_has_every_tensor_that_was_used_bit_for_bit() {
    for case in cases() {
        let reference = upstream::to_reference(&case.saved, &namespace()).unwrap();
        let exported = upstream::from_reference(&reference).unwrap();
        // Strict loading there wants every name in its shape, also of what these options never use.
        let spec = |model: &SavedModel| -> Vec<_> {
            model.state_dict.iter().map(|(name, tensor)| (name.to_owned(), tensor.spec())).collect()
        };
        assert_eq!(spec(&exported), spec(&case.saved), "{}", case.name);
        for (name, tensor) in exported.state_dict.iter().filter(|(name, _)| !is_unused(name)) {
            assert_eq!(tensor.bytes(), case.saved.state_dict.get(name).unwrap().bytes(), "{}: {name}", case.name);
        }
        let again = scvi_tools::from_bytes(&scvi_tools::to_bytes(&exported).unwrap()).unwrap();
        assert_eq!(again.state_dict, exported.state_dict, "{}", case.name);
        assert_eq!(again.init_params, exported.init_params, "{}", case.name);
        assert_eq!(exported.registry.batch, case.saved.registry.batch, "{}", case.name);
    }
}

/// With an observed library and a negative binomial, as in all cases.
fn is_unused(name: &str) -> bool {
    ["l_encoder.", "decoder.px_r_decoder.", "decoder.px_dropout_decoder."].iter().any(|part| name.starts_with(part))
}

#[test]
fn export_of_one_condition_puts_its_column_into_the_bias() {
    let Some(case) = cases().into_iter().find(|case| case.name == "scvi_v1_4_2") else { return };
    let mut reference = upstream::to_reference(&case.saved, &namespace()).unwrap();
    let (lone, columns) = reference.columns.pop_first().unwrap();
    reference.columns = [(lone, columns)].into();
    let exported = upstream::from_reference(&reference).unwrap();

    let first = exported.state_dict.get("z_encoder.encoder.fc_layers.Layer 0.0.weight").unwrap();
    assert_eq!(first.shape(), [16, 50], "a covariate of one category has no column there");
    let again = upstream::to_reference(&exported, &namespace()).unwrap();
    let latent = |reference: &Reference| {
        let x = case.expected.get("input/x").unwrap();
        let counts = csr(x.shape(), &x.to_f32("input/x").unwrap());
        let conditions = CellConditions::single(key(&Scalar::Text("b0".to_owned())), counts.n_rows());
        reference.latent(&Cells::new(&counts), &conditions, Device::Cpu).unwrap().mean
    };
    let difference = (latent(&again) - latent(&reference)).iter().fold(0.0_f32, |max, d| max.max(d.abs()));
    assert!(difference <= 1e-6, "latent means differ by {difference}");
}

#[test]
fn batches_that_were_numbers_are_numbers_again() {
    let Some(Case { mut saved, .. }) = first() else { return };
    saved.registry.batch.categories = vec![Scalar::Int(3), Scalar::Int(4), Scalar::Int(5)];
    let reference = upstream::to_reference(&saved, &namespace()).unwrap();
    assert_eq!(upstream::from_reference(&reference).unwrap().registry.batch, saved.registry.batch);
}

#[test]
fn conditions_of_two_owners_keep_their_whole_keys() {
    let Some(case) = first() else { return };
    let mut reference = upstream::to_reference(&case.saved, &namespace()).unwrap();
    let columns = reference.columns.values().next().unwrap().clone();
    reference.columns.insert("site-a/blood/b0".parse().unwrap(), columns);
    let batch = upstream::from_reference(&reference).unwrap().registry.batch;
    let names: Vec<String> = batch.categories.iter().map(Scalar::to_string).collect();
    assert_eq!(names, ["atlas/lung/b0", "atlas/lung/b1", "atlas/lung/b2", "site-a/blood/b0"]);
}

#[test]
fn import_scvi_refuses_what_is_not_one() {
    let Some(case) = first() else { return };
    let other = SavedModel { model_name: Some("PEAKVI".to_owned()), ..case.saved.clone() };
    let error = upstream::to_reference(&other, &namespace()).unwrap_err();
    assert!(error.to_string().contains("holds a `PEAKVI`; `SCVI`"), "{error}");

    let mut ambiguous = case.saved.clone();
    ambiguous.registry.batch.categories = vec![Scalar::Int(1), Scalar::Text("1".to_owned()), Scalar::Int(2)];
    let error = upstream::to_reference(&ambiguous, &namespace()).unwrap_err();
    assert!(error.to_string().contains("two batches are called `1`"), "{error}");

    let mut twice = case.saved.clone();
    let covariate = |key: &str| CategoricalField { key: key.to_owned(), categories: vec![Scalar::Int(0)] };
    twice.registry.categorical_covariates = vec![covariate("z"), covariate("a"), covariate("z")];
    let error = upstream::to_reference(&twice, &namespace()).unwrap_err();
    assert!(error.to_string().contains("two categorical covariates are called `z`"), "{error}");

    let mut option = case.saved.clone();
    option.init_params.named.insert("gene_likelihood".to_owned(), "gamma".into());
    assert!(matches!(upstream::to_reference(&option, &namespace()), Err(Error::Config { .. })));
}

#[test]
fn import_scvi_refuses_tensors_of_other_genes_or_batches() {
    let Some(case) = first() else { return };
    let mut genes = case.saved.clone();
    genes.registry.genes.pop();
    assert!(upstream::to_reference(&genes, &namespace()).is_err());

    let mut batches = case.saved.clone();
    batches.registry.batch.categories.push(Scalar::Text("b9".to_owned()));
    assert!(upstream::to_reference(&batches, &namespace()).is_err());

    let mut missing = case.saved.clone();
    missing.state_dict.remove("z_encoder.mean_encoder.bias");
    let error = upstream::to_reference(&missing, &namespace()).unwrap_err().to_string();
    assert!(error.contains("z_encoder.mean_encoder.bias"), "{error}");
}

#[test]
fn import_scvi_reports_options_it_does_not_know() {
    let Some(case) = first() else { return };
    let mut saved = case.saved.clone();
    saved.init_params.named.insert("flux_capacity".to_owned(), 1.21.into());
    let reference = upstream::to_reference(&saved, &namespace()).unwrap();
    assert_eq!(reference.base.card.training["unknown_arguments"]["flux_capacity"], 1.21);
}
