//! Preprocessing beside scanpy's on the same input.
//!
//! `testdata/scanpy.json` was written by scanpy 1.11 on 160 cells x 180 genes of gamma-Poisson counts in three batches of
//! unequal size, with one gene that no cell expresses and one that a batch does not: `highly_variable_genes` of each
//! flavor with and without batches, by number (40) and by its default cutoffs, on counts (`seurat_v3`) or on
//! `normalize_total(1e4)` and `log1p` of them; `calculate_qc_metrics` with every tenth gene as a set; the first 200 values
//! of `normalize_total` without a target.

use archipelago_analysis::preprocess::{
    CP10K, Flavor, Keep, cell_quality, gene_quality, highly_variable_genes, log1p, median_total, normalize_total,
};
use archipelago_analysis::{AnalysisError, CsrView, Labels};
use serde_json::Value;

struct Fixture {
    facts: Value,
    indptr: Vec<usize>,
    indices: Vec<u32>,
    data: Vec<f32>,
}

impl Fixture {
    fn read() -> Self {
        let facts: Value = serde_json::from_str(include_str!("../testdata/scanpy.json")).unwrap();
        let whole =
            |name: &str| facts[name].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect::<Vec<_>>();
        let (indptr, indices, data) = (whole("indptr"), whole("indices"), whole("data"));
        let indptr = indptr.into_iter().map(|offset| offset as usize).collect();
        let indices = indices.into_iter().map(|gene| gene as u32).collect();
        Self { indptr, indices, data: data.into_iter().map(|count| count as f32).collect(), facts }
    }

    fn counts(&self) -> CsrView<'_> {
        let n_genes = self.facts["n_genes"].as_u64().unwrap() as usize;
        CsrView::new(n_genes, &self.indptr, &self.indices, &self.data).unwrap()
    }

    fn log_normalised(&self) -> Vec<f32> {
        let mut values = normalize_total(self.counts(), CP10K);
        log1p(&mut values);
        values
    }
}

/// Equal within single precision, which scanpy's intermediates have; `null` stands for what is not finite.
fn check_column(what: &str, found: &[f64], expected: &Value) {
    let expected = expected.as_array().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        match expected.as_f64() {
            Some(value) => {
                let allowed = 2e-5 * value.abs().max(0.1);
                assert!((found - value).abs() <= allowed, "{what}, row {row}: {found}, not {value}");
            }
            None => assert!(!found.is_finite(), "{what}, row {row}: {found}, not undefined"),
        }
    }
}

#[test]
fn highly_variable_genes_equal_scanpy_s() {
    let fixture = Fixture::read();
    let batch_names: Vec<&str> =
        fixture.facts["batches"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let batches = Labels::from_names(&batch_names);
    let normalised = fixture.log_normalised();
    let cases = fixture.facts["highly_variable"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let name = format!("{} batch {} top {}", case["flavor"], case["batch"], case["top"]);
        let flavor = match case["flavor"].as_str().unwrap() {
            "seurat" => Flavor::Seurat,
            "cell_ranger" => Flavor::CellRanger,
            "seurat_v3" => Flavor::SeuratV3,
            other => panic!("unknown flavor {other}"),
        };
        let x = match flavor {
            Flavor::SeuratV3 => fixture.counts(),
            _ => fixture.counts().with_data(&normalised).unwrap(),
        };
        let keep = case["top"].as_u64().map_or(Keep::SEURAT_CUTOFFS, |n_top| Keep::Top(n_top as usize));
        let found = highly_variable_genes(x, case["batch"].is_string().then_some(&batches), flavor, keep).unwrap();
        check_column(&format!("{name}: mean"), &found.mean, &case["mean"]);
        check_column(&format!("{name}: spread"), &found.spread, &case["spread"]);
        check_column(&format!("{name}: normalised spread"), &found.normalised_spread, &case["normalised"]);
        if case["n_batches"].is_array() {
            assert_eq!(serde_json::to_value(&found.n_batches).unwrap(), case["n_batches"], "{name}");
        }
        if case["rank"].is_array() {
            check_column(&format!("{name}: rank"), &found.rank, &case["rank"]);
        }
        assert_eq!(serde_json::to_value(&found.is_chosen).unwrap(), case["chosen"], "{name}");
    }
}

#[test]
fn quality_equals_scanpy_s() {
    let fixture = Fixture::read();
    let (counts, expected) = (fixture.counts(), &fixture.facts["quality"]);
    let every_tenth: Vec<bool> = (0..counts.n_genes()).map(|gene| gene % 10 == 0).collect();
    let cells = cell_quality(counts, &[20, 50], &[every_tenth]).unwrap();
    assert_eq!(serde_json::to_value(&cells.n_genes).unwrap(), expected["n_genes"]);
    check_column("total", &cells.total, &expected["total"]);
    for (top, expected) in cells.percent_in_top.iter().zip(expected["in_top"].as_array().unwrap()) {
        check_column("top genes", top, expected);
    }
    check_column("set total", &cells.set_total[0], &expected["set_total"]);
    check_column("set percent", &cells.set_percent[0], &expected["set_percent"]);
    let genes = gene_quality(counts);
    assert_eq!(serde_json::to_value(&genes.n_cells).unwrap(), expected["n_cells"]);
    check_column("mean", &genes.mean, &expected["mean"]);
    check_column("dropout", &genes.percent_dropout, &expected["dropout"]);
    check_column("gene total", &genes.total, &expected["gene_total"]);
}

#[test]
fn the_median_total_is_the_default_target() {
    let fixture = Fixture::read();
    let found = normalize_total(fixture.counts(), median_total(fixture.counts()));
    let first: Vec<f64> = found.iter().take(200).map(|&value| f64::from(value)).collect();
    check_column("normalised", &first, &fixture.facts["median_normalised"]);
}

#[test]
fn impossible_choices_are_refused() {
    let fixture = Fixture::read();
    let counts = fixture.counts();
    let check = |batches, flavor, keep| highly_variable_genes(counts, batches, flavor, keep).unwrap_err();
    let error = check(None, Flavor::SeuratV3, Keep::SEURAT_CUTOFFS);
    assert!(matches!(error, AnalysisError::Option { option: "keep", .. }));
    let short = Labels::from_names(&["a"]);
    assert!(matches!(check(Some(&short), Flavor::Seurat, Keep::Top(5)), AnalysisError::Length { .. }));
    let mut names = vec!["a"; counts.n_cells()];
    names[3] = "alone";
    let alone = Labels::from_names(&names);
    let found = highly_variable_genes(counts, Some(&alone), Flavor::SeuratV3, Keep::Top(5)).unwrap();
    assert_eq!(found.left_out, ["alone"], "a batch of one cell has no say");
    let all_alone = Labels::from_names(&(0..counts.n_cells()).map(|cell| cell.to_string()).collect::<Vec<_>>());
    assert!(matches!(check(Some(&all_alone), Flavor::Seurat, Keep::Top(5)), AnalysisError::TooFew { needed: 2, .. }));
}
