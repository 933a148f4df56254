//! The command line: what can be asked, and how the answer is written.

use std::{fmt::Write as _, path::PathBuf};

use archipelago_common::telemetry;
use clap::{
    ArgMatches, Args, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, parser::ValueSource,
};

use crate::{
    commands::{
        aggregate, approve, audit, completions, concat, decline, doctor, export, generate, import, inspect, join,
        latent, ledger, leiden, map, metrics, models, names, neighbors, obs, organize, pca, plot, predict, preprocess,
        receptors, report, results, search, serve, space, subset, tasks, train, transfer, tree, tsne, umap, unpack,
    },
    error::{Error, Result},
    existing::Existing,
    output::{Format, Output, Verbosity},
};

mod advice;

/// Single-cell reference mapping at a site: the cells stay here.
///
/// Train a reference, map new batches onto one, look at what a file holds; or `serve` a consortium: take its surgery tasks,
/// train this site's columns, send them and nothing else.
#[derive(Parser, Debug)]
#[command(
    name = "archipelago-worker",
    version,
    after_help = "Example, from counts to a mapped query:\n  \
        archipelago-worker generate --batches a,b,c --out cells.h5ad\n  \
        archipelago-worker train cells.h5ad --batch-key batch --batches a,b --epochs 50 --out reference\n  \
        archipelago-worker map reference cells.h5ad --batches c --out mapped"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Verb,
}

/// Flags of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Common options")]
struct Global {
    /// How results are written to stdout.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, env = "ARCHIPELAGO_FORMAT")]
    format: Format,
    /// Say nothing but errors and results.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say every step.
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Show every setting with where it came from, and do nothing.
    #[arg(long, global = true)]
    print_config: bool,
    /// Replace results that exist already, when the new ones are whole.
    #[arg(long, global = true)]
    overwrite: bool,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Train(Box<train::TrainArgs>),
    Map(Box<map::MapArgs>),
    Search(Box<search::SearchArgs>),
    Latent(latent::LatentArgs),
    Predict(predict::PredictArgs),
    Results(results::ResultsArgs),
    Import(import::ImportArgs),
    Aggregate(aggregate::AggregateArgs),
    Export(export::ExportArgs),
    Inspect(inspect::InspectArgs),
    Unpack(unpack::UnpackArgs),
    Preprocess(Box<preprocess::PreprocessArgs>),
    Concat(concat::ConcatArgs),
    Organize(organize::OrganizeArgs),
    Subset(subset::SubsetArgs),
    Obs(obs::ObsArgs),
    Receptors(receptors::ReceptorsArgs),
    Pca(pca::PcaArgs),
    Neighbors(neighbors::NeighborsArgs),
    Umap(umap::UmapArgs),
    Tsne(tsne::TsneArgs),
    Leiden(leiden::LeidenArgs),
    Transfer(transfer::TransferArgs),
    Tree(Box<tree::TreeArgs>),
    Space(space::SpaceArgs),
    Metrics(metrics::MetricsArgs),
    Plot(plot::PlotArgs),
    Report(report::ReportArgs),
    Models(models::ModelsArgs),
    Generate(generate::GenerateArgs),
    Join(join::JoinArgs),
    Serve(serve::ServeArgs),
    Tasks(tasks::TasksArgs),
    Approve(approve::ApproveArgs),
    Decline(decline::DeclineArgs),
    Names(names::NamesArgs),
    Doctor(doctor::DoctorArgs),
    Audit(audit::AuditArgs),
    Ledger(ledger::LedgerArgs),
    Completions(completions::CompletionsArgs),
}

/// Every command with its flags.
pub fn command() -> Command {
    Cli::command()
}

/// What a command failed with, and what the person who typed it can do about it.
#[derive(Debug)]
pub struct Failure {
    /// The error.
    pub error: Box<Error>,
    /// Advice that this command can follow.
    pub hint: Option<String>,
}

