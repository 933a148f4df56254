//! What the zoo's models take where nothing is given, side by side in the help of a flag.

use archipelago_models::{
    train::{Epochs, TrainDefaults, WarmupDefault},
    zoo::ZOO,
};

/// Help of a flag that every model has a default of, as its card says.
pub fn help(help: &str, default: impl Fn(&TrainDefaults) -> String) -> String {
    let of_models = ZOO.iter().map(|model| (model.card().title, default(&model.card().training)));
    format!("{help} [default: {}]", side_by_side(of_models))
}

/// The first default, and with their titles those of models where it is another.
pub fn side_by_side(of_models: impl Iterator<Item = (&'static str, String)>) -> String {
    let mut of_models = of_models.peekable();
    let first = of_models.peek().map(|(_, default)| default.clone()).unwrap_or_default();
    let others =
        of_models.filter(|(_, default)| *default != first).map(|(title, default)| format!("{title} {default}"));
    std::iter::once(first.clone()).chain(others).collect::<Vec<_>>().join("; ")
}

/// Passes over the cells.
pub fn epochs(training: &TrainDefaults) -> String {
    match training.epochs {
        Epochs::ByCells => "400, fewer for more than 20,000 cells".to_owned(),
        Epochs::Fixed(n) => n.to_string(),
    }
}

/// How much weights decay.
pub fn weight_decay(training: &TrainDefaults) -> String {
    format!("{:e}", training.adam.weight_decay)
}

/// How long the weight of the KL term rises.
pub fn kl_warmup(training: &TrainDefaults) -> String {
    match training.kl_warmup {
        WarmupDefault::Off => "0".to_owned(),
        WarmupDefault::Epochs(n) => n.to_string(),
        WarmupDefault::AtMostEpochs(n) => format!("{n}, or all epochs where there are fewer"),
        WarmupDefault::ShareOfEpochs(share) => format!("{share} of all epochs"),
        WarmupDefault::StepsPerCell(n) => format!("{n} steps per cell"),
    }
}

/// How many epochs without a fall end a run.
pub fn patience(training: &TrainDefaults) -> String {
    training.early_stopping.as_ref().map_or_else(|| "never".to_owned(), |rule| rule.patience.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_stands_once() {
        let of = |defaults: &[(&'static str, &str)]| {
            side_by_side(defaults.iter().map(|(title, default)| (*title, (*default).to_owned())))
        };
        assert_eq!(of(&[("A", "1"), ("B", "1"), ("C", "1")]), "1");
        assert_eq!(of(&[("A", "1"), ("B", "2"), ("C", "1"), ("D", "3")]), "1; B 2; D 3");
    }

    #[test]
    fn cards_say_how_models_are_trained() {
        let minibatch = help("Cells per minibatch", |training| training.minibatch.to_string());
        assert!(minibatch.starts_with("Cells per minibatch [default: 128; totalVI 256"), "{minibatch}");
        assert!(help("End", patience).contains("never; totalVI 45"));
        assert!(help("Rise", kl_warmup).contains("400; totalVI 0.75 steps per cell"));
    }
}
