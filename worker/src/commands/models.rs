//! `models`: what the zoo holds.

use std::fmt;

use archipelago_models::{Config, ModelCard, model::Model, zoo};
use clap::Args;
use serde::Serialize;

use crate::{error::Result, output::Output};

/// List the models that can be trained; for one, its options.
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
    options: Vec<OptionLine>,
}

#[derive(Serialize)]
struct OptionLine {
    name: &'static str,
    default: serde_json::Value,
    help: &'static str,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Models`] for a model that the zoo does not have
pub fn run(args: &ModelsArgs, output: &Output) -> Result<()> {
    let cards = match &args.name {
        Some(name) => vec![card(zoo::model(name)?)?],
        None => zoo::ZOO.iter().map(|model| card(*model)).collect::<Result<_>>()?,
    };
    output.show(&Cards { cards, shows_options: args.name.is_some() });
    Ok(())
}

fn card(model: &dyn Model) -> Result<Card> {
    let ModelCard { name, title, paper, purpose, federation } = model.card();
    let defaults = model.resolve(&Config::new())?;
    let line = |option: archipelago_models::OptionCard| OptionLine {
        name: option.name,
        default: defaults.get(option.name).cloned().unwrap_or_default(),
        help: option.help,
    };
    Ok(Card { name, title, purpose, federation, paper, options: model.options().into_iter().map(line).collect() })
}

impl fmt::Display for Cards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Card { name, title, purpose, federation, paper, options } in &self.cards {
            writeln!(f, "{name}  {title}: {purpose}")?;
            writeln!(f, "    federation  {federation}")?;
            writeln!(f, "    paper       {paper}")?;
            if self.shows_options {
                writeln!(
                    f,
                    "    options     upstream's defaults; `train` starts the scVI family from those for surgery"
                )?;
                for OptionLine { name, default, help } in options {
                    writeln!(f, "      {name} = {default}\n          {help}")?;
                }
            }
        }
        Ok(())
    }
}
