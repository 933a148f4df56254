//! mvTCR by the recipe of its peer's figures: T cells with both chains, patients that are held out, a mixture of experts.

use std::path::Path;

use anyhow::{Context as _, Result};
use archipelago_analysis::{Labels, metrics::Confusion, neighbours::self_knn};
use archipelago_anndata::AnnData;

use crate::{
    cells::{Embedding, column},
    comparison::Figures,
    quality_runs::SeedRun,
    tcells::FIELDS,
};

/// Learning rate and cells of a minibatch in the peer's runs.
const PLAN: [&str; 4] = ["--batch-size", "64", "--learning-rate", "6.66e-4"];
/// Counts per cell that expression is scaled to.
const TARGET_SUM: [&str; 2] = ["--target-sum", "10000"];
/// Where the receptors of the peer's files are.
const RECEPTORS: [&str; 4] = ["--receptor", "obs/TRA_cdr3", "--receptor", "obs/TRB_cdr3"];

impl SeedRun<'_> {
    pub(crate) fn tcells(&self) -> Result<Figures> {
        let args = self.args;
        let (data, complete, logged) =
            (args.data.display().to_string(), self.path("complete.h5ad"), self.path("logged.h5ad"));
        self.plain(&[&["receptors", &data, "--out", &complete][..], &RECEPTORS].concat())?;
        self.plain(&[&["preprocess", &complete, "--out", &logged][..], &TARGET_SUM].concat())?;
        let (reference, mapped) = (self.path("mvtcr"), self.path("mvtcr-mapped"));
        let (own, query) = (args.reference.join(","), args.query.join(","));
        let fields = FIELDS.map(|field| ["--field", field]).concat();
        let epochs = args.reference_epochs().to_string();
        let train = ["train", &logged, "--model", "mvtcr", "--batches", &own, "--epochs", &epochs, "--out", &reference];
        self.command(&[&train[..], &fields, &PLAN].concat())?;
        let epochs = args.surgery_epochs().to_string();
        let map = ["map", &reference, &logged, "--batches", &query, "--epochs", &epochs, "--surgery", &args.surgery];
        self.command(&[&map[..], &["--batch-size", "64", "--out", &mapped]].concat())?;
        let (of_reference, of_query) = (self.path("mvtcr-reference.h5ad"), self.path("mvtcr-mapped/mapped.h5ad"));
        self.command(&["latent", &reference, &logged, "--batches", &own, "--out", &of_reference])?;
        let labelled = self.path("labelled.h5ad");
        let transfer = ["transfer", &of_reference, &of_query, "--labels-key", &args.labels_key, "--n-neighbors", "5"];
        let judged = self.plain(&[&transfer[..], &["--out", &labelled]].concat())?;
        let tissue = judged["columns"][&args.labels_key]["judged"]["weighted_f1"].as_f64();
        let right = self.path("right.csv");
        let asked = ["results", "amino-acids", &mapped, &logged, "--batches", &query, "--out", &right];
        self.command(&[&asked[..], &["--owner", "local", "--dataset", "query"]].concat())?;
        let mut figures = self.judge_files("mvtcr-reference.h5ad", "mvtcr-mapped/mapped.h5ad")?;
        figures.insert("validation_loss", least(&Path::new(&reference).join("history.csv"), "validation_loss")?);
        figures.insert("transfer_weighted_f1", tissue.context("the query has the labels")?);
        figures.insert("clonotype_1nn_f1", self.of_clonotypes(&[&of_reference, &of_query])?);
        figures.insert("amino_acids_right_query", mean(Path::new(&right), "from_tcr")?);
        Ok(figures)
    }

    /// Weighted F1 of naming each cell's clonotype by the nearest other cell, over cells whose clonotype has two cells or more.
    fn of_clonotypes(&self, files: &[&String]) -> Result<f64> {
        let (mut all, mut clonotypes): (Option<Embedding>, Vec<String>) = (None, Vec::new());
        for file in files {
            let one = Embedding::read(Path::new(file), "X_archipelago", &self.args.batch_key, &self.args.labels_key)?;
            clonotypes.extend(column(&AnnData::read(Path::new(file))?, "clonotype")?);
            all = Some(match all {
                None => one,
                Some(all) => all.followed_by(one)?,
            });
        }
        let latent = all.context("there are files")?.latent;
        let nearest = self_knn(latent.view(), 1)?;
        let labels = Labels::from_names(&clonotypes);
        let sizes = labels.counts();
        let repeated: Vec<usize> =
            (0..clonotypes.len()).filter(|&cell| sizes[labels.codes()[cell] as usize] > 1).collect();
        let predicted: Vec<&String> =
            repeated.iter().map(|&cell| &clonotypes[nearest.of(cell).0[0] as usize]).collect();
        let confusion = Confusion::new(&labels.select(&repeated), &Labels::from_names(&predicted))?;
        confusion.weighted_f1().context("no clonotype has two cells")
    }
}

/// The least number in a column of a table.
fn least(path: &Path, name: &str) -> Result<f64> {
    let numbers = numbers(path, name)?;
    numbers.into_iter().reduce(f64::min).with_context(|| format!("`{}` has no `{name}`", path.display()))
}

fn mean(path: &Path, name: &str) -> Result<f64> {
    let numbers = numbers(path, name)?;
    Ok(numbers.iter().sum::<f64>() / numbers.len() as f64)
}

/// The numbers of a column, where a row has one.
fn numbers(path: &Path, name: &str) -> Result<Vec<f64>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    let mut lines = text.lines();
    let at = lines.next().unwrap_or_default().split(',').position(|head| head == name);
    let at = at.with_context(|| format!("`{}` has no column `{name}`", path.display()))?;
    Ok(lines.filter_map(|line| line.split(',').nth(at)?.parse().ok()).collect())
}