/// Runs the command that the process was started with.
///
/// # Errors  what the command failed with
pub fn run() -> Result<(), Failure> {
    let matches = Cli::command().get_matches();
    run_command(&matches).map_err(|error| {
        let root = Cli::command();
        let hint = advice::choose(error.hints(), innermost(&root, &matches).0, &root);
        Failure { error: Box::new(error), hint }
    })
}

fn run_command(matches: &ArgMatches) -> Result<()> {
    let cli = Cli::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    let verbosity = match (cli.global.quiet, cli.global.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    let level = match verbosity {
        Verbosity::Quiet => "error",
        Verbosity::Normal => cli.command.usual_level(),
        Verbosity::Verbose => "debug,quinn=info,rustls=info",
    };
    telemetry::init(level, telemetry::LogFormat::default());
    let existing = if cli.global.overwrite { Existing::Replace } else { Existing::Refuse };
    let output = Output { format: cli.global.format, verbosity, existing };
    if cli.global.print_config {
        let mut settings = settings(matches);
        if let Verb::Serve(args) = &cli.command {
            settings.0.extend(serve::file_settings(args)?);
        }
        output.show(&settings);
        return Ok(());
    }
    check_results(matches, existing)?;
    match &cli.command {
        Verb::Train(args) => train::run(args, &output),
        Verb::Map(args) => map::run(args, &output),
        Verb::Search(args) => search::run(args, &output),
        Verb::Latent(args) => latent::run(args, &output),
        Verb::Predict(args) => predict::run(args, &output),
        Verb::Results(args) => results::run(args, &output),
        Verb::Import(args) => import::run(args, &output),
        Verb::Aggregate(args) => aggregate::run(args, &output),
        Verb::Export(args) => export::run(args, &output),
        Verb::Inspect(args) => inspect::run(args, &output),
        Verb::Unpack(args) => unpack::run(args, &output),
        Verb::Preprocess(args) => preprocess::run(args, &output),
        Verb::Concat(args) => concat::run(args, &output),
        Verb::Organize(args) => organize::run(args, &output),
        Verb::Subset(args) => subset::run(args, &output),
        Verb::Obs(args) => obs::run(args, &output),
        Verb::Receptors(args) => receptors::run(args, &output),
        Verb::Pca(args) => pca::run(args, &output),
        Verb::Neighbors(args) => neighbors::run(args, &output),
        Verb::Umap(args) => umap::run(args, &output),
        Verb::Tsne(args) => tsne::run(args, &output),
        Verb::Leiden(args) => leiden::run(args, &output),
        Verb::Transfer(args) => transfer::run(args, &output),
        Verb::Tree(args) => tree::run(args, &output),
        Verb::Space(args) => space::run(args, &output),
        Verb::Metrics(args) => metrics::run(args, &output),
        Verb::Plot(args) => plot::run(args, &output),
        Verb::Report(args) => report::run(args, &output),
        Verb::Models(args) => models::run(args, &output),
        Verb::Generate(args) => generate::run(args, &output),
        Verb::Join(args) => join::run(args, &output),
        Verb::Serve(args) => serve::run(args, &output),
        Verb::Tasks(args) => tasks::run(args, &output),
        Verb::Approve(args) => approve::run(args, &output),
        Verb::Decline(args) => decline::run(args, &output),
        Verb::Names(args) => names::run(args, &output),
        Verb::Doctor(args) => doctor::run(args, &output),
        Verb::Audit(args) => audit::run(args, &output),
        Verb::Ledger(args) => ledger::run(args, &output),
        Verb::Completions(args) => completions::run(args, &mut Cli::command()),
    }
}

/// Looks at what the command is about to write: what exists already is refused here, for all commands and before any work.
fn check_results(matches: &ArgMatches, existing: Existing) -> Result<()> {
    let root = Cli::command();
    let (command, matches) = innermost(&root, matches);
    for arg in command.get_arguments().filter(|arg| RESULTS.contains(&arg.get_id().as_str())) {
        let Some(path) = matches.try_get_one::<PathBuf>(arg.get_id().as_str()).ok().flatten() else { continue };
        match arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "DIR")) {
            true => existing.check_dir(path)?,
            false => existing.check_file(path)?,
        }
    }
    Ok(())
}

