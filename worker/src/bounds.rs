//! What a task may be here: the bounds of the site's policy ([`TaskBounds`]), held before any cell is trained on.
//!
//! Whoever writes a reference and a task writes a program that runs on the site's cells; what is checked is the program, not its
//! author's word on it. A coordinator learns which [`Bound`] a task breaks, and no number.

use std::{fmt, mem::discriminant};

use archipelago_common::{Base, BaseCard, Layout, layout::Axis, policy::TaskBounds, task::SurgeryTask, tree};
use archipelago_models::{
    Size,
    train::{Aim, TrainPlan},
    zoo, zoo_layout,
};

use crate::error::{Error, Result};

/// A bound that a task breaks: a closed list, which is all that leaves of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bound {
    /// The model is not on the site's list.
    Model,
    /// A layer has too many units.
    Hidden,
    /// The latent space is too wide for its panel.
    Latent,
    /// The card declares another layout than the zoo has for its model.
    Layout,
    /// More numbers would leave than the cells allow.
    Numbers,
    /// Too few steps are certain.
    Steps,
    /// Minibatches are too small, or hold too many of the cells.
    Minibatch,
    /// Too few of the cells are trained on.
    TrainShare,
    /// The learning rate is out of range.
    LearningRate,
    /// Adam's epsilon is out of range.
    AdamEps,
    /// Columns could move further than the cells allow.
    Travel,
    /// The norm of columns is out of range.
    Norm,
    /// The reference reads what the site does not let it read.
    Reading,
    /// What may leave of these cells has left.
    Budget,
    /// The reference or the task is not what its publisher signed.
    Signature,
}

impl Bound {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Model,
        Self::Hidden,
        Self::Latent,
        Self::Layout,
        Self::Numbers,
        Self::Steps,
        Self::Minibatch,
        Self::TrainShare,
        Self::LearningRate,
        Self::AdamEps,
        Self::Travel,
        Self::Norm,
        Self::Reading,
        Self::Budget,
        Self::Signature,
    ];
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "its model is not on the site's list",
            Self::Hidden => "its layers have more units than the site allows",
            Self::Latent => "its latent space is wider than the site allows",
            Self::Layout => "its reference has another layout than its model",
            Self::Numbers => "it would release more numbers than the site's cells allow",
            Self::Steps => "it takes fewer steps than the site asks for",
            Self::Minibatch => "its minibatches are not of a size that the site allows",
            Self::TrainShare => "it trains on a smaller share of the cells than the site asks for",
            Self::LearningRate => "its learning rate is out of the site's range",
            Self::AdamEps => "its epsilon is out of the site's range",
            Self::Travel => "its training moves columns further than the site's cells allow",
            Self::Norm => "its norm of columns is out of the site's range",
            Self::Reading => "its reference reads what the site does not let it read",
            Self::Budget => "the site's budget for its cells is spent",
            Self::Signature => {
                "its reference or the task is not what its publisher signed, or older than what the site has used"
            }
        })
    }
}

/// What the order alone says: before anything of the reference is fetched.
///
/// # Errors  [`Error::Declined`]
pub fn check_task(bounds: &TaskBounds, task: &SurgeryTask) -> Result<()> {
    let (found, most) = (task.max_column_norm, bounds.max_column_norm);
    if found.is_nan() || found > most {
        return declined(Bound::Norm, format!("columns may have a norm of {found}, the policy allows {most}"));
    }
    Ok(())
}

/// What the reference is: its model, its size, and that its layout is the zoo's.
///
/// # Errors  [`Error::Declined`], [`Error::Models`] for a card or tensors that make no model
pub fn check_reference(bounds: &TaskBounds, base: &Base) -> Result<()> {
    let card = &base.card;
    if !bounds.models.is_empty() && !bounds.models.contains(&card.model) {
        return declined(Bound::Model, format!("`{}` is not among `tasks.models`", card.model));
    }
    if let Some((name, found)) = widest(card, |size| size != Size::Nothing)?.filter(|w| w.1 > bounds.max_hidden) {
        return declined(Bound::Hidden, format!("`{name}` is {found}, the policy allows {}", bounds.max_hidden));
    }
    let most = bounds.max_latent_share * card.genes.len() as f64;
    if let Some((name, found)) = widest(card, |size| size == Size::Latent)?.filter(|w| w.1 as f64 > most) {
        let n_genes = card.genes.len();
        return declined(Bound::Latent, format!("`{name}` is {found} over {n_genes} genes, the policy allows {most}"));
    }
    match differs(&card.layout, &zoo_layout(base)?) {
        None => Ok(()),
        Some(detail) => declined(Bound::Layout, detail),
    }
}

