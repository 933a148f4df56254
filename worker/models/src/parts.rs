//! Members of a version's parts, as a model reads them.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{BaseCard, ConditionKey, Section, part::Member};
use serde_json::Value;

/// The members of a version's parts.
///
/// Those that come from the cells on which the reference was trained are told apart from those that sites contributed: what a
/// site maps by should not depend on which other sites mapped before it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Parts {
    members: BTreeMap<ConditionKey, Member>,
    /// The conditions that the reference was trained on, where its card says so.
    own: Option<BTreeSet<ConditionKey>>,
}

impl Parts {
    /// Members of parts over a base with this card.
    pub fn new(card: &BaseCard, members: BTreeMap<ConditionKey, Member>) -> Self {
        let key = |name: &Value| name.as_str()?.parse().ok();
        let own = card.training.get(OWN).and_then(Value::as_array).map(|names| names.iter().filter_map(key).collect());
        Self { members, own }
    }

    /// Every member of a part.
    pub fn all(&self, part: &str) -> impl Iterator<Item = (&ConditionKey, &Member)> {
        self.members
            .iter()
            .filter(move |(key, _)| matches!(key.section(), Section::Part(name) if name.as_str() == part))
    }

    /// The members of the cells that the reference was trained on; all of them for a reference that does not say which these
    /// are, an imported one.
    pub fn of_reference(&self, part: &str) -> impl Iterator<Item = (&ConditionKey, &Member)> {
        self.all(part).filter(|(key, _)| self.is_of_reference(key))
    }

    /// Whether a member of this key comes from the cells that the reference was trained on, as far as it says which these are.
    pub fn is_of_reference(&self, key: &ConditionKey) -> bool {
        self.own.as_ref().is_none_or(|own| own.contains(&key.clone().in_section(Section::Condition)))
    }
}

/// The conditions that a reference was trained on, among the facts of its training.
pub(crate) const OWN: &str = "conditions";

/// How a card writes them.
pub(crate) fn names(keys: &[ConditionKey]) -> Value {
    keys.iter().map(|key| Value::from(key.to_string())).collect()
}
