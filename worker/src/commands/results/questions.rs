//! Which questions a reference answers.

use std::{fmt, path::PathBuf};

use archipelago_models::{Blueprint, Device, results::QuestionCard, zoo};
use clap::Args;
use serde::Serialize;

use super::{What, own::questions};
use crate::{commands::OpenReference, error::Result, output::Output};

/// List the questions that a reference answers.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker results questions reference")]
pub(super) struct QuestionsArgs {
    /// The reference directory.
    reference: PathBuf,
}

/// What a reference can be asked.
#[derive(Serialize)]
struct Summary {
    model: String,
    /// What its decoder speaks of; nothing for a model that does not decode.
    decodes: Vec<String>,
    questions: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: String,
    help: String,
    /// Models that answer it, where this one does not.
    only: Vec<&'static str>,
}

pub(super) fn run(args: &QuestionsArgs, output: &Output) -> Result<()> {
    let open = OpenReference::open(&args.reference)?;
    let card = &open.reference.base.card;
    let keys: Vec<_> = open.reference.columns.keys().cloned().collect();
    let module = open.reference.module(&keys, Device::Cpu)?;
    let blocks = module.as_count_model().map(|model| model.blocks()).unwrap_or_default();
    let fields = Blueprint::of_card(card)?.model.fields();
    let decodes = blocks.iter().filter_map(|block| fields.iter().find(|field| block.is_of(field)));
    let decodes: Vec<String> = decodes.map(|field| field.name.to_string()).collect();
    let mut lines: Vec<Line> = What::generic()
        .filter(|(name, _)| !decodes.is_empty() || name == NEEDS_NO_DECODER)
        .map(|(name, help)| Line { name, help, only: vec![] })
        .collect();
    let own = zoo::model(&card.model)?.questions();
    lines.extend(own.iter().map(|question| Line::of(question, vec![])));
    for (model, question) in questions() {
        match lines.iter_mut().find(|line| line.name == question.name) {
            Some(line) if line.only.is_empty() => {}
            Some(line) => line.only.push(model.card().title),
            None => lines.push(Line::of(question, vec![model.card().title])),
        }
    }
    output.show(&Summary { model: card.model.clone(), decodes, questions: lines });
    Ok(())
}

impl Line {
    fn of(question: &QuestionCard, only: Vec<&'static str>) -> Self {
        let help = question.help.split("\n\n").next().unwrap_or_default();
        Self { name: question.name.to_owned(), help: help.to_owned(), only }
    }
}

/// The question that a model without a decoder answers too.
const NEEDS_NO_DECODER: &str = "fit";

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model       {}", self.model)?;
        let decodes = if self.decodes.is_empty() { "nothing".to_owned() } else { self.decodes.join(", ") };
        write!(f, "decodes     {decodes}")?;
        for Line { name, help, only } in &self.questions {
            match only.as_slice() {
                [] => write!(f, "\n  {name:<14} {help}")?,
                models => write!(f, "\n  {name:<14} not by this model, but by {}", models.join(", "))?,
            }
        }
        Ok(())
    }
}
