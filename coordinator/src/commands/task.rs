//! `task`: requests to map query data onto a reference.

use std::fmt::Write as _;

use archipelago_client::Client;
use archipelago_common::{
    Figure, Name, SiteId, TaskId, VersionId, limits,
    policy::EmbeddingRelease,
    record::{AssignmentHead, Stage, TaskHead, TaskRecord, TaskState},
    signature::Statement,
    task::{
        Asks, Bound, ColumnInit, MissingGenes, PublishMode, QualityGates, Stopping, SurgeryTask, TrainSpec, Warmup,
    },
    text::printable,
};
use archipelago_protocol::message::{Reply, Request, Which};
use clap::{Args, Subcommand, ValueEnum};

use super::{
    Connection,
    pace::{Pace, left},
    signing::{Signing, now_ms},
    unexpected, utc,
};
use crate::{error::Result, output::Output};

/// Publish, list, show, close and cancel surgery tasks.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "the documentation of the arguments is the help text")]
pub enum TaskCommand {
    Publish(Box<PublishArgs>),
    List(ListArgs),
    Show(ShowArgs),
    Close(CloseArgs),
    Cancel(CancelArgs),
}

/// Ask the sites to map their batches onto a reference, signed with the operator's key.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator task publish lung --epochs 200 --config operator.toml")]
pub struct PublishArgs {
    /// The reference.
    reference: Name,
    /// The version to map onto [default: the current one]
    #[arg(long)]
    version: Option<VersionId>,
    /// Passes over a condition's cells [default: as the model's authors, mostly by their number]
    #[arg(long)]
    epochs: Option<u32>,
    /// Cells per minibatch [default: the model's]
    #[arg(long)]
    batch_size: Option<u32>,
    /// The optimiser's step size [default: the model's]
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Epochs over which the KL term fades in; 0 starts at full weight [default: the model's]
    #[arg(long)]
    n_epochs_kl_warmup: Option<u32>,
    /// Weight of the KL term once it has faded in [default: the model's]
    #[arg(long, value_name = "WEIGHT")]
    max_kl_weight: Option<f64>,
    /// Optimiser steps of a condition; without --epochs there are as many of these as it takes [default: no bound]
    #[arg(long, value_name = "STEPS")]
    max_steps: Option<u64>,
    /// End a condition's training after so many epochs without a better validation figure; 0 is never [default: the model's]
    #[arg(long, value_name = "EPOCHS")]
    early_stopping_patience: Option<u32>,
    /// How strongly a query is drawn to where cells of the reference lie, where the reference says where that is; 0 is not at all
    /// [default: the model's]
    #[arg(long, value_name = "WEIGHT")]
    reference_pull: Option<f64>,
    /// Genes of the reference that a site's cells lack: `left-out` of the loss, or taken as `zeros`.
    #[arg(long, value_name = "HOW", default_value = "left-out")]
    missing_genes: MissingGenes,
    /// Share of the cells that is trained on [default: the model's]
    #[arg(long)]
    train_size: Option<f64>,
    /// How new columns start: `mean` of the reference's, or `random`.
    #[arg(long, default_value = "mean")]
    init: ColumnInit,
    /// Seed; the same seed gives the same columns.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What to ask for: `columns` of new conditions, `parts` (statistics that models contribute beside columns), `both`, or
    /// `annotations` (how many cells the sites' tree puts where); each site's policy decides what it gives.
    #[arg(long, value_name = "WHAT", default_value = "both")]
    ask: Asks,
    /// Embeddings to ask for; each site's policy decides what it gives.
    #[arg(long, value_enum, default_value_t = Embeddings::None)]
    embeddings: Embeddings,
    /// When submissions become versions: `each`, or all `at-close`.
    #[arg(long, default_value = "each")]
    publish: PublishMode,
    /// Sites that may take the task, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    allow: Vec<SiteId>,
    /// Accept nothing after this many seconds from now.
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// How long an assignment lives without a sign of progress, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = archipelago_common::limits::LEASE_MS / 1000)]
    lease: u64,
    /// Refuse conditions with fewer cells.
    #[arg(long, default_value_t = 1)]
    min_cells: u64,
    /// Refuse conditions whose columns have a larger Euclidean norm.
    #[arg(long, default_value_t = archipelago_common::limits::COLUMN_NORM)]
    max_norm: f64,
    /// Refuse conditions whose data has a smaller share of the panel's genes, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    min_gene_coverage: f64,
    /// Refuse conditions with a lower mean ELBO, in nats per cell.
    #[arg(long, value_name = "NATS", allow_negative_numbers = true)]
    min_elbo: Option<f64>,
    /// Refuse conditions with a larger mean reconstruction loss, in nats per cell.
    #[arg(long, value_name = "NATS", allow_negative_numbers = true)]
    max_reconstruction: Option<f64>,
    /// Refuse conditions with a lower figure; figures are what `archipelago-worker models` lists of a model.
    #[arg(long, value_name = "FIGURE=VALUE", value_parser = figure_bound)]
    min_figure: Vec<(String, f64)>,
    /// Refuse conditions with a higher figure.
    #[arg(long, value_name = "FIGURE=VALUE", value_parser = figure_bound)]
    max_figure: Vec<(String, f64)>,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    connection: Connection,
}

/// Embeddings that a task asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Embeddings {
    /// None.
    None,
    /// Means of labels with at least 10 cells.
    LabelMeans,
    /// One row per cell.
    Full,
}