/// How cells are trained on together that are so many.
///
/// # Errors  [`Error::Declined`], [`Error::Models`] for settings that make no sense
pub fn check_training(bounds: &TaskBounds, card: &BaseCard, task: &SurgeryTask, n_cells: usize) -> Result<()> {
    let model = zoo::model(&card.model)?;
    let plan = TrainPlan::new(model, Aim::ExactSurgery, &task.train, n_cells)?;
    for (bound, name, found, [least, most]) in [
        (Bound::LearningRate, "learning rate", plan.adam.rate, bounds.learning_rate),
        (Bound::AdamEps, "epsilon", plan.adam.eps, bounds.adam_eps),
    ] {
        if !(least..=most).contains(&found) {
            return declined(bound, format!("the {name} is {found}, the policy allows {least} to {most}"));
        }
    }
    let share = plan.train_size.share();
    if share < bounds.min_train_share {
        let least = bounds.min_train_share;
        return declined(
            Bound::TrainShare,
            format!("{share} of the cells are trained on, the policy asks for {least}"),
        );
    }
    let (n_train, minibatch) = (share * n_cells as f64, plan.minibatch as f64);
    let most = bounds.max_minibatch_share * n_train;
    // The model's own minibatches are nobody's choice: they hold all cells of a small site.
    if (minibatch > most && plan.minibatch > model.card().training.minibatch) || minibatch < bounds.min_minibatch as f64
    {
        let least = bounds.min_minibatch;
        return declined(
            Bound::Minibatch,
            format!("{minibatch} cells a minibatch, the policy allows {least} to {most}"),
        );
    }
    // A rule may end training after its patience, whatever happens: only the epochs before that are certain.
    let certain =
        plan.early_stopping.map_or(u32::MAX, |rule| rule.warmup.saturating_add(rule.patience).saturating_add(1));
    let of_epoch = (n_train / minibatch).ceil();
    let most_steps = plan.max_steps.unwrap_or(u64::MAX);
    let n_steps = (u64::from(plan.n_epochs.min(certain)) * of_epoch as u64).min(most_steps);
    if n_steps < bounds.min_steps {
        let least = bounds.min_steps;
        return declined(Bound::Steps, format!("{n_steps} steps are certain, the policy asks for {least}"));
    }
    let (travel, most) =
        (plan.adam.rate * f64::from(plan.n_epochs) * of_epoch, bounds.max_travel_per_cell * n_train.max(minibatch));
    if travel > most {
        return declined(Bound::Travel, format!("columns may move by {travel:.3}, the policy allows {most:.3}"));
    }
    Ok(())
}

/// Whether the columns of a key may leave that has so many cells.
///
/// # Errors  [`Error::Declined`]
pub fn check_numbers(bounds: &TaskBounds, axis: &Axis, n_cells: u64) -> Result<()> {
    let (found, most) = (numbers(axis), bounds.max_numbers_per_cell * n_cells as f64);
    if found as f64 > most {
        let detail = format!("a key's columns are {found} numbers, for {n_cells} cells the policy allows {most}");
        return declined(Bound::Numbers, detail);
    }
    Ok(())
}

/// How many numbers a key of an axis owns.
pub fn numbers(axis: &Axis) -> u64 {
    let sizes = axis.tensors.values().map(|owned| owned.spec.shape.iter().map(|&n| n as u64));
    sizes.map(|shape| shape.fold(1, u64::saturating_mul)).fold(0, u64::saturating_add)
}

fn declined(bound: Bound, detail: String) -> Result<()> {
    Err(Error::Declined { bound, detail })
}

/// The largest whole number among the options that size the network so, and its name.
fn widest(card: &BaseCard, is_meant: impl Fn(Size) -> bool) -> Result<Option<(&'static str, u64)>> {
    let options = zoo::model(&card.model)?.options().into_iter();
    let given = options.filter_map(|option| option.largest(card.config.get(option.name)?, &is_meant));
    Ok(given.max_by_key(|(_, found)| *found))
}

/// In what a declared layout is none that the zoo makes.
fn differs(declared: &Layout, made: &Layout) -> Option<String> {
    let owned = |layout: &Layout| -> Vec<_> {
        layout.axes.iter().map(|axis| (axis.section.clone(), axis.tensors.clone())).collect()
    };
    // A card of the first format says of every tensor that it is trained; what it is, is asked of the model.
    let is_same = match declared.is_plain() {
        true => declared.columns() == made.columns() && declared.axes.len() == made.axes.len(),
        false => owned(declared) == owned(made),
    };
    if !is_same {
        return Some("the card declares other columns than its model has".to_owned());
    }
    let mut with_tree = made.clone();
    tree::declare(&mut with_tree, tree::Sharing::Points);
    let unknown = declared.parts.iter().find(|(name, rule)| with_tree.parts.get(*name) != Some(rule));
    if let Some((name, _)) = unknown {
        return Some(format!("the card declares part `{name}`, which its model does not have so"));
    }
    (discriminant(&declared.growth) != discriminant(&made.growth) && !declared.is_plain())
        .then(|| "the card declares another way to grow than its model has".to_owned())
}

#[cfg(test)]
mod tests;
