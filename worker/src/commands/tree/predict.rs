//! `tree predict`: where new cells belong.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use archipelago_analysis::hierarchy::{REJECTED_BY_DISTANCE, REJECTED_BY_ERROR, ROOT, Tree, hierarchical_f1};
use archipelago_anndata::AnnData;
use archipelago_common::hash::Digest;
use clap::Args;
use ndarray::ArrayView2;
use serde::Serialize;

use crate::{
    cells::{column, embedding},
    commands::file::FileArgs,
    error::{Error, Result},
    mapping::OBSM_KEY,
    network::{self, Network},
    output::Output,
    shared_tree::{Placed, TreeParts, write_placed},
    tree_dir::{TreeDir, is_version, read_version},
};

/// Place cells in a tree, or reject them.
///
/// Writes the obs columns `<key>_label` and `<key>_probability`. A cell that the reference's components do not explain is
/// called `Rejected (RE)`, one far from all its cells `Rejection (dist)`, one that no type took `root`; one that fits a
/// type but none of its subtypes gets the type.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker tree predict tree mapped/mapped.h5ad --out placed.h5ad")]
pub(super) struct PredictArgs {
    /// The directory of the tree, or of a reference's version over which sites learned one.
    tree: PathBuf,
    #[command(flatten)]
    cells: FileArgs,
    /// A decision of this probability or less is none; support vector machines know no probabilities.
    #[arg(long, value_name = "0..1", default_value_t = 0.5)]
    rej_threshold: f64,
    /// What the columns' names begin with.
    #[arg(long, default_value = "tree")]
    key_added: String,
    /// Judge the labels by this obs column, which must use labels of the tree.
    #[arg(long, value_name = "COLUMN")]
    judge_by: Option<String>,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    n_cells: usize,
    n_rejected: usize,
    /// Cells by label, rejections included.
    labels: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    judged: Option<Judgement>,
}

/// Predictions against labels of the tree.
#[derive(Serialize)]
struct Judgement {
    column: String,
    accuracy: f64,
    hierarchical_f1: Option<f64>,
}

/// A tree that places cells.
enum Placer {
    /// With classifiers that saw the cells of all data sets.
    Trained(Box<TreeDir>),
    /// By the machines of sites, with the digest of the base that they share.
    Shared(Box<TreeParts>, Digest),
}

/// Runs the command.
///
/// # Errors  [`Error::Tree`], [`Error::Cells`], [`Error::OtherSpace`], [`Error::OtherNetwork`], [`Error::Analysis`]
pub(super) fn run(args: &PredictArgs, output: &Output) -> Result<()> {
    check_threshold(args.rej_threshold)?;
    let placer = Placer::read(&args.tree)?;
    let mut adata = args.cells.read(output)?;
    let rep = placer.rep();
    let x = embedding(&adata, rep).map_err(|error| args.cells.within(error))?;
    if let Some(expected) = placer.n_dims().filter(|&expected| expected != x.ncols()) {
        let (path, rep) = (args.cells.file.clone(), rep.to_owned());
        return Err(Error::OtherSpace { path, rep, found: x.ncols(), expected });
    }
    network::check_known(rep, placer.network().as_ref(), (&args.cells.file, &adata), output)?;
    let work = output.waiting("placing cells");
    let found = placer.place(x.view(), args.rej_threshold)?;
    drop(work);
    let judge = |column: &String| judge(&adata, column, placer.tree(), &found);
    let judged = args.judge_by.as_ref().map(judge).transpose().map_err(|error| args.cells.within(error))?;
    let mut labels = BTreeMap::<String, usize>::new();
    found.labels.iter().for_each(|label| *labels.entry(label.clone()).or_default() += 1);
    let n_rejected = UNPLACED.iter().filter_map(|&label| labels.get(label)).sum();
    let by_cell: Vec<&str> = found.labels.iter().map(String::as_str).collect();
    let written = write_placed(&mut adata, &args.key_added, &by_cell, found.shares);
    written.map_err(|error| args.cells.within(error.into()))?;
    let out = args.cells.write(&adata, output)?;
    output.show(&Summary { out, n_cells: adata.n_obs(), n_rejected, labels, judged });
    Ok(())
}

