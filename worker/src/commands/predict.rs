//! `predict`: labels of cells, from a reference that learnt some.

use std::{fmt, path::PathBuf};

use archipelago_analysis::{
    Labels,
    metrics::{ClassReport, Confusion},
};
use archipelago_anndata::{Array, Column, DataFrame, Element, Values};
use archipelago_common::id::VersionId;
use archipelago_models::{LabelPrediction, PredictFrom};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::known::{KnownCellArgs, KnownCells};
use crate::{
    error::{Error, Result},
    output::Output,
    table::{CsvTable, TableFormat},
};

/// Predict the labels of cells whose batches are conditions of a reference that predicts labels.
///
/// Labels that the cells carry do not enter; where there are some, an accuracy table says how well they are met. A batch is
/// found by its name among the reference's conditions; `--owner` and `--dataset` choose where several have it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker predict mapped query.h5ad --batches 10x_5p --out predicted.csv\n  \
    archipelago-worker predict mapped query.h5ad --soft --out predicted.h5ad")]
pub struct PredictArgs {
    #[command(flatten)]
    known: KnownCellArgs,
    /// The file to write: h5ad (the cells with `obs['archipelago_label']`) or csv.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write the probability of every label.
    #[arg(long)]
    soft: bool,
    /// What of a cell's posterior is classified.
    #[arg(long, value_enum, default_value_t = Classified::Mean)]
    from: Classified,
    /// Seed of the draws of `--from draw`.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What of a cell's posterior is classified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Classified {
    /// Its mean.
    Mean,
    /// One draw from it.
    Draw,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    n_cells: usize,
    /// Cells predicted as each label.
    predicted: Vec<(String, usize)>,
    /// How well the cells' own labels are met, where they have some that the reference knows.
    accuracy: Option<Accuracy>,
}

/// How well predictions meet the labels that cells carry.
#[derive(Serialize)]
struct Accuracy {
    n_labelled: usize,
    /// Cells whose label the reference does not know; not counted below.
    n_unknown: usize,
    accuracy: Option<f64>,
    balanced_accuracy: Option<f64>,
    macro_f1: Option<f64>,
    labels: Vec<ClassReport>,
    confusion: Confusion,
}

/// Runs the command.
///
/// # Errors  [`Error::Reference`], [`Error::Cells`], [`Error::NoCondition`], [`Error::Models`] for a reference without labels
pub fn run(args: &PredictArgs, output: &Output) -> Result<()> {
    let format = TableFormat::of(&args.out)?;
    let known = args.known.open(output)?;
    if format == TableFormat::H5ad {
        known.data.check_writable()?;
    }
    let from = match args.from {
        Classified::Mean => PredictFrom::Mean,
        Classified::Draw => PredictFrom::Draw,
    };
    let cells = known.cells()?;
    let predicted = known.reference().predict_labels(&cells, &known.conditions, from, args.seed, known.device)?;
    match format {
        TableFormat::Csv => table(&known, &predicted, args.soft).write(&args.out)?,
        TableFormat::H5ad => write_cells(args, &known, &predicted)?,
    }
    let found = predicted.most_probable();
    let count = |label: &String| (label.clone(), found.iter().filter(|other| **other == label).count());
    output.show(&Summary {
        out: args.out.clone(),
        version: known.open.dir.version().id(),
        n_cells: found.len(),
        predicted: predicted.labels.iter().map(count).collect(),
        accuracy: accuracy(known.data.annotations().labels().unwrap_or_default(), &predicted)?,
    });
    Ok(())
}

fn table(known: &KnownCells, predicted: &LabelPrediction, soft: bool) -> CsvTable {
    let labels: &[String] = if soft { &predicted.labels } else { &[] };
    let mut table =
        CsvTable::new(["cell", "label", "probability"].into_iter().chain(labels.iter().map(String::as_str)));
    let rows = predicted.probabilities.rows().into_iter().zip(predicted.most_probable());
    for (cell, (row, label)) in known.data.cell_names().zip(rows) {
        let best = row.iter().copied().fold(0.0, f32::max);
        let shown = row.iter().take(labels.len()).map(f32::to_string);
        table.row(cell, [crate::results::csv_field(label), best.to_string()].into_iter().chain(shown));
    }
    table
}

fn write_cells(args: &PredictArgs, known: &KnownCells, predicted: &LabelPrediction) -> Result<()> {
    let best = predicted.probabilities.rows().into_iter().map(|row| row.iter().copied().fold(0.0, f32::max));
    let best = Column::Plain(Values::F32(best.collect()));
    let version = Array::text(known.open.dir.version().id().to_string());
    known.data.write_all(&args.out, |cells| {
        cells.obs.insert("archipelago_label", Column::categorical(&predicted.most_probable()))?;
        cells.obs.insert("archipelago_label_probability", best)?;
        if args.soft {
            let mut frame = DataFrame::new(cells.obs_names().iter().cloned());
            for (label, column) in predicted.labels.iter().zip(predicted.probabilities.columns()) {
                frame.insert(label.as_str(), Column::Plain(Values::F32(column.to_vec())))?;
            }
            cells.obsm.insert("archipelago_label_probabilities".to_owned(), Element::Frame(frame));
        }
        cells.uns.insert("archipelago_reference".to_owned(), Element::Array(version));
        Ok(())
    })
}

/// Figures over the cells with a label that the reference knows; nothing without such cells.
fn accuracy(labels: &[Option<String>], predicted: &LabelPrediction) -> Result<Option<Accuracy>> {
    let is_known = |label: &str| predicted.labels.iter().any(|known| known == label);
    let labelled =
        labels.iter().zip(predicted.most_probable()).filter_map(|(label, found)| Some((label.as_deref()?, found)));
    let (known, unknown): (Vec<_>, Vec<_>) = labelled.partition(|(label, _)| is_known(label));
    if known.is_empty() {
        return Ok(None);
    }
    let (truth, found): (Vec<&str>, Vec<&str>) = known.into_iter().unzip();
    let confusion =
        Confusion::new(&Labels::from_names(&truth), &Labels::from_names(&found)).map_err(Error::Analysis)?;
    Ok(Some(Accuracy {
        n_labelled: truth.len(),
        n_unknown: unknown.len(),
        accuracy: confusion.accuracy(),
        balanced_accuracy: confusion.balanced_accuracy(),
        macro_f1: confusion.macro_f1_of_true_labels(),
        labels: confusion.report(),
        confusion,
    }))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "predicted   {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        let counts: Vec<String> = self.predicted.iter().map(|(label, n)| format!("{label} {n}")).collect();
        writeln!(f, "cells       {}: {}", self.n_cells, counts.join(", "))?;
        let Some(accuracy) = &self.accuracy else { return Ok(()) };
        let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        write!(f, "accuracy    {} of {} labelled cells", figure(accuracy.accuracy), accuracy.n_labelled)?;
        if accuracy.n_unknown > 0 {
            write!(f, "; {} more have labels that the reference does not know", accuracy.n_unknown)?;
        }
        writeln!(f, "\nmean F1     {}, mean recall {}", figure(accuracy.macro_f1), figure(accuracy.balanced_accuracy))?;
        let width = accuracy.labels.iter().map(|class| class.label.chars().count()).max().unwrap_or(0).max(5);
        writeln!(f, "\n{:<width$}  precision  recall     F1  cells", "label")?;
        for ClassReport { label, precision, recall, f1, support } in &accuracy.labels {
            writeln!(f, "{label:<width$}      {precision:.3}   {recall:.3}  {f1:.3}  {support:>5}")?;
        }
        Ok(())
    }
}
