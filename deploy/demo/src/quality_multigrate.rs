//! Multigrate by the recipe of its peer's figures: paired cells and cells of one modality, of which the other one was measured and is
//! hidden; where cells come to lie, and how well what is hidden is imputed.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use archipelago_anndata::{AnnData, Column, Compression, Csr, DataFrame, Element};
use archipelago_common::Digest;
use ndarray::{Array2, ArrayView1};
use serde_json::Value;

use crate::{
    cells::{Embedding, column},
    comparison::Figures,
    correlation::pearson,
    quality,
    quality_runs::SeedRun,
};

/// The samples: their names, their share of the cells, and what they have.
const SAMPLES: [Sample; 5] = [
    Sample { name: "ref-cite", share: 0.35, has_rna: true, has_proteins: true },
    Sample { name: "ref-rna", share: 0.2, has_rna: true, has_proteins: false },
    Sample { name: "query-cite", share: 0.15, has_rna: true, has_proteins: true },
    Sample { name: "query-rna", share: 0.15, has_rna: true, has_proteins: false },
    Sample { name: "query-adt", share: 0.15, has_rna: false, has_proteins: true },
];

struct Sample {
    name: &'static str,
    share: f64,
    has_rna: bool,
    has_proteins: bool,
}

impl Sample {
    fn is_of_reference(&self) -> bool {
        self.name.starts_with("ref")
    }

    /// Upstream's covariate: query samples count as paired, whatever they have.
    fn modality(&self) -> &'static str {
        if self.name == "ref-rna" { "rna" } else { "cite" }
    }

    /// What its cells are called on both keys.
    fn batch(&self) -> String {
        format!("{}_{}", self.modality(), self.name)
    }
}

