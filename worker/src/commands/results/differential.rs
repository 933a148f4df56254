//! Differential expression between groups of cells.

use std::{fmt, path::PathBuf};

use archipelago_common::id::VersionId;
use archipelago_models::results::{
    CountResults, GroupAsk, RawStatistics,
    differential_expression::{Change, Decision, DifferentialExpression, GeneDifference, Hypothesis, called_at_fdr},
};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Asked;
use crate::{
    commands::known::KnownCells,
    error::{Error, Result},
    lists,
    output::Output,
    table::CsvTable,
};

/// Which genes, and what else the model decodes, differ between groups of cells, with a false discovery rate.
///
/// Groups are the values of an obs column. Each group named by `--group1` (all of them, if none is) is compared with
/// `--group2`, or with all other cells. Rows are sorted by what is decided on, group by group.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker results differential reference cells.h5ad --groupby cell_type --out de.csv\n  \
    archipelago-worker results differential reference cells.h5ad --groupby cell_type --group1 B --group2 NK \\\n      \
        --mode change --batch-correction --out de.csv")]
pub(super) struct DifferentialArgs {
    #[command(flatten)]
    asked: Asked,
    /// The csv file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The obs column of the groups.
    #[arg(long)]
    groupby: String,
    /// Groups to compare, separated by commas [default: every value of the column]
    #[arg(long)]
    group1: Vec<String>,
    /// The group to compare with [default: all other cells]
    #[arg(long)]
    group2: Option<String>,
    /// vanilla: which group expresses more. change: whether the fold change is large, with a false discovery rate. scvi-tools' own default
    /// is vanilla where a model decodes genes alone, and change where it decodes proteins too; here it is change for both.
    #[arg(long, value_enum, default_value_t = Mode::Change)]
    mode: Mode,
    /// Smallest log2 fold change that counts; `fit` takes it from the data.
    #[arg(long, default_value = "0.25", value_parser = number_or_fit)]
    delta: Fitted,
    /// Added to expression before logarithms; `fit` takes it from genes that are hardly expressed
    /// [default: fit; for a model that decodes other features too, upstream's number for those]
    #[arg(long, value_parser = number_or_fit)]
    pseudocount: Option<Fitted>,
    /// three: up, down or neither. two: different or not.
    #[arg(long, value_enum, default_value_t = Test::Three)]
    test_mode: Test,
    /// Share of false discoveries among the genes that are called.
    #[arg(long, default_value_t = 0.05)]
    fdr: f64,
    /// Draws per group.
    #[arg(long, default_value_t = 5000)]
    n_draws: usize,
    /// Decode the cells of both groups as if they came from the same batches.
    #[arg(long)]
    batch_correction: bool,
    /// The batches of `--batch-correction` [default: those of the cells]
    #[arg(long, requires = "batch_correction")]
    batchid: Vec<String>,
    /// Levels of credible intervals of the fold change, separated by commas.
    #[arg(long, value_delimiter = ',')]
    cred_interval_lvls: Vec<f64>,
}

/// How a difference is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Mode {
    /// Which group expresses more.
    Vanilla,
    /// Whether the fold change is large.
    Change,
}

/// What is tested under `--mode change`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Test {
    /// The more probable direction counts.
    Three,
    /// Both directions count together.
    Two,
}

/// A number, or one that the data give.
#[derive(Clone, Copy, Debug)]
struct Fitted(Option<f64>);

fn number_or_fit(text: &str) -> Result<Fitted, String> {
    if text == "fit" {
        return Ok(Fitted(None));
    }
    match text.parse() {
        Ok(number) if f64::is_finite(number) && number >= 0.0 => Ok(Fitted(Some(number))),
        _ => Err("expected 0 or a number above it, or `fit`".to_owned()),
    }
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    mode: &'static str,
    fdr: f64,
    comparisons: Vec<Comparison>,
}

/// One group against another.
#[derive(Serialize)]
struct Comparison {
    group1: String,
    group2: String,
    n_cells1: usize,
    n_cells2: usize,
    delta: Option<f64>,
    pseudocount: Option<f64>,
    /// Genes called at the false discovery rate.
    n_called: usize,
    /// The genes at the top of the table.
    first: Vec<String>,
}

