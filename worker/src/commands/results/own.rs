//! Questions of one model: a command for each, made from what the model says about it.

use std::path::PathBuf;

use archipelago_anndata::{Csr, DataFrame};
use archipelago_common::fs;
use archipelago_models::{
    Device, Reference,
    model::Model,
    results::{Answer, Argument, ArgumentKind, Asked as ModelAsked, Given, QuestionCard, Value},
    zoo::{self, ZOO},
};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::{Asked, Written, frame};
use crate::{
    commands::{
        DeviceArg, OpenReference,
        known::{ConditionArgs, KnownCells},
    },
    data::SiteData,
    error::{Error, Result},
    existing, lists,
    output::Output,
    results,
    table::NamedMatrix,
};

/// A question of a model, with what it was told.
#[derive(Debug)]
pub(super) struct OwnQuestion {
    question: &'static str,
    subject: Subject,
    /// What was given for each of its arguments.
    told: Vec<(&'static str, Told)>,
}

#[derive(Debug)]
enum Subject {
    Cells(Box<CellSubject>),
    Reference(ReferenceSubject),
}

/// What a question about cells is asked with.
#[derive(Args, Debug)]
struct CellSubject {
    #[command(flatten)]
    asked: Asked,
    /// The file to write: h5ad (as `X`, or as `--obsm-key` says) or csv.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write the cells of the file with all that it holds, and the answer as this table in obsm.
    #[arg(long, value_name = "OBSM")]
    obsm_key: Option<String>,
}

/// What a question about a reference is asked with.
#[derive(Args, Debug)]
struct ReferenceSubject {
    /// The reference directory.
    reference: PathBuf,
    /// The file to write, h5ad or csv; a directory for an answer of several files.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    #[command(flatten)]
    among: ConditionArgs,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    device: DeviceArg,
    /// Seed of every draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// A value as it was given; batches and columns are not looked up yet, files not read.
#[derive(Debug)]
enum Told {
    Value(Value),
    Batches(Vec<String>),
    Column(String),
    Columns(Vec<String>),
    File(Option<PathBuf>),
}

/// Every model's own questions.
pub(super) fn questions() -> impl Iterator<Item = (&'static dyn Model, &'static QuestionCard)> {
    ZOO.iter().flat_map(|model| model.questions().iter().map(move |question| (*model, question)))
}

/// One question of each name: models may share one.
fn distinct() -> Vec<&'static QuestionCard> {
    let mut distinct: Vec<&'static QuestionCard> = Vec::new();
    for (_, question) in questions() {
        if distinct.iter().all(|known| known.name != question.name) {
            distinct.push(question);
        }
    }
    distinct
}

impl OwnQuestion {
    /// Whether there is such a question.
    pub(super) fn is_one(name: &str) -> bool {
        questions().any(|(_, question)| question.name == name)
    }

    /// Adds a command for each question.
    pub(super) fn augment(command: Command) -> Command {
        distinct().into_iter().fold(command, |command, question| command.subcommand(command_of(question)))
    }

    /// What was asked.
    pub(super) fn from_matches(name: &str, matches: &ArgMatches) -> Result<Self, clap::Error> {
        let found = distinct().into_iter().find(|question| question.name == name);
        let question = found.ok_or_else(|| clap::Error::new(clap::error::ErrorKind::InvalidSubcommand))?;
        let subject = match question.is_of_cells {
            true => Subject::Cells(Box::new(CellSubject::from_arg_matches(matches)?)),
            false => Subject::Reference(ReferenceSubject::from_arg_matches(matches)?),
        };
        let told = question.arguments.iter().map(|argument| (argument.name, told(argument, matches)));
        Ok(Self { question: question.name, subject, told: told.collect() })
    }

    pub(super) fn run(&self, output: &Output) -> Result<()> {
        match &self.subject {
            Subject::Cells(subject) => self.of_cells(subject, output),
            Subject::Reference(subject) => self.of_reference(subject, output),
        }
    }

    fn of_cells(&self, subject: &CellSubject, output: &Output) -> Result<()> {
        let known = subject.asked.known.open_for(output, |card| self.check_model(&card.model))?;
        if subject.obsm_key.is_some() {
            known.data.check_writable()?;
        }
        let asked = known.asked(subject.asked.seed)?;
        let given = self.given(&asked, (&subject.asked.known.among, known.reference()), Some(&known))?;
        let (n_rows, n_columns) = match asked.answer(self.question, &given)? {
            Answer::Cells { columns, values } => {
                let (rows, flat) = (known.data.obs(), flat(&values));
                let table = NamedMatrix { rows_are: "cell", rows: &rows, columns: &columns, values: &flat };
                match &subject.obsm_key {
                    None => table.write(&subject.out)?,
                    Some(key) => table.write_beside(&known.data, key, &subject.out)?,
                }
                values.dim()
            }
            Answer::Frame(frame) if frame.rows.is_none() => frame::of_cells(&frame, &known, &subject.out)?,
            other => write(other, &subject.out)?,
        };
        let (out, version) = (subject.out.clone(), known.open.dir.version().id());
        output.show(&Written { out, version, what: self.question, n_rows, n_columns });
        Ok(())
    }

