//! What is looked at before any cell is trained on: which conditions could leave, and whether the policy allows the training.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{
    Section,
    condition::{Columns, ConditionKey},
    id::Name,
    layout::{Growth, Layout},
    state_dict::{Tensor, TensorSpec},
};
use archipelago_models::{nn::mean_name, zoo};

use super::{
    SurgeryTask,
    prepare::{Onto, Prepared},
};
use crate::{
    annotations::Annotations,
    bounds,
    data::SiteData,
    error::{Error, Result},
    holding::Holding,
};

impl SurgeryTask<'_> {
    /// Refuses a training that the policy does not allow of any of its groups of cells.
    pub(super) fn check_training(&self, prepared: &Prepared) -> Result<()> {
        if prepared.onto.layout.growth != Growth::Surgery {
            return Ok(());
        }
        let (bounds, card, task) = (&prepared.holding.policy.tasks, &prepared.onto.base.card, &self.record.task);
        let check = |n_cells| bounds::check_training(bounds, card, task, n_cells);
        prepared.groups.iter().try_for_each(|group| check(group.cells.len()))
    }

    /// Refuses a task for parts of what sites add, at a site that adds nothing: its cells would be trained on in vain.
    pub(super) fn check_adds(&self, prepared: &Prepared) -> Result<()> {
        let of_additions = zoo::model(&prepared.onto.base.card.model)?.kept_parts();
        let are_all = prepared.onto.layout.parts.keys().all(|part| of_additions.contains(&part.as_str()));
        if self.record.task.asks.for_columns() || !prepared.onto.extension.is_empty() || !are_all {
            return Ok(());
        }
        let key = prepared.groups[0].conditions.keys()[0].clone();
        let reason =
            "the task asks for what sites add to the model, and `[adds]` of this site's configuration adds nothing";
        Err(Error::Withheld { key: Box::new(key), reason: reason.to_owned() })
    }

    /// Takes out the conditions that could not leave, before any is trained in vain: what is bound to others by a name on one of
    /// several condition keys is trained without them then.
    pub(super) fn withhold(
        &self,
        data: SiteData,
        holding: &Holding,
        Onto { layout, merged, .. }: &Onto,
    ) -> Result<(SiteData, BTreeMap<ConditionKey, String>)> {
        let conditions = holding.naming.keys(&data, layout)?.conditions;
        let own = conditions.cells_of_own_keys(layout);
        let (mut withheld, mut left, mut last) = (BTreeMap::new(), Vec::new(), None);
        for key in conditions.keys() {
            let cells = &own[key];
            let keys = conditions.select_cells(&cells[..1]).all_keys();
            let checked = keys
                .iter()
                .filter(|key| own.contains_key(key))
                .try_for_each(|own_key| self.check_merged(key, own_key, merged, layout));
            let checked = checked.and_then(|()| self.check_size(key, cells, data.annotations()));
            let own = keys.iter().filter_map(|key| Some((key, own.get(key)?)));
            match checked.and_then(|()| self.check_numbers(own, &data, layout)) {
                Ok(()) => left.extend(cells),
                Err(error) => {
                    tracing::warn!(%error, "a condition is left out");
                    withheld.insert(key.clone(), error.to_string());
                    last = Some(error);
                }
            }
        }
        if self.record.task.asks.for_columns() {
            let (gate, kept) = (&self.site.gate, left.iter().copied().collect::<BTreeSet<usize>>());
            let leaves = own.iter().filter(|(_, cells)| cells.iter().any(|cell| kept.contains(cell)));
            let leaves = leaves.filter_map(|(key, cells)| {
                Some((key, layout.axis(key.section())?, gate.cell_set(data.names_of(cells.iter().copied()))))
            });
            gate.check_epsilon(self.record.id, leaves)?;
        }
        match last {
            Some(error) if left.is_empty() => Err(error),
            None => Ok((data, withheld)),
            Some(_) => {
                left.sort_unstable();
                Ok((data.keeping(&left), withheld))
            }
        }
    }

    fn check_merged(
        &self,
        key: &ConditionKey,
        own: &ConditionKey,
        merged: &BTreeSet<ConditionKey>,
        layout: &Layout,
    ) -> Result<()> {
        let member = |part: &Name| own.clone().in_section(Section::Part(part.clone()));
        let is_merged = match self.record.task.asks.for_columns() {
            true => merged.contains(own),
            // Columns stay where they are; parts are there or not.
            false => key == own && layout.parts.keys().all(|part| merged.contains(&member(part))),
        };
        let reason = match is_merged {
            false => return Ok(()),
            true if key == own => "it is part of the reference already".to_owned(),
            true => format!("`{own}` is part of the reference already; offer new cells of it as another data set"),
        };
        Err(Error::Withheld { key: Box::new(key.clone()), reason })
    }

    fn check_size(&self, key: &ConditionKey, cells: &[usize], annotations: &Annotations) -> Result<()> {
        let (n_cells, least) = (cells.len() as u64, self.record.task.min_cells);
        if n_cells < least {
            let reason = format!("it has {n_cells} cells, the task asks for {least}");
            return Err(Error::Withheld { key: Box::new(key.clone()), reason });
        }
        self.site.gate.check_size(key, self.record.task.asks, n_cells, annotations.n_donors(cells))
    }

    /// Where the columns of each key begin, if the policy hides that: away from the mean of the reference's, which everybody has.
    pub(super) fn hidden_starts(&self, prepared: &Prepared) -> Option<BTreeMap<ConditionKey, Columns>> {
        let gate = &self.site.gate;
        if prepared.holding.policy.tasks.start_std == 0.0 || prepared.onto.layout.growth != Growth::Surgery {
            return None;
        }
        let keys = prepared.groups.iter().flat_map(|group| group.cells_of_keys(&prepared.onto.layout).into_keys());
        let start = |key: ConditionKey| {
            let owned = prepared.onto.layout.axis(key.section()).map(|axis| &axis.tensors).into_iter().flatten();
            let mean = owned.filter_map(|(name, owned)| {
                let known = prepared.onto.base.tensors.get(&mean_name(name)).filter(|mean| mean.spec() == owned.spec);
                let nothing = || Tensor::new(name, owned.spec.dtype, owned.spec.shape.clone(), zeros(&owned.spec)).ok();
                Some((name.clone(), known.cloned().or_else(nothing)?))
            });
            let start = gate.hidden_start(&key, &Columns(mean.collect()));
            (key, start)
        };
        Some(keys.map(start).collect())
    }

    /// Whether the numbers that each of a condition's own keys would release are no more than its cells allow.
    fn check_numbers<'a>(
        &self,
        own: impl Iterator<Item = (&'a ConditionKey, &'a Vec<usize>)>,
        data: &SiteData,
        layout: &Layout,
    ) -> Result<()> {
        if !self.record.task.asks.for_columns() {
            return Ok(());
        }
        let (gate, task) = (&self.site.gate, self.record.id);
        for (key, cells) in own {
            let Some(axis) = layout.axis(key.section()) else { continue };
            gate.check_numbers(task, key, axis, gate.cell_set(data.names_of(cells.iter().copied())))?;
        }
        Ok(())
    }
}

fn zeros(spec: &TensorSpec) -> Vec<u8> {
    vec![0; spec.shape.iter().product::<usize>() * spec.dtype.size()]
}
