//! `models`: what the zoo holds.

use std::fmt;

use archipelago_models::{
    Config, ModelCard, OptionCard,
    data::{Field, FieldKind, Need},
    model::Model,
    options::text_of,
    zoo,
};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::{error::Result, output::Output};

/// List the models that can be trained; for one, the fields that it takes and its options.
///
/// How a model is trained (epochs, split, warm-up, early stopping, plateau, seed) is the same for all: see
/// `archipelago-worker train --help`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  archipelago-worker models\n  archipelago-worker models scvi")]
pub struct ModelsArgs {
    /// Show this model only.
    name: Option<String>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Cards {
    cards: Vec<Card>,
    #[serde(skip)]
    shows_options: bool,
}

#[derive(Serialize)]
struct Card {
    name: &'static str,
    title: &'static str,
    purpose: &'static str,
    federation: &'static str,
    paper: &'static str,
    fields: Vec<FieldLine>,
    options: Vec<OptionLine>,
}

/// What the model takes of a cell.
#[derive(Serialize)]
struct FieldLine {
    name: String,
    kind: &'static str,
    need: &'static str,
    help: String,
}

#[derive(Serialize)]
struct OptionLine {
    name: &'static str,
    /// Upstream's.
    default: Value,
    /// What `train` takes where nothing is given.
    default_of_train: Value,
    values: String,
    help: String,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Models`] for a model that the zoo does not have
pub fn run(args: &ModelsArgs, output: &Output) -> Result<()> {
    let cards = match &args.name {
        Some(name) => vec![card(zoo::model(name)?)],
        None => zoo::ZOO.iter().map(|model| card(*model)).collect(),
    };
    output.show(&Cards { cards, shows_options: args.name.is_some() });
    Ok(())
}

fn card(model: &dyn Model) -> Card {
    let ModelCard { name, title, paper, purpose, federation, .. } = model.card();
    let usual = model.options_for_surgery();
    let line = |OptionCard { name, help, default, .. }: OptionCard, values: String| OptionLine {
        name,
        default_of_train: usual.get(name).unwrap_or(&default).clone(),
        default,
        values,
        help,
    };
    let options = model.options().into_iter().map(|option| (option.values(), option));
    let options = options.map(|(values, option)| line(option, values)).collect();
    let configured = model.configure(&Config::new()).expect("the defaults are options");
    let fields = configured.fields().iter().map(FieldLine::of).collect();
    Card { name, title, purpose, federation, paper, fields, options }
}

impl FieldLine {
    fn of(field: &Field) -> Self {
        let need = match field.need {
            Need::Required => "needed",
            Need::ToTrain => "needed to train",
            Need::Optional => "if given",
        };
        let help = match &field.kind {
            FieldKind::Matrix(values) => format!("{}: {}", field.help, values.expected()),
            _ => field.help.to_owned(),
        };
        Self { name: field.name.to_string(), kind: field.kind.name(), need, help }
    }
}

impl fmt::Display for Cards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Card { name, title, purpose, federation, paper, fields, options } in &self.cards {
            writeln!(f, "{name}  {title}: {purpose}")?;
            writeln!(f, "    federation  {federation}")?;
            writeln!(f, "    paper       {paper}")?;
            if self.shows_options {
                writeln!(f, "    fields      with these options; `--field NAME=PLACE` says where they are")?;
                for FieldLine { name, kind, need, help } in fields {
                    writeln!(f, "      {name} ({kind}, {need})\n          {help}")?;
                }
                writeln!(f, "    options     with upstream's defaults, and those of `train` where they are others")?;
                options.iter().try_for_each(|option| option.fmt(f))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for OptionLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, default, default_of_train, values, help } = self;
        write!(f, "      {name} = {}", text_of(default))?;
        if default_of_train != default {
            write!(f, "; `train` {}", text_of(default_of_train))?;
        }
        writeln!(f, "\n          {help} ({values})")
    }
}
