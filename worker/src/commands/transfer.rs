//! `transfer`: labels of reference cells for query cells, with an uncertainty.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use archipelago_analysis::{
    Labels,
    metrics::{ClassReport, Confusion},
    neighbours::{Neighbours, knn_telling},
    transfer::{UNKNOWN, Unknown, matching_columns, true_label_uncertainty, weighted},
};
use archipelago_anndata::{AnnData, Array, Categorical, Column, Dict, Element};
use clap::{Args, ValueEnum};
use ndarray::{Array2, Axis};
use serde::Serialize;

use super::file::{FileArgs, read, within};
use crate::{
    cells::{embedding, labels},
    colours::MISSING,
    error::{Error, Result},
    graph_file, lists, network,
    output::Output,
};

/// Give query cells the labels of their nearest reference cells, with an uncertainty, as scArches does.
///
/// A key means every reference column whose name starts with it: `ann_level_` transfers all levels at once. Per column the
/// query gets `<column>_transferred_label_unfiltered`, `<column>_transfer_uncert` and `<column>_transferred_label`, in which
/// labels that are not trusted are `Unknown`. Where the query has the column too, the transfer is judged by it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker transfer reference.h5ad mapped/mapped.h5ad --labels-key cell_type --out labelled.h5ad\n  \
    archipelago-worker transfer atlas.h5ad mapped/mapped.h5ad --labels-key ann_level_ --max-uncertainty 0.2 --in-place")]
pub struct TransferArgs {
    /// The h5ad file of the reference cells, with their positions in the latent space (`latent` writes it).
    reference: PathBuf,
    #[command(flatten)]
    query: FileArgs,
    /// Columns of the reference, or what their names start with, separated by commas.
    #[arg(long, required = true)]
    labels_key: Vec<String>,
    /// The element of obsm of both files to take distances in [default: X_archipelago, else X_pca]
    #[arg(long, value_name = "OBSM")]
    use_rep: Option<String>,
    /// Reference cells that vote for a query cell; those without a label do not.
    #[arg(long, default_value_t = 50)]
    n_neighbors: usize,
    /// Labels of a higher uncertainty become `Unknown`; the lung atlas takes 0.2.
    #[arg(long, value_name = "0..1", conflicts_with = "min_probability")]
    max_uncertainty: Option<f64>,
    /// Labels of a smaller share of the weight become `Unknown`: the threshold of the scArches package.
    #[arg(long, value_name = "0..1")]
    min_probability: Option<f64>,
    /// Give these labels only, such as those that a tissue can have; reference cells of others do not vote.
    #[arg(long, value_name = "LABELS")]
    among: Vec<String>,
    /// Also give every cell the label that most cells of its group have, by this obs column of the query (a clustering, say): in
    /// `<column>_majority_label`.
    #[arg(long, value_name = "COLUMN")]
    majority_by: Option<String>,
    /// What the uncertainty is of.
    #[arg(long, value_enum, default_value_t = ModeArg::Package)]
    mode: ModeArg,
}

/// What the uncertainty is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ModeArg {
    /// Of the label that is transferred.
    Package,
    /// Of the label that the query cell has, for judging; needs the query's labels.
    Paper,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    n_query: usize,
    n_reference: usize,
    n_neighbors: usize,
    columns: BTreeMap<String, ColumnSummary>,
}

/// What came of one column.
#[derive(Serialize)]
struct ColumnSummary {
    /// Reference cells that have a value.
    n_voting: usize,
    n_unknown: usize,
    mean_uncertainty: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    judged: Option<Judgement>,
}