/// List all tasks.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator task list --config operator.toml")]
pub struct ListArgs {
    #[command(flatten)]
    connection: Connection,
}

/// Show a task and what every site made of it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator task show 1 --config operator.toml")]
pub struct ShowArgs {
    /// The task.
    task: TaskId,
    #[command(flatten)]
    connection: Connection,
}

/// Close a task: nothing more is accepted, and what was is merged.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator task close 1 --config operator.toml")]
pub struct CloseArgs {
    /// The task.
    task: TaskId,
    #[command(flatten)]
    connection: Connection,
}

/// Cancel a task: nothing more is accepted; versions made so far stay.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator task cancel 1 --config operator.toml")]
pub struct CancelArgs {
    /// The task.
    task: TaskId,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(command: &TaskCommand, output: &Output) -> Result<()> {
    let record = match command {
        TaskCommand::Publish(args) => args.connection.talk(async |client| publish(args, client).await)?,
        TaskCommand::List(args) => {
            let tasks = args.connection.talk(async |client| Ok(client.tasks(Which::All).await?))?;
            output.show(&tasks, table(&tasks));
            return Ok(());
        }
        TaskCommand::Show(args) => {
            let (record, pace) =
                args.connection.talk(async |client| Ok((client.task(args.task).await?, Pace::ask(client).await)))?;
            output.show(&record, text(&record, &pace));
            return Ok(());
        }
        TaskCommand::Close(args) => end(&args.connection, Request::CloseTask { task: args.task })?,
        TaskCommand::Cancel(args) => end(&args.connection, Request::CancelTask { task: args.task })?,
    };
    output.show(&record, text(&record, &Pace::default()));
    Ok(())
}

fn end(connection: &Connection, request: Request) -> Result<TaskRecord> {
    connection.talk(async |client| changed(client, request).await)
}

/// Has a task changed, and looks at it then.
async fn changed(client: &Client, request: Request) -> Result<TaskRecord> {
    match client.request(request).await? {
        Reply::Task(record) => Ok(client.task(record.id).await?),
        reply => Err(unexpected(reply)),
    }
}

async fn publish(args: &PublishArgs, client: &Client) -> Result<TaskRecord> {
    let version = match args.version {
        Some(version) => version,
        None => client.reference(&args.reference).await?.current,
    };
    let (task, gates) = (Box::new(args.task(version)?), args.gates());
    let request = match args.signing.sign(&args.connection, |now_ms| Ok(Statement::of_task(&task, now_ms)?))? {
        Some(signature) => Request::PublishSignedTask { task, gates, signature },
        None if gates.is_open() => Request::PublishTask(task),
        None => Request::PublishGatedTask { task, gates },
    };
    changed(client, request).await
}

impl PublishArgs {
    /// What the figures of a reference are the cluster knows, and checks.
    fn gates(&self) -> QualityGates {
        let least = self.min_elbo.map(|least| (Figure::ELBO.name.into_owned(), least));
        let most = self.max_reconstruction.map(|most| (Figure::RECONSTRUCTION.name.into_owned(), most));
        let least = self.min_figure.iter().cloned().chain(least).map(|(name, least)| (name, Bound::AtLeast(least)));
        let most = self.max_figure.iter().cloned().chain(most).map(|(name, most)| (name, Bound::AtMost(most)));
        QualityGates { min_gene_coverage: self.min_gene_coverage, bounds: least.chain(most).collect() }
    }

