//! `models`: what the zoo holds.

use std::fmt;

use archipelago_common::{Figure, figure::Better};
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
/// The flags that say how to train (epochs, split, warm-up, early stopping, plateau, seed) are the same for all, their defaults are
/// each model's: see `archipelago-worker train --help`.
#[derive(Args, Debug)]
#[command(after_help = format!(
    "Examples:\n  archipelago-worker models\n  archipelago-worker models {}", zoo::ZOO[0].card().name
))]
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
    example: &'static str,
    fields: Vec<FieldLine>,
    /// What it reports of a fit.
    figures: &'static [Figure],
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
    let ModelCard { name, title, paper, purpose, federation, example, .. } = model.card();
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
    let figures = configured.figures();
    Card { name, title, purpose, federation, paper, example, fields, figures, options }
}

impl FieldLine {
    fn of(field: &Field) -> Self {
        let need = match field.need {
            Need::Required => "needed",
            Need::ToTrain => "needed to train",
            Need::Optional | Need::Free => "if given",
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
        for Card { name, title, purpose, federation, paper, example, fields, figures, options } in &self.cards {
            writeln!(f, "{name}  {title}: {purpose}")?;
            writeln!(f, "    federation  {federation}")?;
            writeln!(f, "    paper       {paper}")?;
            writeln!(f, "    example     archipelago-worker train {example}")?;
            if self.shows_options {
                writeln!(f, "    fields      with these options; `--field NAME=PLACE` says where they are")?;
                for FieldLine { name, kind, need, help } in fields {
                    writeln!(f, "      {name} ({kind}, {need})\n          {help}")?;
                }
                writeln!(f, "    figures     of a fit; `task publish --min-figure NAME=VALUE` asks for one")?;
                for Figure { name, title, unit, better, .. } in *figures {
                    let better = if *better == Better::Higher { "higher" } else { "lower" };
                    writeln!(f, "      {name} ({title} in {unit}, {better} is better)")?;
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// The table of one model in `docs/models.md`.
    fn table(card: &Card) -> String {
        let mut table = format!("## {}\n\nIt {}. Surgery is {}.\n\n", card.title, card.purpose, card.federation);
        table += "| Option | Default | in `train` | Values | Decides |\n|---|---|---|---|---|\n";
        for OptionLine { name, default, default_of_train, values, help } in &card.options {
            let of_train = if default == default_of_train { String::new() } else { text_of(default_of_train) };
            table += &format!("| `{name}` | {} | {of_train} | {values} | {help} |\n", text_of(default));
        }
        table
    }

    #[test]
    fn the_documentation_lists_every_option_as_the_cards_do() {
        let head = "# Models and their options\n\n\
            Made from the models' cards, as `archipelago-worker models NAME` shows them: change a card, then run\n\
            `UPDATE=1 cargo nextest run --release -p archipelago-worker the_documentation_lists`.\n\
            `train` takes each option as a flag, `--n-hidden` for `n_hidden`. Defaults are those of the package a model comes from;\n\
            where `train` starts from others, which map better, they stand beside.\n";
        let tables = zoo::ZOO.iter().map(|model| format!("\n{}", table(&card(*model))));
        let expected = tables.fold(head.to_owned(), |text, table| text + &table);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/models.md");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &expected).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == expected,
            "`docs/models.md` is old: run with UPDATE=1"
        );
    }
}