/// The cells of both groups, and what they are called.
struct Groups {
    names: [String; 2],
    cells: [Vec<usize>; 2],
}

pub(super) fn run(args: &DifferentialArgs, output: &Output) -> Result<()> {
    if !(args.fdr > 0.0 && args.fdr < 1.0) {
        let (found, expected) = (args.fdr.to_string(), "a share between 0 and 1");
        return Err(Error::Setting { what: "--fdr", found, expected });
    }
    if let Some(level) = args.cred_interval_lvls.iter().find(|level| !(**level > 0.0 && **level < 1.0)) {
        let (found, expected) = (level.to_string(), "levels between 0 and 1");
        return Err(Error::Setting { what: "--cred-interval-lvls", found, expected });
    }
    let known = args.asked.known.open(output)?;
    let results = known.count_results(args.asked.seed)?;
    let features = results.feature_names();
    let transform = args.transform(&known, &results)?;
    let groups = args.groups(&known)?;
    let mut table = CsvTable::new(head(args));
    let mut comparisons = Vec::new();
    for groups in groups {
        output.note(format_args!("comparing {} with {}", groups.names[0], groups.names[1]));
        let [first, second] = groups.cells.clone();
        let (n_draws, decision) = (args.n_draws, args.decision(&results));
        let ask = GroupAsk { first, second, transform: transform.clone(), n_draws, decision };
        let found = results.differential_expression(&ask)?;
        let raw = [&ask.first, &ask.second].map(|cells| results.raw_statistics(cells));
        comparisons.push(rows(args, &features, &groups, &found, &raw, &mut table));
    }
    table.write(&args.out)?;
    let mode = if args.mode == Mode::Vanilla { "vanilla" } else { "change" };
    let version = known.open.dir.version().id();
    output.show(&Summary { out: args.out.clone(), version, mode, fdr: args.fdr, comparisons });
    Ok(())
}

impl DifferentialArgs {
    fn decision(&self, results: &CountResults<'_>) -> Decision {
        let pseudocount = self.pseudocount.map_or_else(|| results.usual_pseudocount(), |given| given.0);
        match self.mode {
            Mode::Vanilla => Decision::Vanilla,
            Mode::Change => Decision::Change(Change {
                delta: self.delta.0,
                pseudocount,
                hypothesis: match self.test_mode {
                    Test::Three => Hypothesis::Direction,
                    Test::Two => Hypothesis::Difference,
                },
                credible_levels: self.cred_interval_lvls.clone(),
            }),
        }
    }

    fn transform(&self, known: &KnownCells, results: &CountResults<'_>) -> Result<Vec<i64>> {
        match (self.batch_correction, self.batchid.is_empty()) {
            (false, _) => Ok(vec![]),
            (true, false) => known.codes(&self.asked, results, &self.batchid),
            (true, true) => known.conditions.keys().iter().map(|key| Ok(results.asked().code(key)?)).collect(),
        }
    }

    fn groups(&self, known: &KnownCells) -> Result<Vec<Groups>> {
        let values = known.data.column(&self.groupby)?;
        let present: std::collections::BTreeSet<&str> = values.iter().flatten().map(String::as_str).collect();
        let group1 = lists::among(&self.group1, lists::name_in(present.iter().copied()));
        let asked = group1.iter().chain(&self.group2);
        if let Some(found) = asked.into_iter().find(|group| !present.contains(group.as_str())) {
            return Err(Error::UnknownGroup {
                path: self.asked.known.file.clone(),
                column: self.groupby.clone(),
                found: found.clone(),
                available: present.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
            });
        }
        let of = |group: &str| -> Vec<usize> {
            (0..values.len()).filter(|&cell| values[cell].as_deref() == Some(group)).collect()
        };
        let first: Vec<&str> = match group1.as_slice() {
            [] => present.iter().copied().filter(|group| Some(*group) != self.group2.as_deref()).collect(),
            named => named.iter().map(String::as_str).collect(),
        };
        let compared = first.into_iter().map(|group| {
            let rest = || (0..values.len()).filter(|&cell| values[cell].as_deref() != Some(group)).collect();
            let (name, second) = match &self.group2 {
                Some(other) => (other.clone(), of(other)),
                None => ("Rest".to_owned(), rest()),
            };
            Groups { names: [group.to_owned(), name], cells: [of(group), second] }
        });
        Ok(compared.collect())
    }
}

