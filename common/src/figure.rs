//! Figures by which a model says how well it fits cells.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// A figure of a model, as its card lists it: a mean over the cells of a condition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// By which it is asked for, such as `elbo`.
    pub name: Cow<'static, str>,
    /// What people call it.
    pub title: Cow<'static, str>,
    /// What it is counted in.
    pub unit: Cow<'static, str>,
    /// Which way is better.
    pub better: Better,
    /// Another figure of the model that this one and it cannot both beat: their sum is never above 0. A condition whose figures
    /// say otherwise is not believed.
    pub opposed_to: Option<Cow<'static, str>>,
}

/// Which way a figure is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Upwards.
    Higher,
    /// Downwards.
    Lower,
}

impl Figure {
    /// The evidence lower bound. It is the reconstruction's negative less a divergence, which is never negative.
    pub const ELBO: Self = Self {
        name: Cow::Borrowed("elbo"),
        title: Cow::Borrowed("ELBO"),
        unit: Cow::Borrowed("nats per cell"),
        better: Better::Higher,
        opposed_to: Some(Cow::Borrowed("reconstruction")),
    };

    /// The negative log-likelihood of what was measured.
    pub const RECONSTRUCTION: Self = Self {
        name: Cow::Borrowed("reconstruction"),
        title: Cow::Borrowed("reconstruction loss"),
        unit: Cow::Borrowed("nats per cell"),
        better: Better::Lower,
        opposed_to: None,
    };

    /// What models report that say nothing else; all there was before cards listed figures.
    pub const USUAL: [Self; 2] = [Self::ELBO, Self::RECONSTRUCTION];

    /// Whether these are the usual ones.
    pub fn are_usual(figures: &[Self]) -> bool {
        figures == Self::USUAL
    }

    /// A value with its title and unit.
    pub fn say(&self, value: f64) -> impl fmt::Display {
        let Self { title, unit, .. } = self;
        format!("{title} {value:.3} {unit}")
    }
}