impl Placer {
    fn read(path: &Path) -> Result<Self> {
        if is_version(path) {
            let (parts, base) = read_version(path)?;
            return Ok(Self::Shared(Box::new(parts), base));
        }
        Ok(Self::Trained(Box::new(TreeDir::read(path)?)))
    }

    fn tree(&self) -> &Tree {
        match self {
            Self::Trained(dir) => &dir.trained.tree,
            Self::Shared(parts, _) => &parts.shared().tree,
        }
    }

    fn rep(&self) -> &str {
        match self {
            Self::Trained(dir) => &dir.source.use_rep,
            Self::Shared(..) => OBSM_KEY,
        }
    }

    fn n_dims(&self) -> Option<usize> {
        match self {
            Self::Trained(dir) => Some(dir.trained.n_dims),
            Self::Shared(parts, _) => parts.n_dims(),
        }
    }

    fn network(&self) -> Option<Network> {
        match self {
            Self::Trained(dir) => dir.source.network.clone(),
            Self::Shared(_, base) => Some(Network::of_base(base)),
        }
    }

    fn place(&self, x: ArrayView2<'_, f32>, threshold: f64) -> Result<Placed> {
        match self {
            Self::Trained(dir) => {
                let found = dir.trained.predict(x, threshold)?;
                Ok(Placed { labels: found.iter().map(str::to_owned).collect(), shares: found.probabilities })
            }
            Self::Shared(parts, _) => parts.place(x),
        }
    }
}

/// A node is right by any of its names; the rejected count as the root.
fn judge(adata: &AnnData, name: &str, tree: &Tree, found: &Placed) -> Result<Judgement> {
    let truth = column(&adata.obs, name)?;
    tree.check_labels(truth.iter().map(String::as_str)).map_err(archipelago_analysis::AnalysisError::from)?;
    let pairs = || truth.iter().map(String::as_str).zip(found.labels.iter().map(|label| or_root(label)));
    let is_right = |&(truth, label): &(&str, &str)| tree.node(truth).is_some_and(|node| node.name() == label);
    let accuracy = pairs().filter(is_right).count() as f64 / truth.len().max(1) as f64;
    Ok(Judgement { column: name.to_owned(), accuracy, hierarchical_f1: hierarchical_f1(tree, pairs()) })
}

fn or_root(label: &str) -> &str {
    if UNPLACED.contains(&label) { ROOT } else { label }
}

/// # Errors  [`Error::Setting`] for what is no probability
pub(super) fn check_threshold(threshold: f64) -> Result<()> {
    if (0.0..=1.0).contains(&threshold) {
        return Ok(());
    }
    Err(Error::Setting { what: "--rej-threshold", found: threshold.to_string(), expected: "a probability from 0 to 1" })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        let share = 100.0 * self.n_rejected as f64 / self.n_cells.max(1) as f64;
        writeln!(f, "cells       {}, {} rejected ({share:.1} %)", self.n_cells, self.n_rejected)?;
        if let Some(Judgement { column, accuracy, hierarchical_f1 }) = &self.judged {
            let f1 = hierarchical_f1.map_or_else(|| "none".to_owned(), |f1| format!("{f1:.3}"));
            writeln!(f, "judged by   {column}: accuracy {accuracy:.3}, hierarchical F1 {f1}")?;
        }
        let width = self.labels.keys().map(|label| label.chars().count()).max().unwrap_or(0);
        self.labels.iter().try_for_each(|(label, n)| writeln!(f, "{label:<width$}  {n}"))
    }
}

/// What cells are called that no type took.
const UNPLACED: [&str; 3] = [REJECTED_BY_ERROR, REJECTED_BY_DISTANCE, ROOT];
