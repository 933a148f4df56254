//! `models`: what the zoo holds.

use std::fmt;

use archipelago_models::{ModelCard, zoo};
use clap::Args;
use serde::Serialize;

use crate::{error::Result, output::Output};

/// List the models that can be trained.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  archipelago-worker models\n  archipelago-worker models scvi")]
pub struct ModelsArgs {
    /// Show this model only.
    name: Option<String>,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Cards(Vec<Card>);

#[derive(Serialize)]
struct Card {
    name: &'static str,
    title: &'static str,
    purpose: &'static str,
    federation: &'static str,
    paper: &'static str,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Models`] for a model that the zoo does not have
pub fn run(args: &ModelsArgs, output: &Output) -> Result<()> {
    let cards = match &args.name {
        Some(name) => vec![zoo::model(name)?.card().into()],
        None => zoo::ZOO.iter().map(|model| model.card().into()).collect(),
    };
    output.show(&Cards(cards));
    Ok(())
}

impl From<ModelCard> for Card {
    fn from(card: ModelCard) -> Self {
        let ModelCard { name, title, paper, purpose, federation } = card;
        Self { name, title, purpose, federation, paper }
    }
}

impl fmt::Display for Cards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Card { name, title, purpose, federation, paper } in &self.0 {
            writeln!(f, "{name}  {title}: {purpose}")?;
            writeln!(f, "    federation  {federation}")?;
            writeln!(f, "    paper       {paper}")?;
        }
        Ok(())
    }
}