/// Upstream's names for the columns, where it has some.
fn head(args: &DifferentialArgs) -> Vec<String> {
    let decided: &[&str] = match args.mode {
        Mode::Vanilla => &["proba_m1", "proba_m2", "bayes_factor", "scale1", "scale2"],
        Mode::Change => &[
            "proba_de",
            "proba_not_de",
            "bayes_factor",
            "scale1",
            "scale2",
            "lfc_mean",
            "lfc_median",
            "lfc_std",
            "lfc_min",
            "lfc_max",
        ],
    };
    let raw = [
        "raw_mean1",
        "raw_mean2",
        "non_zeros_proportion1",
        "non_zeros_proportion2",
        "raw_normalized_mean1",
        "raw_normalized_mean2",
    ];
    let mut head: Vec<String> =
        ["gene", "group1", "group2"].iter().chain(decided).chain(&raw).map(|name| (*name).to_owned()).collect();
    if args.mode == Mode::Change {
        for level in &args.cred_interval_lvls {
            head.extend([format!("lfc_ci_{level}_min"), format!("lfc_ci_{level}_max")]);
        }
        head.push(format!("is_de_fdr_{}", args.fdr));
    }
    head
}

/// Adds the genes of one comparison to the table, sorted by what was decided on.
fn rows(
    args: &DifferentialArgs,
    panel: &[String],
    groups: &Groups,
    found: &DifferentialExpression,
    raw: &[Vec<RawStatistics>; 2],
    table: &mut CsvTable,
) -> Comparison {
    let probabilities: Vec<f64> = found.genes.iter().map(|gene| gene.probability).collect();
    let called = called_at_fdr(&probabilities, args.fdr);
    let mut order: Vec<usize> = (0..panel.len()).collect();
    let sorted_by =
        |gene: &GeneDifference| if args.mode == Mode::Vanilla { gene.bayes_factor } else { gene.probability };
    order.sort_by(|&a, &b| sorted_by(&found.genes[b]).total_cmp(&sorted_by(&found.genes[a])));
    for &gene in &order {
        let names = groups.names.iter().map(|name| crate::results::csv_field(name));
        let numbers = numbers(&found.genes[gene], [raw[0][gene], raw[1][gene]]).into_iter().map(|n| n.to_string());
        let flag = (args.mode == Mode::Change).then(|| called[gene].to_string());
        table.row(&panel[gene], names.chain(numbers).chain(flag));
    }
    Comparison {
        group1: groups.names[0].clone(),
        group2: groups.names[1].clone(),
        n_cells1: groups.cells[0].len(),
        n_cells2: groups.cells[1].len(),
        delta: found.delta,
        pseudocount: found.pseudocount,
        n_called: called.iter().filter(|called| **called).count(),
        first: order.iter().take(SHOWN).map(|&gene| panel[gene].clone()).collect(),
    }
}

fn numbers(gene: &GeneDifference, [first, second]: [RawStatistics; 2]) -> Vec<f64> {
    let mut numbers = vec![gene.probability, 1.0 - gene.probability, gene.bayes_factor, gene.scale_1, gene.scale_2];
    if let Some(change) = &gene.fold_change {
        numbers.extend([change.mean, change.median, change.std, change.min, change.max]);
    }
    numbers.extend([first.mean, second.mean, first.non_zero, second.non_zero]);
    numbers.extend([first.normalised_mean, second.normalised_mean]);
    if let Some(change) = &gene.fold_change {
        numbers.extend(change.credible.iter().flat_map(|&(low, high)| [low, high]));
    }
    numbers
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table       {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        for comparison in &self.comparisons {
            let Comparison { group1, group2, n_cells1, n_cells2, n_called, first, .. } = comparison;
            write!(f, "{group1} ({n_cells1}) and {group2} ({n_cells2}): ")?;
            if self.mode == "change" {
                write!(f, "{n_called} genes at a false discovery rate of {}, ", self.fdr)?;
            }
            writeln!(f, "first {}", first.join(", "))?;
        }
        Ok(())
    }
}

/// Genes of a comparison that the summary names.
const SHOWN: usize = 5;