impl SeedRun<'_> {
    /// Trains on two samples, maps three, and judges places and what is imputed.
    pub(crate) fn multigrate(&self) -> Result<Figures> {
        let truth = self.write_samples()?;
        let [cells, reference, mapped] = ["cells.h5ad", "multigrate", "multigrate-mapped"].map(|name| self.path(name));
        let batches = |of_reference: bool| {
            let own = SAMPLES.iter().filter(|sample| sample.is_of_reference() == of_reference);
            own.map(Sample::batch).collect::<Vec<_>>().join(",")
        };
        let (own, query) = (batches(true), batches(false));
        let epochs = [self.args.reference_epochs().to_string(), self.args.surgery_epochs().to_string()];
        let train = ["train", &cells, "--model", "multigrate", "--batches", &own, "--epochs", &epochs[0]];
        self.seeded(&[&train[..], &RECIPE, &["--out", &reference]].concat())?;
        let map = ["map", &reference, &cells, "--batches", &query, "--epochs", &epochs[1], "--out", &mapped];
        self.seeded(&[&map[..], &["--surgery", &self.args.surgery]].concat())?;
        let mut figures = Figures::default();
        self.losses(&mut figures)?;
        // The peer's places are draws from the posterior: like is compared with like. Ours by default are means.
        for (place, named) in [("draw", ""), ("mean", "means_")] {
            let sides =
                [(&reference, &own, "reference"), (&mapped, &query, "query")].map(|(network, batches, side)| {
                    let out = self.path(&format!("{side}-{place}.h5ad"));
                    let latent = ["latent", network, &cells, "--batches", batches, "--place", place, "--out", &out];
                    self.seeded(&latent).map(|_| out)
                });
            let [reference, query] = sides;
            self.places(&reference?, &query?, named, &mut figures)?;
        }
        for (reference, sample, modality, name) in [
            (&reference, "ref-rna", "adt", "proteins_reference"),
            (&mapped, "query-rna", "adt", "proteins_query"),
            (&mapped, "query-cite", "adt", "proteins_seen"),
            (&mapped, "query-adt", "rna", "genes_query"),
        ] {
            let agreement = self.imputed(reference, sample, modality, &truth)?;
            for (of, value) in ["per_feature", "per_cell", "rmse"].into_iter().zip(agreement) {
                figures.insert(&format!("imputed_{name}_{of}"), value);
            }
        }
        Ok(figures)
    }

    /// Writes the cells of all samples, with zeros for what is hidden; what was measured.
    fn write_samples(&self) -> Result<Truth> {
        let all = AnnData::read(&self.args.data)?;
        let mut order: Vec<usize> = (0..all.n_obs()).collect();
        order.sort_by_key(|cell| Digest::of(format!("{}/{cell}", self.seed()).as_bytes()).to_string());
        order.truncate(N_CELLS);
        let mut adata = all.select_obs(&order)?;
        let n = adata.n_obs();
        let mut sample_of = Vec::with_capacity(n);
        let mut end = 0.0;
        for (at, sample) in SAMPLES.iter().enumerate() {
            end += sample.share;
            sample_of.resize((end * n as f64).round() as usize, at);
        }
        let of_sample =
            |text: fn(&Sample) -> String| -> Vec<String> { sample_of.iter().map(|&at| text(&SAMPLES[at])).collect() };
        adata.obs.insert("samplename", Column::categorical(&of_sample(|sample| sample.name.to_owned())))?;
        adata.obs.insert("modality", Column::categorical(&of_sample(|sample| sample.modality().to_owned())))?;
        let counts = adata.matrix(self.args.layer.as_deref())?.to_csr()?;
        let table = adata.obsm(PROTEINS)?.to_table(PROTEINS)?;
        let names = table.columns.context("the proteins have no names")?;
        let mut proteins = Array2::from_shape_vec((n, table.n_cols), table.values)?;
        for mut protein in proteins.columns_mut() {
            // Centred logarithms begin at 0: a cell whose proteins add up to 0 or less would count as one that has none.
            let least = protein.iter().copied().fold(f32::INFINITY, f32::min);
            protein.mapv_inplace(|value| value - least);
        }
        let without: Vec<f32> = (0..n).map(|cell| f32::from(u8::from(SAMPLES[sample_of[cell]].has_proteins))).collect();
        let hidden = &proteins * &Array2::from_shape_vec((n, 1), without)?;
        let mut frame = DataFrame::new(adata.obs_names().to_vec());
        for (name, column) in names.iter().zip(hidden.columns()) {
            frame.insert(name.as_str(), column.to_vec())?;
        }
        adata.obsm.insert("adt".to_owned(), Element::Frame(frame));
        adata.x = Some(masked(&counts, |cell| SAMPLES[sample_of[cell]].has_rna)?.into());
        adata.layers.clear();
        adata.write(Path::new(&self.path("cells.h5ad")), Compression::Gzip(4))?;
        Ok(Truth { counts, proteins, sample_of })
    }

    /// Losses of the last epoch, of the cells trained on and of those left out.
    fn losses(&self, figures: &mut Figures) -> Result<()> {
        let text = std::fs::read_to_string(self.path("multigrate/history.json"))?;
        let history: Value = serde_json::from_str(&text)?;
        let epochs = history.as_object().and_then(|all| all.values().next()).and_then(Value::as_array);
        let last = epochs.and_then(|epochs| epochs.last()).context("the history has no epoch")?;
        for (name, figure) in
            [("reconstruction_training", "figures"), ("reconstruction_validation", "validation_figures")]
        {
            if let Some(value) = last[figure]["reconstruction"].as_f64() {
                figures.insert(name, value);
            }
        }
        Ok(())
    }

    /// How well types are transferred, to all cells of the query and to those of each sample, and how well samples mix. `named` stands
    /// before the figures' names.
    fn places(&self, reference: &str, mapped: &str, named: &str, figures: &mut Figures) -> Result<()> {
        let read = |file: &str| Embedding::read(Path::new(file), "X_archipelago", "samplename", &self.args.labels_key);
        let (reference, query) = (read(reference)?, read(mapped)?);
        let all = quality::judge(&reference, &query, 0)?;
        let Value::Object(judged) = serde_json::to_value(&all)? else { anyhow::bail!("figures are an object") };
        let of_types = ["knn_accuracy", "macro_f1", "balanced_accuracy", "knn_accuracy_seen_types"];
        let mixing = judged.iter().filter(|(name, _)| !of_types.contains(&name.as_str()));
        mixing
            .filter_map(|(name, value)| Some((name, value.as_f64()?)))
            .for_each(|(name, value)| figures.insert(&format!("{named}{name}"), value));
        let mut add = |name: &str, judged: &archipelago_analysis::metrics::MappingQuality| {
            for (figure, value) in [("accuracy", judged.knn_accuracy), ("macro_f1", judged.macro_f1)] {
                if let Some(value) = value {
                    figures.insert(&format!("{named}transfer_{name}_{figure}"), value);
                }
            }
        };
        add("all", &all);
        for (sample, name) in [("query-cite", "paired"), ("query-rna", "rna"), ("query-adt", "proteins")] {
            let rows: Vec<usize> = (0..query.batches.len()).filter(|&row| query.batches[row] == sample).collect();
            let some = Embedding {
                latent: query.latent.select(ndarray::Axis(0), &rows),
                labels: rows.iter().map(|&row| query.labels[row].clone()).collect(),
                batches: rows.iter().map(|&row| query.batches[row].clone()).collect(),
            };
            add(name, &quality::judge(&reference, &some, 0)?);
        }
        Ok(())
    }

    /// What is imputed of a sample beside what was measured: correlation by feature and by cell, and the root of the mean squared
    /// difference. Of genes the most variable ones are looked at, as logarithms.
    fn imputed(&self, reference: &str, sample: &str, modality: &str, truth: &Truth) -> Result<[f64; 3]> {
        let (cells, out) = (self.path("cells.h5ad"), self.path("imputed.h5ad"));
        let own = SAMPLES.iter().find(|other| other.name == sample).context("there is no such sample")?;
        let batch = own.batch();
        let asked =
            ["results", "impute", reference, &cells, "--batches", &batch, "--modality", modality, "--out", &out];
        self.seeded(&[&asked[..], if modality == "rna" { &["--total", TOTAL_TEXT] } else { &[] }].concat())?;
        let found = AnnData::read(&out)?;
        ensure!(column(&found, "samplename")?.iter().all(|of| of == sample), "cells of another sample were imputed");
        let csr = found.matrix(None)?.to_csr()?;
        let found = Array2::from_shape_vec((csr.n_rows(), csr.n_cols()), csr.to_dense())?;
        let rows: Vec<usize> =
            (0..truth.sample_of.len()).filter(|&row| SAMPLES[truth.sample_of[row]].name == sample).collect();
        if modality == "adt" {
            return Ok(agreement(&found, &truth.proteins.select(ndarray::Axis(0), &rows)));
        }
        let measured = truth.logarithms(&rows);
        let paired: Vec<usize> = (0..truth.sample_of.len()).filter(|&row| truth.sample_of[row] == 0).collect();
        let spread = truth.logarithms(&paired).var_axis(ndarray::Axis(0), 0.0);
        let mut genes: Vec<usize> = (0..spread.len()).collect();
        genes.sort_by(|&a, &b| spread[b].total_cmp(&spread[a]));
        genes.truncate(N_GENES);
        let some = |all: &Array2<f32>| all.select(ndarray::Axis(1), &genes);
        Ok(agreement(&some(&found.mapv(f32::ln_1p)), &some(&measured)))
    }
}

