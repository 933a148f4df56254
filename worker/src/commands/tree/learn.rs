//! `tree learn`: a tree from labelled data sets, or from tables of counts alone.

use std::{fmt, path::PathBuf};

use archipelago_analysis::{
    AnalysisError,
    hierarchy::{
        Backend, Classifier, DataSet, JoinOptions, LabelledCells, LearnOptions, Rules, Tables, TrainOptions,
        TrainedTree, Tree, learn,
    },
};
use clap::{Args, ValueEnum};
use ndarray::Axis;
use serde::Serialize;

use super::{JoinedSet, OutArgs, ToldTree, cells::TreeCells, is_file};
use crate::{
    commands::file::{read, within},
    error::{Error, Result},
    graph_file,
    output::Output,
    tree_dir::{Source, TreeDir, read_tables, read_tree},
};

/// Learn a tree from labelled data sets that join it in the given order.
///
/// Labels must be a data set's own: `--append-batch` makes `B cell` of data set `north` into `B cell-north`. The first data
/// set's types stand right below the root; later ones are matched to nodes, split them, are put above several, or are new.
/// Given a file of tables instead of cells (`tables.json` of a tree, or the file of one that sites learned together), the tree is
/// made from the counts alone.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker tree learn latent.h5ad --labels-key cell_type --order a,b,c --append-batch --out tree\n  \
    archipelago-worker tree learn latent.h5ad --labels-key cell_type --tree edited.nwk --order a,b --out tree\n  \
    archipelago-worker tree learn tree/tables.json --out again.nwk")]