/// A transfer against the labels that the query has.
#[derive(Serialize)]
struct Judgement {
    n_cells: usize,
    accuracy: Option<f64>,
    balanced_accuracy: Option<f64>,
    macro_f1: Option<f64>,
    weighted_f1: Option<f64>,
    classes: Vec<ClassReport>,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::NoEmbedding`], [`Error::OtherSpace`], [`Error::OtherNetwork`],
/// [`Error::Analysis`]
pub fn run(args: &TransferArgs, output: &Output) -> Result<()> {
    let rule = args.rule()?;
    let reference = read(&args.reference, output)?;
    let mut query = args.query.read(output)?;
    let in_reference = |error| within(&args.reference, error);
    let columns = args.columns(&reference).map_err(in_reference)?;
    let rep = args.use_rep.clone().map_or_else(|| graph_file::default_rep(&reference), Ok).map_err(in_reference)?;
    let x = embedding(&reference, &rep).map_err(in_reference)?;
    let y = embedding(&query, &rep).map_err(|error| args.query.within(error))?;
    if x.ncols() != y.ncols() {
        let (found, expected) = (y.ncols(), x.ncols());
        return Err(Error::OtherSpace { path: args.query.file.clone(), rep, found, expected });
    }
    network::check(&rep, &reference, (&args.query.file, &query), output)?;
    let mut voters = Voters { x: &x, y: &y, n_neighbors: args.n_neighbors, found: BTreeMap::new() };
    let mut summaries = BTreeMap::new();
    for name in columns {
        let names = reference.obs.column(&name).map_err(|error| in_reference(error.into()))?.to_strings();
        let n_without = names.iter().filter(|name| name.is_none()).count();
        let among = lists::of_column(&args.among, &name, &names)?;
        let is_given =
            |name: &Option<String>| name.as_ref().is_some_and(|name| among.is_empty() || among.contains(name));
        let labelled: Vec<usize> = (0..names.len()).filter(|&row| is_given(&names[row])).collect();
        if n_without > 0 {
            output.note(format_args!(
                "note: {n_without} reference cells have no value in `{name}` and do not vote for it"
            ));
        }
        let known = Labels::from_names(&labelled.iter().filter_map(|&row| names[row].as_ref()).collect::<Vec<_>>());
        let neighbours = voters.among(&labelled, output)?;
        let summary = args.transfer(&mut query, &name, &known, neighbours, rule);
        let summary = summary.map_err(|error| args.query.within(error))?;
        summaries.insert(name, ColumnSummary { n_voting: labelled.len(), ..summary });
    }
    query.uns.insert("label_transfer".to_owned(), args.provenance(&rep, reference.n_obs()));
    let out = args.query.write(&query, output)?;
    let (n_query, n_reference) = (query.n_obs(), reference.n_obs());
    output.show(&Summary { out, n_query, n_reference, n_neighbors: args.n_neighbors, columns: summaries });
    Ok(())
}

/// The nearest reference cells of each query cell, searched once for all columns that the same cells have values in.
struct Voters<'a> {
    x: &'a Array2<f32>,
    y: &'a Array2<f32>,
    n_neighbors: usize,
    found: BTreeMap<Vec<usize>, Neighbours>,
}

impl Voters<'_> {
    /// Neighbours among these reference cells, by their positions among them.
    fn among(&mut self, cells: &[usize], output: &Output) -> Result<&Neighbours> {
        if !self.found.contains_key(cells) {
            let work = output.work("finding neighbours");
            let chosen = self.x.select(Axis(0), cells);
            let found = knn_telling(self.y.view(), chosen.view(), self.n_neighbors, &|share| work.share(share))?;
            self.found.insert(cells.to_vec(), found);
        }
        Ok(&self.found[cells])
    }
}

impl TransferArgs {
    fn rule(&self) -> Result<Unknown> {
        let (what, share) = match (self.max_uncertainty, self.min_probability) {
            (Some(most), _) => ("--max-uncertainty", most),
            (None, Some(least)) => ("--min-probability", least),
            (None, None) => return Ok(Unknown::Never),
        };
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::Setting { what, found: share.to_string(), expected: "a share from 0 to 1" });
        }
        Ok(if self.max_uncertainty.is_some() { Unknown::MaxUncertainty(share) } else { Unknown::MinProbability(share) })
    }

    fn columns(&self, reference: &AnnData) -> Result<Vec<String>> {
        let names = reference.obs.column_names();
        let mut columns = Vec::new();
        let is_known = |key: &str| !matching_columns(&names, key).is_empty();
        for key in &lists::among(&self.labels_key, |key| is_known(key).then(|| key.to_owned())) {
            let found = matching_columns(&names, key);
            if found.is_empty() {
                // An error that lists the columns there are.
                reference.obs.column(key)?;
            }
            columns.extend(found.into_iter().map(str::to_owned));
        }
        columns.dedup();
        Ok(columns)
    }

    fn transfer(
        &self,
        query: &mut AnnData,
        name: &str,
        known: &Labels,
        neighbours: &Neighbours,
        rule: Unknown,
    ) -> Result<ColumnSummary> {
        let found = weighted(neighbours, known)?;
        let truth = match query.obs.column(name) {
            Ok(_) => Some(labels(&query.obs, name, MISSING)?),
            Err(_) => None,
        };
        let uncertainty = match (self.mode, &truth) {
            (ModeArg::Package, _) => found.uncertainty.clone(),
            (ModeArg::Paper, Some(truth)) => true_label_uncertainty(neighbours, known, truth)?,
            (ModeArg::Paper, None) => {
                query.obs.column(name)?;
                Vec::new()
            }
        };
        let kept = found.labels_with(rule);
        let n_unknown = kept.iter().filter(|label| **label == UNKNOWN).count();
        let unfiltered: Vec<&str> = found.labels.iter().collect();
        if let Some(groups) = &self.majority_by {
            let groups = labels(&query.obs, groups, MISSING)?;
            let majority = categories_of(known, &majority(&unfiltered, &groups))?;
            query.obs.insert(format!("{name}_majority_label"), majority)?;
        }
        let (kept, unfiltered) = (categories_of(known, &kept)?, categories_of(known, &unfiltered)?);
        let mean_uncertainty = uncertainty.iter().sum::<f64>() / uncertainty.len().max(1) as f64;
        query.obs.insert(format!("{name}_transferred_label_unfiltered"), unfiltered)?;
        query.obs.insert(format!("{name}_transfer_uncert"), uncertainty)?;
        query.obs.insert(format!("{name}_transferred_label"), kept)?;
        let judged = truth.map(|truth| Judgement::of(&truth, &found.labels)).transpose()?;
        Ok(ColumnSummary { n_voting: known.len(), n_unknown, mean_uncertainty, judged: judged.flatten() })
    }

    fn provenance(&self, rep: &str, n_reference: usize) -> Element {
        let float = |value: f64| Element::Array(Array::float(value));
        let int = |value: usize| Element::Array(Array::int(value as i64));
        let mut entry = Dict::from([
            ("n_neighbors".to_owned(), int(self.n_neighbors)),
            ("n_reference".to_owned(), int(n_reference)),
            ("use_rep".to_owned(), Element::from(rep)),
        ]);
        let thresholds = [("max_uncertainty", self.max_uncertainty), ("min_probability", self.min_probability)];
        for (name, value) in thresholds {
            entry.extend(value.map(|value| (name.to_owned(), float(value))));
        }
        Element::Dict(entry)
    }
}

/// For each cell the label that most cells of its group have; of several that are as frequent, the first in the alphabet.
fn majority<'a>(found: &[&'a str], groups: &Labels) -> Vec<&'a str> {
    let mut counts: BTreeMap<(u32, &'a str), usize> = BTreeMap::new();
    for (&label, &group) in found.iter().zip(groups.codes()) {
        *counts.entry((group, label)).or_default() += 1;
    }
    let mut most: BTreeMap<u32, (&'a str, usize)> = BTreeMap::new();
    for ((group, label), n) in counts {
        let known = most.entry(group).or_insert((label, n));
        if n > known.1 {
            *known = (label, n);
        }
    }
    groups.codes().iter().map(|group| most[group].0).collect()
}

/// Labels as a column with every category of the reference, so that a label has the same colour whichever others occur.
fn categories_of(known: &Labels, labels: &[&str]) -> Result<Column> {
    let mut names = known.names().to_vec();
    if labels.contains(&UNKNOWN) && !names.iter().any(|name| name == UNKNOWN) {
        names.push(UNKNOWN.to_owned());
    }
    let code = |label: &&str| names.iter().position(|name| name == label).map_or(Column::MISSING, |at| at as i32);
    let codes = labels.iter().map(code).collect();
    Ok(Column::Categorical(Categorical::new(codes, names.clone(), false)?))
}

impl Judgement {
    /// Of the cells whose label is known; none if there are none.
    fn of(truth: &Labels, found: &Labels) -> Result<Option<Self>> {
        let rows: Vec<usize> = (0..truth.len()).filter(|&row| truth.name(row) != MISSING).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let confusion = Confusion::new(&truth.select(&rows), &found.select(&rows))?;
        Ok(Some(Self {
            n_cells: rows.len(),
            accuracy: confusion.accuracy(),
            balanced_accuracy: confusion.balanced_accuracy(),
            macro_f1: confusion.macro_f1(),
            weighted_f1: confusion.weighted_f1(),
            classes: confusion.report(),
        }))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "labelled    {}", self.out.display())?;
        writeln!(f, "cells       {} by {} of {} reference cells", self.n_query, self.n_neighbors, self.n_reference)?;
        for (name, column) in &self.columns {
            let share = 100.0 * column.n_unknown as f64 / self.n_query.max(1) as f64;
            let mean = column.mean_uncertainty;
            writeln!(f, "{name}: {} Unknown ({share:.1} %), mean uncertainty {mean:.3}", column.n_unknown)?;
            if let Some(judged) = &column.judged {
                write!(f, "{judged}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |value: Option<f64>| value.map_or("—".to_owned(), |value| format!("{value:.3}"));
        let width = self.classes.iter().map(|class| class.label.chars().count()).max().unwrap_or(0).max(5);
        writeln!(f, "  {:<width$}  precision  recall     f1  cells", "label")?;
        for ClassReport { label, precision, recall, f1, support } in &self.classes {
            writeln!(f, "  {label:<width$}      {precision:.3}   {recall:.3}  {f1:.3}  {support}")?;
        }
        let (accuracy, balanced) = (figure(self.accuracy), figure(self.balanced_accuracy));
        writeln!(f, "  accuracy {accuracy}, balanced {balanced}, macro F1 {}", figure(self.macro_f1))
    }
}
