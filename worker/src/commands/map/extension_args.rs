//! Flags for what a query adds to the reference's model: the options that models let a query have, and gene sets of new terms.

use std::path::PathBuf;

use archipelago_common::BaseCard;
use archipelago_models::{
    Extension, OptionCard,
    options::Kind,
    zoo::{self, ZOO},
};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, builder::PossibleValuesParser};

use super::SurgeryArg;
use crate::{additions::Additions, error::Result, lists};

/// What is added: options by name, as they were written, and files of gene sets.
#[derive(Debug, Default)]
pub(super) struct ExtensionArgs {
    given: Vec<(&'static str, String)>,
    new_gene_sets: Vec<PathBuf>,
}

impl ExtensionArgs {
    /// What is added to the model of a card, by this surgery.
    pub(super) fn of(&self, card: &BaseCard, surgery: SurgeryArg) -> Result<Extension> {
        let model = zoo::model(&card.model)?;
        let cards = model.options();
        let read = |(name, text): &(&'static str, String)| {
            let option = cards.iter().find(|option| option.name == *name);
            ((*name).to_owned(), option.map_or_else(|| text.clone().into(), |option| option.read(text)))
        };
        let additions =
            Additions { gene_sets: self.new_gene_sets.clone(), options: self.given.iter().map(read).collect() };
        // What exact surgery would refuse, upstream's may take: it makes a new reference.
        let is_for_upstream = surgery == SurgeryArg::Upstream && model.options_of_query().is_empty();
        if is_for_upstream { additions.read(card) } else { additions.to(card) }
    }
}

impl Args for ExtensionArgs {
    fn augment_args(command: Command) -> Command {
        let sets = Arg::new(NEW_GENE_SETS)
            .long(NEW_GENE_SETS)
            .value_name("FILES")
            .action(clap::ArgAction::Append)
            .help_heading(HEADING)
            .help("GMT files with the gene sets of new terms, separated by commas");
        command.args(flags().map(|(titles, option)| arg_of(&titles, &option))).arg(sets)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ExtensionArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let given = flags().filter_map(|(_, option)| Some((option.name, text(option.name)?))).collect();
        let files: Vec<String> = matches.get_many::<String>(NEW_GENE_SETS).into_iter().flatten().cloned().collect();
        Ok(Self { given, new_gene_sets: lists::split(&files).into_iter().map(PathBuf::from).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// An option for each name that some model lets a query have, with the titles of those models.
fn flags() -> impl Iterator<Item = (Vec<&'static str>, OptionCard)> {
    let mut flags: Vec<(Vec<&'static str>, OptionCard)> = Vec::new();
    for model in ZOO {
        let of_query = model.options_of_upstream_query();
        for option in model.options().into_iter().filter(|option| of_query.contains(&option.name)) {
            match flags.iter_mut().find(|(_, known)| known.name == option.name) {
                Some((titles, _)) => titles.push(model.card().title),
                None => flags.push((vec![model.card().title], option)),
            }
        }
    }
    flags.into_iter()
}

fn arg_of(titles: &[&str], option: &OptionCard) -> Arg {
    let help = format!("{} ({}) [default: as in the reference; nothing new]", option.help, titles.join(", "));
    let arg = Arg::new(option.name).long(option.name.replace('_', "-")).help_heading(HEADING).help(help);
    match option.kind {
        Kind::Truth => {
            arg.value_parser(PossibleValuesParser::new(["true", "false"])).num_args(0..=1).default_missing_value("true")
        }
        _ => arg,
    }
}

/// The flag of gene sets, and its place in matches.
const NEW_GENE_SETS: &str = "new-gene-sets";
/// Over all of them.
const HEADING: &str = "What the query adds";