pub(super) struct LearnArgs {
    /// The h5ad file of the cells with their positions in a common space, or a `.json` file of tables.
    cells: PathBuf,
    #[command(flatten)]
    out: OutArgs,
    /// Data sets in the order in which they join, separated by commas.
    #[arg(long, value_delimiter = ',')]
    order: Vec<String>,
    /// The obs column of data sets.
    #[arg(long, default_value = "batch")]
    batch_key: String,
    /// The obs column of cell types.
    #[arg(long, default_value = "cell_type")]
    labels_key: String,
    /// The element of obsm to take positions from, or X [default: X_archipelago, else X_pca]
    #[arg(long, value_name = "OBSM")]
    use_rep: Option<String>,
    /// Append `-` and the name of its data set to each label.
    #[arg(long)]
    append_batch: bool,
    /// Leave out cell types with fewer cells in their data set.
    #[arg(long, default_value_t = 0)]
    min_cells: usize,
    /// Train this tree as it is instead of matching: a directory, or a `.nwk` or `.json` file.
    #[arg(long, value_name = "TREE")]
    tree: Option<PathBuf>,
    #[command(flatten)]
    train: TrainArgs,
    #[command(flatten)]
    join: JoinArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Classifiers")]
struct TrainArgs {
    /// What decides at a node.
    #[arg(long, value_enum, default_value_t = ClassifierArg::Knn)]
    classifier: ClassifierArg,
    /// How the nearest cells vote.
    #[arg(long, value_enum, default_value_t = BackendArg::Exact)]
    backend: BackendArg,
    /// Nearest cells that vote.
    #[arg(long, default_value_t = 50)]
    n_neighbors: usize,
    /// Let so many vote also where the smallest type of a node has fewer cells.
    #[arg(long)]
    fixed_neighbors: bool,
    /// Percentile of training cells' distances beyond which a cell is rejected.
    #[arg(long, value_name = "0..100", default_value_t = 99.0)]
    dist_knn: f64,
    /// Do everything on principal components.
    #[arg(long)]
    dimred: bool,
    /// Do not reject cells that principal components explain badly.
    #[arg(long)]
    no_reconstruction: bool,
    /// Percentage of training cells that this may reject.
    #[arg(long, value_name = "0..100", default_value_t = 0.5)]
    fn_percent: f64,
}

/// How names are matched.
#[derive(Args, Debug)]
#[command(next_help_heading = "Matching")]
struct JoinArgs {
    /// A decision of this probability or less is none.
    #[arg(long, value_name = "0..1", default_value_t = 0.5)]
    rej_threshold: f64,
    /// Shares of cells closer than this count together.
    #[arg(long, value_name = "0..1", default_value_t = 0.25)]
    match_threshold: f64,
    /// Put labels that find no place below the root.
    #[arg(long)]
    attach_missing: bool,
    /// Repeat scHPL's faults too: labels can be lost, and linear machines take the least sure child.
    #[arg(long)]
    upstream_rules: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ClassifierArg {
    /// The nearest training cells.
    Knn,
    /// A linear support vector machine.
    Svm,
    /// A one-class support vector machine.
    SvmOcc,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum BackendArg {
    /// By the inverse of their distance.
    Exact,
    /// One each, with thresholds on squared distances: upstream's rules where it finds its index library.
    Index,
}

/// What came of it.
#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) out: PathBuf,
    pub(super) n_cells: usize,
    pub(super) n_left_out: usize,
    pub(super) data_sets: Vec<JoinedSet>,
    #[serde(flatten)]
    pub(super) tree: ToldTree,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::UnknownBatch`], [`Error::Analysis`], [`Error::Tree`]
pub(super) fn run(args: &LearnArgs, output: &Output) -> Result<()> {
    if args.cells.extension().is_some_and(|extension| extension == "json") {
        return args.learn_tables(output);
    }
    if is_file(&args.out.out) {
        let (found, expected) = (format!("`{}`", args.out.out.display()), "a directory, for a tree with classifiers");
        return Err(Error::Setting { what: "--out", found, expected });
    }
    let options = args.options()?;
    let given = args.tree.as_ref().map(|path| read_tree(path)).transpose()?;
    let adata = read(&args.cells, output)?;
    let in_file = |error| within(&args.cells, error);
    let use_rep = args.use_rep.clone().map_or_else(|| graph_file::default_rep(&adata), Ok).map_err(in_file)?;
    let mut source = Source {
        use_rep,
        batch_key: args.batch_key.clone(),
        labels_key: args.labels_key.clone(),
        append_batch: args.append_batch,
        data_sets: args.order.clone(),
        network: None,
    };
    let mut cells = TreeCells::of(adata, &source).map_err(in_file)?;
    source.network = cells.network();
    if args.order.is_empty() {
        output.note(format!("the data sets are {}", cells.available()));
        return Err(Error::Setting {
            what: "--order",
            found: "not given".into(),
            expected: "the order in which data sets join",
        });
    }
    let n_left_out = cells.leave_out_rare(args.min_cells);
    let sets = cells.sets(&args.cells, &args.batch_key, &args.order)?;
    let work = output.waiting("learning the tree");
    let fitted = match given {
        Some(tree) => Fitted::of_given(tree, &cells, &sets, &options)?,
        None => Fitted::of_learned(&cells, &sets, &options)?,
    };
    drop(work);
    let last = sets.last().map(|set| cells.labels.select(&set.rows)).filter(|_| sets.len() > 1);
    let new: Vec<&str> = last.iter().flat_map(|labels| labels.carried()).map(|(name, ..)| name).collect();
    let Fitted { trained, data_sets, tables } = fitted;
    let tree = ToldTree::of(&trained.tree, &new);
    TreeDir { trained, options, source, tables }.write(&args.out.out)?;
    let n_cells = sets.iter().map(|set| set.rows.len()).sum();
    output.show(&Summary { out: args.out.out.clone(), n_cells, n_left_out, data_sets, tree });
    Ok(())
}

/// A tree that was fitted to cells.
struct Fitted {
    trained: TrainedTree,
    data_sets: Vec<JoinedSet>,
    tables: Option<Tables>,
}

impl Fitted {
    /// Data sets join a tree one after another.
    fn of_learned(cells: &TreeCells, sets: &[DataSet], options: &LearnOptions) -> Result<Self> {
        let labelled = LabelledCells { x: cells.x.view(), labels: &cells.labels };
        let learned = learn(labelled, sets, options, &mut |_| {})?;
        let first = sets.first().map(|set| cells.labels.select(&set.rows));
        let first = first.iter().flat_map(|labels| labels.carried()).map(|(name, ..)| name.to_owned()).collect();
        let additions = learned.steps.iter().map(|step| step.addition.clone()).collect();
        let data_sets = learned.steps.iter().map(JoinedSet::of).collect();
        let tables = Some(Tables { first, additions, options: options.join });
        Ok(Self { trained: learned.trained, data_sets, tables })
    }

    /// A tree that was given is trained as it is; cells of labels that it has not take no part in its nodes.
    fn of_given(tree: Tree, cells: &TreeCells, sets: &[DataSet], options: &LearnOptions) -> Result<Self> {
        let rows: Vec<usize> = sets.iter().flat_map(|set| set.rows.iter().copied()).collect();
        let labels = cells.labels.select(&rows);
        let x = cells.x.select(Axis(0), &rows);
        let trained = TrainedTree::train(x.view(), &labels, tree, &options.train, options.join.rules)?;
        Ok(Self { trained, data_sets: Vec::new(), tables: None })
    }
}

impl LearnArgs {
    fn learn_tables(&self, output: &Output) -> Result<()> {
        let tables = read_tables(&self.cells)?;
        let tree = tables.grow().map_err(AnalysisError::from)?;
        super::edit::write_tree(&self.out.out, &tree)?;
        let n_cells = tables.additions.iter().map(|addition| addition.of_joining.n_cells() as usize).sum();
        let told = ToldTree::of(&tree, &[]);
        output.show(&Summary { out: self.out.out.clone(), n_cells, n_left_out: 0, data_sets: Vec::new(), tree: told });
        Ok(())
    }

    fn options(&self) -> Result<LearnOptions> {
        super::predict::check_threshold(self.join.rej_threshold)?;
        let train = TrainOptions {
            classifier: match self.train.classifier {
                ClassifierArg::Knn => Classifier::Knn,
                ClassifierArg::Svm => Classifier::Svm,
                ClassifierArg::SvmOcc => Classifier::SvmOcc,
            },
            backend: match self.train.backend {
                BackendArg::Exact => Backend::Exact,
                BackendArg::Index => Backend::Index,
            },
            n_neighbors: self.train.n_neighbors,
            dynamic_neighbors: !self.train.fixed_neighbors,
            dist_knn: self.train.dist_knn,
            dimred: self.train.dimred,
            use_re: !self.train.no_reconstruction,
            fn_percent: self.train.fn_percent,
        };
        let join = JoinOptions {
            match_threshold: self.join.match_threshold,
            attach_missing: self.join.attach_missing,
            rules: if self.join.upstream_rules { Rules::Upstream } else { Rules::Corrected },
        };
        Ok(LearnOptions { train, rej_threshold: self.join.rej_threshold, join })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        write!(f, "cells       {}", self.n_cells)?;
        match self.n_left_out {
            0 => writeln!(f)?,
            n => writeln!(f, ", {n} of rare types left out")?,
        }
        self.data_sets.iter().try_for_each(|set| writeln!(f, "{}", set.line()))?;
        write!(f, "\n{}", self.tree.text)
    }
}