    fn task(&self, version: VersionId) -> Result<SurgeryTask> {
        let stopping = self.early_stopping_patience.map(Stopping::with_patience);
        let train = TrainSpec {
            epochs: self.epochs,
            minibatch: self.batch_size,
            learning_rate: self.learning_rate,
            kl_warmup: self.n_epochs_kl_warmup.map(Warmup::over_epochs),
            max_kl_weight: self.max_kl_weight,
            max_steps: self.max_steps,
            missing_genes: self.missing_genes,
            reference_pull: self.reference_pull,
            train_size: self.train_size,
            early_stopping: stopping,
            init: self.init,
            seed: self.seed,
            ..TrainSpec::default()
        };
        train.check()?;
        Ok(SurgeryTask {
            asks: self.ask,
            embeddings: match self.embeddings {
                Embeddings::None => EmbeddingRelease::None,
                Embeddings::LabelMeans => EmbeddingRelease::LabelMeans { min_cells: LABEL_MEAN_CELLS, min_donors: 0 },
                Embeddings::Full => EmbeddingRelease::Full,
            },
            publish: self.publish,
            allow: (!self.allow.is_empty()).then(|| self.allow.iter().cloned().collect()),
            deadline_ms: self.deadline.map(|seconds| now_ms().saturating_add(seconds.saturating_mul(1000))),
            lease_ms: self.lease.saturating_mul(1000),
            min_cells: self.min_cells,
            max_column_norm: self.max_norm,
            ..SurgeryTask::new(self.reference.clone(), version, train)
        })
    }
}

fn figure_bound(text: &str) -> Result<(String, f64), String> {
    let parsed = text.split_once('=').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    parsed.ok_or_else(|| "expected a figure and a number, such as `elbo=-600`".to_owned())
}

fn table(tasks: &[TaskHead]) -> String {
    let mut text = String::new();
    for task in tasks {
        let _ = writeln!(
            text,
            "{}  {} on `{}`, {} of {} sites accepted, published {}",
            task.id,
            state(&task.state),
            task.task.reference,
            task.n_accepted,
            task.n_assigned,
            utc(task.published_ms)
        );
    }
    if text.is_empty() { "no tasks".to_owned() } else { text }
}

fn text(record: &TaskRecord, pace: &Pace) -> String {
    let TaskRecord { id, task, publisher, published_ms, state: at, assignments } = record;
    let mut text = format!(
        "task        {id}, published by {publisher} at {}\nstate       {}\nreference   {}, version {}\npublish     {}\n\
         training    {}\nasks for    {}\nopen to     {}\n",
        utc(*published_ms),
        state(at),
        task.reference,
        task.version.0.short(),
        task.publish,
        training(&task.train),
        asked(task),
        audience(task)
    );
    if !assignments.is_empty() {
        text.push_str("sites\n");
    }
    for (site, assignment) in assignments {
        let work = assignment.into();
        let remaining_s = pace.remaining_s(site, *id, &work);
        let _ = writeln!(text, "  {site}  {}", assignment_text(&work, remaining_s));
    }
    text
}

fn training(train: &TrainSpec) -> String {
    let or_usual = |what: &str, value: Option<u32>| match value {
        Some(value) => format!("{what} {value}"),
        None => format!("{what} as the model has it"),
    };
    let (epochs, minibatch) = (or_usual("epochs", train.epochs), or_usual("minibatch", train.minibatch));
    let steps = train.max_steps.map_or_else(String::new, |most| format!(", at most {most} steps"));
    let init = match train.init {
        ColumnInit::Mean => "the mean column",
        ColumnInit::Random => "random columns",
    };
    format!("{epochs}{steps}, {minibatch}, from {init}, seed {}", train.seed)
}

pub(crate) fn asked(task: &SurgeryTask) -> String {
    let contributions = match task.asks {
        Asks::Both => "columns and parts",
        Asks::Columns => "columns",
        Asks::Parts | Asks::Annotations => return task.asks.to_string(),
    };
    match task.embeddings {
        EmbeddingRelease::None => contributions.to_owned(),
        EmbeddingRelease::LabelMeans { min_cells, .. } => {
            format!("{contributions}, and mean embeddings of labels with at least {min_cells} cells")
        }
        EmbeddingRelease::Full => format!("{contributions}, and embeddings"),
    }
}

fn audience(task: &SurgeryTask) -> String {
    let sites = match &task.allow {
        None => "every site".to_owned(),
        Some(sites) => sites.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    task.deadline_ms.map_or(sites.clone(), |deadline_ms| format!("{sites} until {}", utc(deadline_ms)))
}

fn state(state: &TaskState) -> &'static str {
    match state {
        TaskState::Open => "open",
        TaskState::Closed => "closed",
        TaskState::Cancelled => "cancelled",
        TaskState::Expired => "expired",
    }
}

/// How a site stands with a task, in words.
pub(super) fn assignment_text(work: &AssignmentHead, remaining_s: Option<u64>) -> String {
    let AssignmentHead { epoch, stage, progress, .. } = work;
    match stage {
        Stage::Assigned => match progress {
            None => format!("at work (epoch {epoch})"),
            Some(p) => {
                let loss = p.loss.map_or(String::new(), |loss| format!(", loss {loss:.2}"));
                let left = remaining_s.map_or(String::new(), |seconds| format!(", about {} left", left(seconds)));
                format!("at work: {} of {} epochs{loss}{left} (epoch {epoch})", p.epochs_done, p.epochs_planned)
            }
        },
        Stage::Lapsed => format!("no sign of life (epoch {epoch})"),
        Stage::GivenUp { reason } => format!("gave up: {}", printable(reason, limits::REASON_BYTES)),
        Stage::Accepted { version, n_conditions, .. } => {
            let version =
                version.map_or("not merged yet".to_owned(), |version| format!("version {}", version.0.short()));
            format!("accepted: {n_conditions} conditions, {version}")
        }
    }
}

/// Labels with fewer cells are left out of the means that a task asks for.
const LABEL_MEAN_CELLS: u64 = 10;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        publish: PublishArgs,
    }

    fn train(flags: &[&str]) -> TrainSpec {
        let line = Line::parse_from([&["publish", "atlas"][..], flags].concat());
        line.publish.task(VersionId(archipelago_common::Digest::of(b"version"))).unwrap().train
    }

    #[test]
    fn a_task_asks_for_what_was_said_and_nothing_else() {
        assert_eq!(train(&[]), TrainSpec::default());
        let said =
            ["--epochs", "50", "--batch-size", "64", "--n-epochs-kl-warmup", "0", "--init", "random", "--seed", "3"];
        let expected = TrainSpec {
            epochs: Some(50),
            minibatch: Some(64),
            kl_warmup: Some(Warmup::Off),
            init: ColumnInit::Random,
            seed: 3,
            ..TrainSpec::default()
        };
        assert_eq!(train(&said), expected);
        let by_steps =
            ["--max-steps", "200", "--max-kl-weight", "0.5", "--early-stopping-patience", "0", "--reference-pull", "5"];
        let expected = TrainSpec {
            max_steps: Some(200),
            max_kl_weight: Some(0.5),
            early_stopping: Some(Stopping::Never),
            reference_pull: Some(5.0),
            ..TrainSpec::default()
        };
        assert_eq!(train(&by_steps), expected);
    }

    #[test]
    fn gates_can_be_put_on_any_figure() {
        let gates = |flags: &[&str]| Line::parse_from([&["publish", "atlas"][..], flags].concat()).publish.gates();
        assert!(gates(&[]).is_open());
        let known = gates(&["--min-elbo", "-600", "--max-reconstruction", "500"]);
        assert_eq!(gates(&["--min-figure", "elbo=-600", "--max-figure", "reconstruction=500"]), known);
        assert_eq!(gates(&["--min-figure", "accuracy=0.5"]).bounds["accuracy"], Bound::AtLeast(0.5));
        assert!(Line::try_parse_from(["publish", "atlas", "--min-figure", "accuracy"]).is_err());
    }
}
