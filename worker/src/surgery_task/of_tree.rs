//! What a task is to a tree of cell types that sites learn together.

use archipelago_common::{Section, condition::ConditionKey, part::Contribution, task::Asks, tree};

use super::Prepared;
use crate::{
    egress::Latent,
    error::{Error, Result},
    mapping::QueryGroup,
    shared_tree::{DataSetCells, Placed, TreeParts},
};

/// What the cells of each group add to a tree, and where the tree puts them.
#[derive(Default)]
pub(super) struct OfTree {
    pub(super) contributions: Vec<Vec<(ConditionKey, Contribution)>>,
    /// None where there is no tree yet.
    pub(super) placed: Option<Vec<Placed>>,
}

impl OfTree {
    pub(super) fn new(parts: &TreeParts, prepared: &Prepared, latents: &[Latent]) -> Result<Self> {
        let (mut contributions, mut placed) = (Vec::new(), Vec::new());
        for (group, latent) in prepared.groups.iter().zip(latents) {
            let labels = group.annotations.labels();
            let mut of_group = Vec::new();
            for (key, rows) in
                group.cells_of_keys(&prepared.layout).iter().filter(|(key, _)| *key.section() == Section::Condition)
            {
                let cells: Vec<_> = rows.iter().map(|&row| (row, labels.and_then(|l| l[row].as_deref()))).collect();
                let x = latent.select(rows);
                of_group
                    .extend(parts.contributions(&DataSetCells { key, x: x.view(), cells: &cells }, &prepared.merged)?);
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
    pub(super) fn require_news(&self, asks: Asks) -> Result<()> {
        let of_tree = [tree::MACHINES, tree::COUNTS, tree::ANNOTATIONS];
        let is_of_tree = self.layout.parts.keys().all(|part| of_tree.contains(&part.as_str()));
        let (Some(tree), false, true) = (&self.tree, asks.for_columns(), is_of_tree) else { return Ok(()) };
        let has_news = |group: &QueryGroup| {
            group.conditions.keys().iter().any(|key| tree.lacks_of(key, group.annotations.labels(), &self.merged))
        };
        match self.groups.iter().any(has_news) {
            true => Ok(()),
            false => {
                let key = Box::new(self.groups[0].conditions.keys()[0].clone());
                Err(Error::Withheld { key, reason: "the version has all that its cells can add to a tree".to_owned() })
            }
        }
    }
}
