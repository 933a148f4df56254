//! What a site holds: its data sets, each with how its batches are called and what may leave of it.

use archipelago_common::{
    id::Name,
    policy::{Approval, SitePolicy, Unsigned},
    record::{ReferenceHead, TaskHead},
};
use archipelago_models::zoo;

use crate::{
    config::{SiteConfig, read_policy},
    data::DataSpec,
    egress::{self, Policies},
    error::Result,
    naming::Naming,
};

/// A data set of the site.
#[derive(Clone, Debug)]
pub struct Holding {
    /// Its name: the middle of its keys.
    pub dataset: Name,
    /// Which cells of which file.
    pub spec: DataSpec,
    /// How its batches are called.
    pub naming: Naming,
    /// What may leave of it, and for whom.
    pub policy: SitePolicy,
}

impl Holding {
    /// The data sets of a site, in the order of its configuration.
    ///
    /// # Errors  those of [`read_policy`] and [`Naming::of`]
    pub fn all(config: &SiteConfig) -> Result<Vec<Self>> {
        let holding = |data| {
            let policy = read_policy(config.policy_path(data))?;
            Ok(Self {
                dataset: data.dataset.clone(),
                spec: data.spec(&policy),
                naming: Naming::of(config, data)?,
                policy,
            })
        };
        config.data.iter().map(holding).collect()
    }

    /// Why it has no part in a task, whatever its cells are and whoever is asked.
    pub fn obstacle(&self, reference: &ReferenceHead, record: &TaskHead) -> Option<&'static str> {
        let trusted = &self.policy.trusted_operators;
        let is_trusted = |name: &Name| trusted.is_empty() || trusted.iter().any(|t| t == name.as_str());
        let kept = egress::obstacle(&self.policy, record.task.asks);
        if kept.is_some() {
            kept
        } else if !is_trusted(&reference.publisher) {
            Some("the policy does not trust the operator who published the reference")
        } else if !is_trusted(&record.publisher) {
            Some("the policy does not trust the operator who published the task")
        } else if zoo::model(&reference.summary.model).is_err() {
            Some("this worker does not know the reference's model")
        } else {
            None
        }
    }
}

/// What may leave of all of a site's data sets.
///
/// # Errors  those of [`read_policy`]
pub fn policies(config: &SiteConfig, holdings: &[Holding]) -> Result<Policies> {
    let of_data = holdings.iter().map(|holding| (holding.dataset.clone(), holding.policy.clone())).collect();
    Ok(Policies::new(read_policy(config.policy.as_deref())?, of_data))
}

/// The data sets that have a part in a task.
///
/// # Errors  where none has, why the first has none
pub fn taking_part<'a>(
    holdings: &'a [Holding],
    reference: &ReferenceHead,
    record: &TaskHead,
) -> Result<Vec<&'a Holding>, &'static str> {
    let (mut taking_part, mut first) = (Vec::new(), None);
    for holding in holdings {
        match holding.obstacle(reference, record) {
            None => taking_part.push(holding),
            Some(obstacle) => first = first.or(Some(obstacle)),
        }
    }
    match first {
        Some(obstacle) if taking_part.is_empty() => Err(obstacle),
        _ => Ok(taking_part),
    }
}

/// Whether somebody is asked before a task is done on these: where one data set wants it.
pub fn approval(holdings: &[&Holding]) -> Approval {
    holdings.iter().map(|holding| holding.policy.tasks.approve).max().unwrap_or_default()
}

/// What is done on these with what its publisher did not sign: the strictest of what each says.
pub fn unsigned(holdings: &[&Holding]) -> Unsigned {
    holdings.iter().map(|holding| holding.policy.tasks.unsigned).max().unwrap_or_default()
}