    fn of_reference(&self, subject: &ReferenceSubject, output: &Output) -> Result<()> {
        let open = OpenReference::open(&subject.reference)?;
        self.check_model(&open.reference.base.card.model)?;
        let nothing = Csr::zeros(0, open.reference.base.card.genes.len());
        let device: Device = subject.device.into();
        let asked = ModelAsked::without_cells(&open.reference, &nothing, subject.seed, device)?;
        let given = self.given(&asked, (&subject.among, &open.reference), None)?;
        let (n_rows, n_columns) = write(asked.answer(self.question, &given)?, &subject.out)?;
        let (out, version) = (subject.out.clone(), open.dir.version().id());
        output.show(&Written { out, version, what: self.question, n_rows, n_columns });
        Ok(())
    }

    /// Refuses a model that does not answer, before its cells are looked at.
    fn check_model(&self, model: &str) -> Result<()> {
        match zoo::model(model)?.questions().iter().any(|question| question.name == self.question) {
            true => Ok(()),
            false => Err(archipelago_models::Error::NotAnswered { question: self.question.to_owned() }.into()),
        }
    }

    /// What was told, with batches looked up among the conditions of the reference, columns among those of the cells.
    fn given(
        &self,
        asked: &ModelAsked<'_>,
        (among, reference): (&ConditionArgs, &Reference),
        cells: Option<&KnownCells>,
    ) -> Result<Given> {
        let key_of = |batch: &str| among.key_of(batch, reference);
        let mut given = Given::default();
        for (name, told) in &self.told {
            let value = match told {
                Told::Value(value) => value.clone(),
                Told::Column(name) => {
                    let cells = cells.expect("only questions about cells have columns");
                    Value::Column(complete(&cells.data, name)?)
                }
                Told::Batches(texts) => {
                    let batches = lists::among(texts, |batch| key_of(batch).is_ok().then(|| batch.to_owned()));
                    let codes = batches.iter().map(|batch| Ok(asked.code(&key_of(batch)?)?)).collect::<Result<_>>()?;
                    Value::Conditions(codes)
                }
                Told::Columns(texts) => {
                    Value::Columns(columns(cells.expect("only questions about cells have columns"), texts)?)
                }
                Told::File(path) => {
                    Value::File(path.as_deref().map(|path| fs::read_bounded(path, FILE_BYTES)).transpose()?)
                }
            };
            given = given.with(name, value);
        }
        Ok(given)
    }
}

fn command_of(question: &'static QuestionCard) -> Command {
    let (first, _) = question.help.split_once("\n\n").unwrap_or((question.help, ""));
    let of: Vec<&str> =
        questions().filter(|(_, other)| other.name == question.name).map(|(model, _)| model.card().title).collect();
    let examples: String =
        question.examples.iter().map(|line| format!("\n  archipelago-worker results {line}")).collect();
    let command = Command::new(question.name);
    let command = match question.is_of_cells {
        true => CellSubject::augment_args(command),
        false => ReferenceSubject::augment_args(command),
    };
    // After the arguments, which bring a description of their own.
    let command = command
        .about(format!("{} ({})", first.trim_end_matches('.'), of.join(", ")))
        .long_about(question.help)
        .after_help(format!("Examples:{examples}"));
    question.arguments.iter().fold(command, |command, argument| command.arg(arg_of(argument)))
}

fn arg_of(argument: &Argument) -> Arg {
    let arg = Arg::new(argument.name).long(argument.name.replace('_', "-")).help(argument.help);
    match &argument.kind {
        ArgumentKind::Flag => arg.action(ArgAction::SetTrue),
        ArgumentKind::Count { default } => arg.value_parser(value_parser!(usize)).default_value(default.to_string()),
        ArgumentKind::Number { default } => arg.value_parser(value_parser!(f64)).default_value(default.to_string()),
        ArgumentKind::Choice(words) => {
            let values = words.iter().map(|(word, help)| clap::builder::PossibleValue::new(*word).help(*help));
            let values: Vec<_> = values.collect();
            arg.value_parser(clap::builder::PossibleValuesParser::new(values)).default_value(words[0].0)
        }
        ArgumentKind::Names | ArgumentKind::Conditions => arg.action(ArgAction::Append),
        ArgumentKind::Column => arg.value_name("OBS").required(true),
        ArgumentKind::Columns => arg.action(ArgAction::Append).value_name("COLUMN"),
        ArgumentKind::File => arg.value_name("FILE").value_parser(value_parser!(PathBuf)),
    }
}

fn told(argument: &Argument, matches: &ArgMatches) -> Told {
    let texts = || matches.get_many::<String>(argument.name).into_iter().flatten().cloned().collect::<Vec<_>>();
    let given = "an argument with a default has a value";
    Told::Value(match &argument.kind {
        ArgumentKind::Flag => Value::Flag(matches.get_flag(argument.name)),
        ArgumentKind::Count { .. } => Value::Count(*matches.get_one(argument.name).expect(given)),
        ArgumentKind::Number { .. } => Value::Number(*matches.get_one(argument.name).expect(given)),
        ArgumentKind::Choice(_) => Value::Choice(matches.get_one::<String>(argument.name).expect(given).clone()),
        ArgumentKind::Names => Value::Names(lists::split(&texts())),
        ArgumentKind::Conditions => return Told::Batches(texts()),
        ArgumentKind::Column => return Told::Column(matches.get_one::<String>(argument.name).expect(given).clone()),
        ArgumentKind::Columns => return Told::Columns(texts()),
        ArgumentKind::File => return Told::File(matches.get_one::<PathBuf>(argument.name).cloned()),
    })
}

/// A column of obs that has a text for every cell.
fn complete(data: &SiteData, column: &str) -> Result<Vec<String>> {
    let texts = data.column(column)?;
    let (n_missing, n_cells) = (texts.iter().filter(|text| text.is_none()).count(), texts.len());
    match n_missing {
        0 => Ok(texts.into_iter().flatten().collect()),
        _ => {
            let path = data.spec().path.clone();
            Err(Error::MissingValues { path, column: column.to_owned(), n_missing, n_cells })
        }
    }
}

/// Columns of the cells by their names; a value that is missing is empty.
fn columns(cells: &KnownCells, texts: &[String]) -> Result<Vec<(String, Vec<String>)>> {
    let obs = cells.data.obs();
    let text_of = |name: String| {
        let failed = |source| Error::Cells { path: cells.data.spec().path.clone(), source };
        let column = obs.column(&name).map_err(failed)?;
        Ok((name, column.to_strings().into_iter().map(Option::unwrap_or_default).collect()))
    };
    let names = lists::among(texts, |name| obs.column(name).is_ok().then(|| name.to_owned()));
    names.into_iter().map(text_of).collect()
}

/// Writes an answer that is not about the cells of a file; how large it is.
fn write(answer: Answer, out: &std::path::Path) -> Result<(usize, usize)> {
    match answer {
        Answer::Table { rows_are, rows, columns, values } => {
            let (rows, values_) = (DataFrame::new(rows), flat(&values));
            NamedMatrix { rows_are, rows: &rows, columns: &columns, values: &values_ }.write(out)?;
            Ok(values.dim())
        }
        Answer::Cells { columns, values } => {
            let rows = DataFrame::new((0..values.nrows()).map(|cell| cell.to_string()));
            NamedMatrix { rows_are: "cell", rows: &rows, columns: &columns, values: &flat(&values) }.write(out)?;
            Ok(values.dim())
        }
        Answer::Files(files) => {
            fs::create_dir(out)?;
            for (name, bytes) in &files {
                fs::write_atomic(&out.join(name), bytes)?;
            }
            // Last: a folder with it is a result, which another command does not replace unasked.
            results::write_json(&out.join(existing::SUMMARY), &files.keys().collect::<Vec<_>>())?;
            Ok((files.len(), 1))
        }
        Answer::File(bytes) => {
            fs::write_atomic(out, &bytes)?;
            Ok((1, 1))
        }
        Answer::Frame(frame) => frame::of_rows(&frame, out),
    }
}

pub(super) fn flat(values: &ndarray::Array2<f32>) -> Vec<f32> {
    values.iter().copied().collect()
}

/// Most bytes of a file that a question takes.
const FILE_BYTES: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_described_by_its_own_card() {
        for (_, question) in questions() {
            let about = command_of(question).get_about().map(ToString::to_string).unwrap_or_default();
            let first = question.help.lines().next().unwrap_or_default().trim_end_matches('.');
            assert!(about.starts_with(first), "{}: {about}", question.name);
        }
    }
}