/// What was measured of all cells.
struct Truth {
    counts: Csr,
    proteins: Array2<f32>,
    /// Which sample each cell is of.
    sample_of: Vec<usize>,
}

impl Truth {
    /// Logarithms of counts scaled to one total, of these cells.
    fn logarithms(&self, rows: &[usize]) -> Array2<f32> {
        let some = self.counts.select_rows(rows);
        let sums = some.row_sums();
        let values = Array2::from_shape_vec((some.n_rows(), some.n_cols()), some.to_dense());
        let mut values = values.expect("a value per cell and gene");
        for (mut row, sum) in values.rows_mut().into_iter().zip(sums) {
            let scale = TOTAL / sum.max(1.0) as f32;
            row.mapv_inplace(|value| (value * scale).ln_1p());
        }
        values
    }
}

/// The counts of some cells, zeros of the others.
fn masked(counts: &Csr, has: impl Fn(usize) -> bool) -> Result<Csr> {
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
    for cell in 0..counts.n_rows() {
        if has(cell) {
            let (columns, values) = counts.row(cell);
            indices.extend_from_slice(columns);
            data.extend_from_slice(values);
        }
        indptr.push(indices.len());
    }
    Ok(Csr::new(counts.n_rows(), counts.n_cols(), indptr, indices, data)?)
}

/// Mean correlation of columns, of those that do not vary 0; of rows, of those that vary; the root of the mean squared difference.
fn agreement(found: &Array2<f32>, truth: &Array2<f32>) -> [f64; 3] {
    let of_columns: Vec<f64> =
        found.columns().into_iter().zip(truth.columns()).map(|(a, b)| correlation(a, b).unwrap_or(0.0)).collect();
    let of_rows: Vec<f64> = found.rows().into_iter().zip(truth.rows()).filter_map(|(a, b)| correlation(a, b)).collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let squared: f64 = found.iter().zip(truth).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    [mean(&of_columns), mean(&of_rows), (squared / truth.len().max(1) as f64).sqrt()]
}

/// The correlation of what varies.
fn correlation(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> Option<f64> {
    let numbers = |values: ArrayView1<'_, f32>| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    Some(pearson(&numbers(a), &numbers(b))).filter(|value| value.is_finite())
}

/// The tutorial's options. What the modalities are called means the same everywhere; samples are their sites' own.
const RECIPE: [&str; 20] = [
    "--modalities",
    "adt",
    "--losses",
    "nb,mse",
    "--field",
    "adt=obsm/adt",
    "--condition-keys",
    "modality,samplename",
    "--common-condition-keys",
    "modality",
    "--integrate-on",
    "modality",
    "--modality-alignment",
    "MMD",
    "--alignment-type",
    "marginal",
    "--kl-coef",
    "0.1",
    "--integ-coef",
    "3000",
];
/// Where the file has its proteins.
const PROTEINS: &str = "protein_clr";
/// Cells that are drawn of a larger file.
const N_CELLS: usize = 3_000;
/// Genes that imputed expression is judged by.
const N_GENES: usize = 200;
/// What expression is scaled to.
const TOTAL: f32 = 1e4;
const TOTAL_TEXT: &str = "10000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_of_columns_of_rows_and_of_size() {
        let truth = ndarray::array![[1.0_f32, 5.0, 3.0], [2.0, 5.0, 1.0]];
        assert_eq!(agreement(&truth, &truth), [2.0 / 3.0, 1.0, 0.0]);
        let [columns, rows, rmse] = agreement(&(&truth * -1.0), &truth);
        assert!(columns < 0.0 && (rows + 1.0).abs() < 1e-9 && rmse > 5.0);
    }

    #[test]
    fn shares_of_samples_add_up_to_all_cells() {
        let sum: f64 = SAMPLES.iter().map(|sample| sample.share).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert_eq!(SAMPLES[1].batch(), "rna_ref-rna");
    }
}
