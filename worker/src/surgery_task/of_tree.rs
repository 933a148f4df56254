//! What a task is to a tree of cell types that sites learn together.

use archipelago_common::{Name, Section, condition::ConditionKey, part::Contribution, task::Asks, tree};

use super::prepare::Prepared;
use crate::{
    egress::Latent,
    error::{Error, Result},
    mapping::QueryGroup,
    shared_tree::{DataSetCells, Placed, TreeParts, Wanted},
};

/// What the cells of each group add to a tree, and where the tree puts them.
#[derive(Default)]
pub(super) struct OfTree {
    pub(super) contributions: Vec<Vec<(ConditionKey, Contribution)>>,
    /// None where there is no tree yet.
    pub(super) placed: Option<Vec<Placed>>,
}

impl OfTree {
    pub(super) fn new(parts: &TreeParts, prepared: &Prepared, latents: &[Latent], wanted: &Wanted<'_>) -> Result<Self> {
        let (mut contributions, mut placed) = (Vec::new(), Vec::new());
        for (group, latent) in prepared.groups.iter().zip(latents) {
            let labels = group.annotations.labels();
            let mut of_group = Vec::new();
            for (key, rows) in group
                .cells_of_keys(&prepared.onto.layout)
                .iter()
                .filter(|(key, _)| *key.section() == Section::Condition)
            {
                let cells: Vec<_> = rows.iter().map(|&row| (row, labels.and_then(|l| l[row].as_deref()))).collect();
                let x = latent.select(rows);
                let cells = DataSetCells { key, x: x.view(), cells: &cells };
                of_group.extend(parts.contributions(&cells, wanted)?);
            }
            contributions.push(of_group);
            if parts.has_types() {
                placed.push(parts.place(latent.view())?);
            }
        }
        Ok(Self { contributions, placed: parts.has_types().then_some(placed) })
    }
}

impl Prepared {
    /// Refuses to train for a task that asks for parts of trees alone, where nobody's cells have anything to add.
    pub(super) fn require_news(&self, wanted: &Wanted<'_>) -> Result<()> {
        let asks = wanted.asks;
        let Some(tree) = &self.onto.tree else { return Ok(()) };
        let is_of_tree = |part: &Name| tree::PARTS.contains(&part.as_str());
        let asks_for_other = match asks {
            Asks::Both | Asks::Columns => true,
            Asks::Parts => !self.onto.layout.parts.keys().all(is_of_tree),
            Asks::Annotations => false,
        };
        let has_news = |group: &QueryGroup| {
            let labels = group.annotations.labels();
            group.conditions.keys().iter().any(|key| tree.lacks_of(key, labels, wanted))
        };
        if asks_for_other || self.groups.iter().any(has_news) {
            return Ok(());
        }
        let reason = match asks == Asks::Annotations && !tree.has_types() {
            true => "sites have learned no tree yet in the task's version",
            false => "the version has all that its cells can add to a tree",
        };
        let key = Box::new(self.groups[0].conditions.keys()[0].clone());
        Err(Error::Withheld { key, reason: reason.to_owned() })
    }
}
