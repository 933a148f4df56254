//! References that start from a trained one of a smaller model.

use archipelago_common::progress::Progress;

use crate::{
    blueprint::Blueprint,
    data::{Field, LABELS, Registry},
    error::{Error, Result},
    model::Config,
    reference::{Reference, Trained, Training, train},
    train::CheckpointStore,
};

/// Trains a reference that starts from the tensors of a smaller, trained one; what that one lacks starts fresh.
///
/// Options that both models have are those of the pretrained one. Without a number of epochs, training takes the few that
/// upstream takes.
///
/// # Errors  [`Error::Pretrained`] if the pretrained reference is of another model, other genes or covariates,
/// [`Error::UnknownCondition`], and those of [`train_reference`](crate::train_reference)
pub fn train_reference_from(
    pretrained: &Reference,
    training: &Training<'_>,
    progress: &mut dyn Progress,
    checkpoints: &mut dyn CheckpointStore,
) -> Result<Trained> {
    let card = &pretrained.base.card;
    let refuse = |detail: String| Err(Error::Pretrained { detail });
    if training.model.starts_from() != Some(card.model.as_str()) {
        return refuse(format!("`{}` cannot start from `{}`", training.model.card().name, card.model));
    }
    if card.genes != training.genes {
        return refuse("its genes are others, or in another order".to_owned());
    }
    let given = Blueprint::of_card(card)?;
    let fields: Vec<Field> = given.model.fields().into_iter().filter(|field| field.name != LABELS).collect();
    let found = Registry::of(&fields, training.cells)?;
    if !found.encodes_like(&given.registry.without(LABELS)) {
        return refuse("it was trained with other covariates, or other categories of them".to_owned());
    }
    let options = merged(training.options, given.model.options());
    train(&Training { options: &options, ..*training }, Some(pretrained), progress, checkpoints)
}

/// The pretrained options, and those asked for that it does not have.
fn merged(asked: &Config, pretrained: Config) -> Config {
    let ignored: Vec<&str> = asked
        .iter()
        .filter(|(name, value)| pretrained.get(*name).is_some_and(|kept| kept != *value))
        .map(|(name, _)| name.as_str())
        .collect();
    if !ignored.is_empty() {
        tracing::warn!(options = ignored.join(", "), "options are those of the pretrained reference");
    }
    let mut options = asked.clone();
    options.extend(pretrained);
    options
}