/// The flags by which commands are told where their results go.
pub const RESULTS: [&str; 5] = ["out", "write_recipe", "write_gene_sets", "picture", "page"];

/// The command that was asked for, with what it was given.
fn innermost<'a>(root: &'a Command, matches: &'a ArgMatches) -> (&'a Command, &'a ArgMatches) {
    let (mut command, mut of_command) = (root, matches);
    while let Some((name, inner)) = of_command.subcommand() {
        let Some(subcommand) = command.find_subcommand(name) else { break };
        (command, of_command) = (subcommand, inner);
    }
    (command, of_command)
}

impl Verb {
    /// A server tells what happens; a command shows progress and only warns.
    fn usual_level(&self) -> &'static str {
        if matches!(self, Self::Serve(_)) { "info" } else { "warn" }
    }
}

/// One setting, resolved.
#[derive(serde::Serialize, Debug)]
pub struct Setting {
    /// The flag, or the dotted name in a file.
    pub name: String,
    /// Its value as text.
    pub value: String,
    /// `command line`, `environment`, `file` or `default`.
    pub source: &'static str,
}

/// Every setting of a command.
#[derive(serde::Serialize, Debug)]
#[serde(transparent)]
pub struct Settings(pub Vec<Setting>);

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.0.iter().map(|s| s.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Setting { name, value, source } in &self.0 {
            writeln!(text, "{name:<width$}  {value}  ({source})")?;
        }
        f.write_str(text.trim_end())
    }
}

fn settings(matches: &ArgMatches) -> Settings {
    let root = Cli::command();
    let (mut command, mut of_command, mut found) = (&root, matches, Vec::new());
    // The innermost command first: it is what was asked for.
    while let Some((name, inner)) = of_command.subcommand() {
        let Some(subcommand) = command.find_subcommand(name) else { break };
        found.push((subcommand, inner));
        (command, of_command) = (subcommand, inner);
    }
    let of_commands = found.iter().rev().flat_map(|(command, matches)| of_each(command, matches));
    Settings(of_commands.chain(of_each(&root, matches)).collect())
}

fn of_each<'a>(command: &'a Command, matches: &'a ArgMatches) -> impl Iterator<Item = Setting> + 'a {
    let shown =
        command.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version" | "print_config"));
    shown.filter_map(|arg| {
        let id = arg.get_id().as_str();
        let values = matches.try_get_raw(id).ok()??;
        let value = values.map(|v| v.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",");
        let source = match matches.value_source(id)? {
            ValueSource::CommandLine => "command line",
            ValueSource::EnvVariable => "environment",
            _ => "default",
        };
        let name = arg.get_long().map_or_else(|| id.to_uppercase(), |long| format!("--{long}"));
        Some(Setting { name, value, source })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_teaches_with_an_example() {
        let command = Cli::command();
        fn check(name: &str, command: &Command) {
            for verb in command.get_subcommands() {
                let name = format!("{name} {}", verb.get_name());
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(&name), "`{name}` has no example");
                check(&name, verb);
            }
        }
        check("archipelago-worker", &command);
        command.debug_assert();
    }

    #[test]
    fn settings_say_where_they_came_from() {
        let matches =
            Cli::command().get_matches_from(["archipelago-worker", "train", "x.h5ad", "--out", "r", "--epochs", "3"]);
        let text = settings(&matches).to_string();
        assert!(text.lines().any(|l| l.starts_with("--epochs") && l.ends_with("3  (command line)")), "{text}");
        let nested = ["archipelago-worker", "results", "library", "r", "x.h5ad", "--out", "x.csv"];
        let text_of_nested = settings(&Cli::command().get_matches_from(nested)).to_string();
        assert!(text_of_nested.lines().any(|l| l.starts_with("--out") && l.contains("x.csv")), "{text_of_nested}");
        assert!(text.lines().any(|l| l.starts_with("--lr-factor") && l.ends_with("0.6  (default)")), "{text}");
    }
}
