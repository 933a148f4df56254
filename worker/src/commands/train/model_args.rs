//! Flags that say what the network looks like: one for each option of the zoo's models, made from their cards.

use std::marker::PhantomData;

use archipelago_models::{
    Config, ModelCard, OptionCard,
    model::Model,
    options::{Kind, text_of},
    zoo::ZOO,
};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, builder::PossibleValuesParser};

use crate::commands::defaults;

/// The network: a model of the zoo, and the options that were given.
#[derive(Debug)]
pub(super) struct ModelArgs {
    /// The model's name.
    pub(super) model: String,
    /// Names of options, and what was written for them.
    given: Vec<(&'static str, String)>,
}

impl ModelArgs {
    /// The options that were given, and for a model that starts from nothing those that map well.
    pub(super) fn options(&self, model: &dyn Model, starts_from_reference: bool) -> Config {
        let cards = model.options();
        let mut options = if starts_from_reference { Config::new() } else { model.options_for_surgery() };
        for (name, text) in &self.given {
            // An option that the model does not have is for the model to refuse.
            let card = cards.iter().find(|card| card.name == *name);
            options.insert((*name).to_owned(), card.map_or_else(|| text.clone().into(), |card| card.read(text)));
        }
        options
    }
}

impl Args for ModelArgs {
    fn augment_args(command: Command) -> Command {
        let model = Arg::new(MODEL)
            .long(MODEL)
            .default_value(ZOO[0].card().name)
            .help_heading(HEADING)
            .help("A model of the zoo, see `archipelago-worker models`");
        command.arg(model).args(flags(ZOO).iter().map(Flag::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ModelArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let given = flags(ZOO).iter().filter_map(|flag| Some((flag.name, text(flag.name)?))).collect();
        Ok(Self { model: text(MODEL).unwrap_or_default(), given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The options of one model that were given, for a command that is about that model alone.
#[derive(Debug)]
pub(crate) struct OptionsOf<M> {
    given: Config,
    model: PhantomData<M>,
}

impl<M> OptionsOf<M> {
    /// By name; what was not given is not there.
    pub(crate) fn given(&self) -> Config {
        self.given.clone()
    }
}

impl<M: Model + Default> Args for OptionsOf<M> {
    fn augment_args(command: Command) -> Command {
        command.args(flags(&[&M::default()]).iter().map(Flag::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<M: Model + Default> FromArgMatches for OptionsOf<M> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let of_card =
            |card: &OptionCard| Some((card.name.to_owned(), card.read(matches.get_one::<String>(card.name)?)));
        let given = M::default().options().iter().filter_map(of_card).collect();
        Ok(Self { given, model: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A flag: the option of one name in every model that has it.
struct Flag {
    name: &'static str,
    of_models: Vec<OfModel>,
}

struct OfModel {
    model: ModelCard,
    option: OptionCard,
    /// Where nothing is given, as text.
    default: String,
}

/// A flag for each option of some models, in the order of models and of their options.
fn flags(models: &[&dyn Model]) -> Vec<Flag> {
    let mut flags: Vec<Flag> = Vec::new();
    for model in models {
        let usual = model.options_for_surgery();
        for option in model.options() {
            let default = text_of(usual.get(option.name).unwrap_or(&option.default));
            let name = option.name;
            let of_model = OfModel { model: model.card(), option, default };
            match flags.iter_mut().find(|flag| flag.name == name) {
                Some(flag) => flag.of_models.push(of_model),
                None => flags.push(Flag { name, of_models: vec![of_model] }),
            }
        }
    }
    flags
}

impl Flag {
    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name).long(self.name.replace('_', "-")).help_heading(self.heading());
        let help = &self.of_models[0].option.help;
        let arg = arg.help(format!("{help} [default: {}]", self.defaults()));
        let arg = match self.values() {
            Some(values) => arg.value_parser(PossibleValuesParser::new(values)),
            None => arg,
        };
        if self.of_models.iter().all(|of| of.option.kind == Kind::Truth) {
            return arg.num_args(0..=1).default_missing_value("true");
        }
        arg
    }

    /// Options of the usual model stand together, others under the names of the models that have them.
    fn heading(&self) -> String {
        let titles: Vec<&str> = self.of_models.iter().map(|of| of.model.title).collect();
        if self.is_usual() { HEADING.to_owned() } else { format!("Options of {}", titles.join(", ")) }
    }

    /// The default of each model; where options of the usual model do not stand together, with its title.
    fn defaults(&self) -> String {
        let of_models = || self.of_models.iter().map(|of| (of.model.title, of.default.clone()));
        let text = defaults::side_by_side(of_models());
        let is_one = of_models().all(|(_, default)| default == self.of_models[0].default);
        if self.is_usual() || is_one { text } else { format!("{} {text}", self.of_models[0].model.title) }
    }

    fn is_usual(&self) -> bool {
        self.of_models[0].model == ZOO[0].card()
    }

    /// The values that any of the models takes, where they can be listed.
    fn values(&self) -> Option<Vec<&'static str>> {
        let mut all = Vec::new();
        for OfModel { option, .. } in &self.of_models {
            match &option.kind {
                Kind::Choice(names) => all.extend(names),
                Kind::Truth => all.extend(["true", "false"]),
                _ => return None,
            }
            all.extend(option.is_optional.then_some(archipelago_models::options::NO_VALUE));
        }
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|value| seen.insert(*value));
        Some(all)
    }
}

/// The flag of the model, and its place in matches.
const MODEL: &str = "model";
/// Over the model and the options of the usual one.
const HEADING: &str = "Model";

#[cfg(test)]
mod tests {
    use archipelago_models::zoo;
    use serde_json::json;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<ModelArgs, clap::Error> {
        let command = ModelArgs::augment_args(Command::new("train"));
        ModelArgs::from_arg_matches(&command.try_get_matches_from([&["train"], arguments].concat())?)
    }

    #[test]
    fn every_option_of_every_model_has_a_flag_with_its_default() {
        let mut command = ModelArgs::augment_args(Command::new("train").term_width(300));
        let help = command.render_long_help().to_string();
        for model in ZOO {
            for option in model.options() {
                assert!(help.contains(&format!("--{}", option.name.replace('_', "-"))), "{}", option.name);
            }
        }
        assert!(help.contains("Units of hidden layers [default: 128; totalVI 256]"), "{help}");
        assert!(
            help.contains("Hidden layers of encoder and decoder [default: 2]"),
            "the default is that of `train`: {help}"
        );
        assert!(help.contains("Options of scANVI:"), "{help}");
    }

    #[test]
    fn what_is_written_is_what_the_model_is_told() {
        let arguments = [
            "--n-hidden",
            "7",
            "--dropout-rate=0.25",
            "--encode-covariates",
            "--use-layer-norm",
            "none",
            "--unlabeled-category",
            "12",
            "--n-samples-per-label",
            "none",
            "--classifier-parameters",
            "{\"n_layers\": 3}",
        ];
        let scanvi = zoo::model("scanvi").unwrap();
        let options = parse(&arguments).unwrap().options(scanvi, true);
        let expected = [
            ("n_hidden", json!(7)),
            ("dropout_rate", json!(0.25)),
            ("encode_covariates", json!(true)),
            ("use_layer_norm", json!("none")),
            ("unlabeled_category", json!("12")),
            ("n_samples_per_label", json!(null)),
            ("classifier_parameters", json!({ "n_layers": 3 })),
        ];
        assert_eq!(options, expected.map(|(name, value)| (name.to_owned(), value)).into());
        scanvi.configure(&options).unwrap();
    }

    #[test]
    fn what_no_model_takes_is_refused_and_what_this_one_lacks_too() {
        assert!(parse(&["--gene-likelihood", "gauss"]).unwrap_err().to_string().contains("gauss"));
        let scvi = zoo::model("scvi").unwrap();
        let lacking = parse(&["--classification-ratio", "3"]).unwrap().options(scvi, false);
        assert!(scvi.configure(&lacking).unwrap_err().to_string().contains("no option `classification_ratio`"));
        let wrong = parse(&["--n-hidden", "many"]).unwrap().options(scvi, false);
        assert!(scvi.configure(&wrong).unwrap_err().to_string().contains("`n_hidden` is many"));
    }
}
