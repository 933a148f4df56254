//! `metrics`: how well embeddings keep labels and mix batches.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use archipelago_analysis::{
    Labels,
    metrics::{Aspect, Integration, integration},
    pca::Pca,
};
use archipelago_anndata::{AnnData, Beside, Join, concat};
use archipelago_common::fs;
use clap::Args;
use ndarray::Array2;
use serde::Serialize;

use super::file::{read, within};
use crate::{
    cells::{column, embedding, view},
    error::Result,
    expression, graph_file, lists,
    output::Output,
};

/// Judge embeddings by the field's figures of integration: what is kept of the labels, and how well batches mix.
///
/// Several files, such as reference and query, are judged together. With `--unintegrated` the same figures are computed for
/// the data before integration: 50 principal components of log-normalised expression.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker metrics reference.h5ad mapped/mapped.h5ad --use-rep X_archipelago --labels-key cell_type --unintegrated")]
pub struct MetricsArgs {
    /// The h5ad files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Elements of obsm to judge, separated by commas [default: X_archipelago, else X_pca]
    #[arg(long, value_name = "OBSM")]
    use_rep: Vec<String>,
    /// The obs column of the batch.
    #[arg(long, default_value = "batch")]
    batch_key: String,
    /// The obs column of the cell types; cells without one are left out.
    #[arg(long)]
    labels_key: String,
    /// Also judge the data before integration.
    #[arg(long)]
    unintegrated: bool,
    /// The layer that holds counts or log-normalised expression, for the data before integration [default: X]
    #[arg(long)]
    layer: Option<String>,
    /// Seed of clusterings.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also write the figures to this file: .csv or .json.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// All figures, by embedding.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    n_cells: usize,
    n_labels: usize,
    n_batches: usize,
    /// Figures of each embedding, in the order asked for, the unintegrated data last.
    embeddings: Vec<(String, Integration)>,
    /// Scores of each embedding: labels, batches, and 0.6 and 0.4 of them.
    scores: BTreeMap<String, [Option<f64>; 3]>,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Cells`], [`crate::Error::NoEmbedding`], [`crate::Error::Analysis`]
pub fn run(args: &MetricsArgs, output: &Output) -> Result<()> {
    let adata = joined(&args.files, output)?;
    let judged = args.judge(&adata, output).map_err(|error| within(&args.files[0], error))?;
    if let Some(path) = &args.out {
        let bytes = match path.extension().is_some_and(|extension| extension == "csv") {
            true => judged.csv().into_bytes(),
            false => serde_json::to_vec_pretty(&judged).expect("figures are JSON"),
        };
        fs::write_atomic(path, &bytes)?;
    }
    output.show(&judged);
    Ok(())
}

/// The cells of all files; a name that occurs in several is told apart by the file's number.
fn joined(files: &[PathBuf], output: &Output) -> Result<AnnData> {
    let mut parts = Vec::with_capacity(files.len());
    for (number, path) in (1..).zip(files) {
        let mut part = read(path, output)?;
        // Joint embeddings of an h5mu file are judged like any others; its modalities are not looked at.
        part.beside = Beside::default();
        if files.len() > 1 {
            part.obs.rename_rows(part.obs_names().iter().map(|cell| format!("{cell}-{number}")).collect())?;
        }
        parts.push(part);
    }
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Ok(concat(&parts, Join::Inner)?),
    }
}

impl MetricsArgs {
    fn judge(&self, adata: &AnnData, output: &Output) -> Result<Judged> {
        let names = adata.obs.column(&self.labels_key)?.to_strings();
        let rows: Vec<usize> = (0..names.len()).filter(|&row| names[row].is_some()).collect();
        let labelled = if rows.len() < names.len() { &adata.select_obs(&rows)? } else { adata };
        if rows.len() < names.len() {
            output.note(format_args!("note: {} cells without a label are left out", names.len() - rows.len()));
        }
        let labels = Labels::from_names(&column(&labelled.obs, &self.labels_key)?);
        let batches = Labels::from_names(&column(&labelled.obs, &self.batch_key)?);
        let reps = match self.use_rep.is_empty() {
            true => vec![graph_file::default_rep(labelled)?],
            false => lists::among(&self.use_rep, |name| labelled.obsm.contains_key(name).then(|| name.to_owned())),
        };
        let mut spaces: Vec<(String, Array2<f32>)> = Vec::new();
        for rep in reps {
            let x = embedding(labelled, &rep)?;
            spaces.push((rep, x));
        }
        if self.unintegrated {
            spaces.push((UNINTEGRATED.to_owned(), components(labelled, self.layer.as_deref(), output)?));
        }
        judge(&spaces, &labels, &batches, self.seed, output)
    }
}

/// Judges each space; where there is one called [`UNINTEGRATED`] the others are compared with it.
///
/// # Errors  [`crate::Error::Analysis`]
pub fn judge(
    spaces: &[(String, Array2<f32>)],
    labels: &Labels,
    batches: &Labels,
    seed: u64,
    output: &Output,
) -> Result<Judged> {
    let mut embeddings = Vec::with_capacity(spaces.len());
    for (name, x) in spaces {
        let work = output.work(format!("judging {name}"));
        embeddings.push((name.clone(), integration(x.view(), labels, batches, seed, &|share| work.share(share))?));
    }
    let before = embeddings.iter().find(|(name, _)| name == UNINTEGRATED).map(|(_, found)| found.batch_variance);
    if let Some(before) = before {
        for (_, found) in &mut embeddings {
            *found = found.clone().compared_with(before);
        }
    }
    let scores = embeddings.iter().map(|(name, found)| {
        (name.clone(), [found.score(Aspect::Labels), found.score(Aspect::Batches), found.total()])
    });
    let n_used = |of: &Labels| of.counts().into_iter().filter(|&n| n > 0).count();
    let (n_labels, n_batches) = (n_used(labels), n_used(batches));
    Ok(Judged { n_cells: labels.len(), n_labels, n_batches, scores: scores.collect(), embeddings })
}

/// Principal components of log-normalised expression, of the highly variable genes where some are marked.
///
/// # Errors  [`crate::Error::Anndata`], [`crate::Error::Analysis`]
pub fn components(adata: &AnnData, layer: Option<&str>, output: &Output) -> Result<Array2<f32>> {
    let expression = expression::log_normalised(adata, layer, output)?;
    let genes = expression::variable_genes(adata).unwrap_or_else(|| (0..adata.n_vars()).collect());
    let chosen = expression.select_cols(&genes)?;
    let n_comps = N_COMPONENTS.min(chosen.n_rows().min(chosen.n_cols()).saturating_sub(1)).max(1);
    let work = output.work("computing components of the unintegrated data");
    let pca = Pca::fit_csr_telling(view(&chosen)?, n_comps, &|share| work.share(share))?;
    Ok(pca.project_csr(view(&chosen)?)?)
}

/// What the data before integration is called.
pub const UNINTEGRATED: &str = "unintegrated";
const N_COMPONENTS: usize = 50;

impl Judged {
    /// Each embedding with its figures.
    pub fn embeddings(&self) -> &[(String, Integration)] {
        &self.embeddings
    }

    /// Names of the figures, what they are about, and their value for each embedding.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, Aspect, &'static str, Vec<Option<f64>>)> + '_ {
        let figures = self.embeddings.first().map_or(&[][..], |(_, found)| &found.figures);
        figures.iter().map(|figure| {
            let values = self.embeddings.iter().map(|(_, found)| found.value(figure.name)).collect();
            (figure.name, figure.aspect, figure.meaning, values)
        })
    }

    /// Scores under their names, for each embedding.
    pub fn score_rows(&self) -> [(&'static str, Vec<Option<f64>>); 3] {
        let of = |at: usize| self.embeddings.iter().map(|(name, _)| self.scores[name][at]).collect();
        [("labels (mean)", of(0)), ("batches (mean)", of(1)), ("total (0.6, 0.4)", of(2))]
    }

    fn csv(&self) -> String {
        let mut text = "figure".to_owned();
        self.embeddings.iter().for_each(|(name, _)| text += &format!(",{}", crate::results::csv_field(name)));
        for (name, _, _, values) in self.rows() {
            text += &format!("\n{name}");
            values.iter().for_each(|value| text += &value.map_or(",".to_owned(), |value| format!(",{value}")));
        }
        text + "\n"
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} cells, {} labels, {} batches; 0 to 1, higher is better",
            self.n_cells, self.n_labels, self.n_batches
        )?;
        let widths: Vec<usize> = self.embeddings.iter().map(|(name, _)| name.len().max(5)).collect();
        let line = |f: &mut fmt::Formatter<'_>, name: &str, cells: Vec<String>, meaning: &str| {
            write!(f, "{name:<19}")?;
            cells.iter().zip(&widths).try_for_each(|(cell, width)| write!(f, "  {cell:>width$}"))?;
            writeln!(f, "  {meaning}")
        };
        let number = |value: &Option<f64>| value.map_or("—".to_owned(), |value| format!("{value:.3}"));
        line(f, "", self.embeddings.iter().map(|(name, _)| name.clone()).collect(), "")?;
        for (name, _, meaning, values) in self.rows() {
            line(f, name, values.iter().map(number).collect(), meaning)?;
        }
        for (name, values) in self.score_rows() {
            line(f, name, values.iter().map(number).collect(), "")?;
        }
        Ok(())
    }
}
