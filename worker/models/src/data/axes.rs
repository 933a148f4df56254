//! Further axes: which keys the cells of a query share with a reference, which are its own, and who is trained with whom.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{ConditionKey, Layout, Name, Section, SiteId, layout::Axis};

use super::{Categorical, CellConditions};
use crate::error::{Error, Result};

/// What cells are called: their batch, and a name on each further axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CellNames {
    /// The batch; for a model with further axes what a cell's names on them make together.
    pub batch: Categorical,
    /// The further axes, in the model's order.
    pub axes: Vec<(Name, Categorical)>,
}

impl CellNames {
    /// Keys of a reference that is trained on these cells: every name is one of `owner`'s.
    ///
    /// # Errors  [`Error::Common`] for a name that cannot be part of a key
    pub fn of_reference(&self, owner: &SiteId, dataset: &Name) -> Result<CellConditions> {
        self.keys(owner, dataset, |_, _| None)
    }

    /// Keys of a query: where the reference's card says that an axis has names in common, cells of a name that it knows share its
    /// key, and every other name is one of `owner`'s.
    ///
    /// # Errors  [`Error::Common`] for a name that cannot be part of a key, [`Error::AxisMixUp`]
    pub fn of_query(&self, owner: &SiteId, dataset: &Name, layout: &Layout) -> Result<CellConditions> {
        let axis_of = |name: &Name| layout.axis(&Section::Axis(name.clone()));
        for (name, cells) in &self.axes {
            let knows_none = |axis: &Axis| cells.names().iter().all(|level| axis.shared(level).is_none());
            let knows_all = |axis: &&Axis| cells.names().iter().all(|level| axis.shared(level).is_some());
            let Some(own) = axis_of(name).filter(|axis| knows_none(axis)) else { continue };
            if let Some(other) = layout.axes.iter().filter(|axis| axis.section != own.section).find(knows_all) {
                let (axis, other) = (name.clone(), other.section.to_string());
                return Err(Error::AxisMixUp { axis, other, names: quoted(cells.names()) });
            }
        }
        self.keys(owner, dataset, |axis, level| axis_of(axis)?.shared(level).cloned())
    }

    fn keys(
        &self,
        owner: &SiteId,
        dataset: &Name,
        shared: impl Fn(&Name, &str) -> Option<ConditionKey>,
    ) -> Result<CellConditions> {
        let key = |name: &str| ConditionKey::new(owner.clone(), dataset.clone(), name);
        let mut conditions = CellConditions::from_batches(&self.batch, key)?;
        for (axis, cells) in &self.axes {
            let key = |level: &str| match shared(axis, level) {
                Some(shared) => Ok(shared),
                None => Ok(key(level)?.in_section(Section::Axis(axis.clone()))),
            };
            conditions = conditions.with_axis(CellConditions::from_batches(cells, key)?);
        }
        Ok(conditions)
    }
}

impl CellConditions {
    /// Some of the cells, with the keys that these have. Panics for a cell that is not there.
    #[must_use]
    pub fn select_cells(&self, cells: &[usize]) -> Self {
        let keys: Vec<ConditionKey> = cells.iter().map(|&cell| self.key_of(cell).clone()).collect();
        let further = self.further().iter().map(|axis| axis.select_cells(cells));
        further.fold(Self::from_keys(&keys), Self::with_axis)
    }

    /// The cells in groups that surgery can train apart: those of one group are bound together by keys that are new. What a key of
    /// the reference is to them does not change, so that binds nobody. In the order of their first conditions.
    pub fn groups(&self, layout: &Layout) -> Vec<Vec<usize>> {
        let shared: BTreeSet<&ConditionKey> = layout.axes.iter().flat_map(|axis| &axis.shared).collect();
        // Each condition points to another one of its group, the first to itself.
        let mut first: Vec<usize> = (0..self.keys().len()).collect();
        for axis in self.further() {
            let mut holder: BTreeMap<u32, usize> = BTreeMap::new();
            for (&level, &condition) in axis.codes().iter().zip(self.codes()) {
                if shared.contains(&axis.keys()[level as usize]) {
                    continue;
                }
                let other = *holder.entry(level).or_insert(condition as usize);
                let (one, two) = (root(&first, other), root(&first, condition as usize));
                first[one.max(two)] = one.min(two);
            }
        }
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (cell, &condition) in self.codes().iter().enumerate() {
            groups.entry(root(&first, condition as usize)).or_default().push(cell);
        }
        groups.into_values().collect()
    }

    /// The cells of each key that is the query's own, on every axis.
    pub fn cells_of_own_keys(&self, layout: &Layout) -> BTreeMap<ConditionKey, Vec<usize>> {
        let mut cells: BTreeMap<ConditionKey, Vec<usize>> = BTreeMap::new();
        for axis in std::iter::once(self).chain(self.further()) {
            for cell in 0..axis.codes().len() {
                let key = axis.key_of(cell);
                if layout.axis(key.section()).is_none_or(|known| !known.shared.contains(key)) {
                    cells.entry(key.clone()).or_default().push(cell);
                }
            }
        }
        cells
    }
}

fn root(first: &[usize], mut condition: usize) -> usize {
    while first[condition] != condition {
        condition = first[condition];
    }
    condition
}

/// The keys of cells on one further axis, as a module knows that is built to grow a reference by them.
pub(crate) struct GrownAxis {
    pub(crate) name: Name,
    /// Keys of the base, whose rows come first.
    pub(crate) n_shared: usize,
    /// Keys that are new.
    pub(crate) own: Vec<ConditionKey>,
    /// Code of each cell into all of them.
    pub(crate) codes: Vec<i64>,
}

impl GrownAxis {
    pub(crate) fn new(name: Name, axis: &Axis, cells: &CellConditions) -> Self {
        let shared = |key: &ConditionKey| axis.shared.iter().position(|known| known == key);
        let own: Vec<ConditionKey> = cells.keys().iter().filter(|key| shared(key).is_none()).cloned().collect();
        let code = |key: &ConditionKey| match shared(key) {
            Some(code) => code,
            None => axis.shared.len() + own.iter().position(|known| known == key).expect("a key is shared or own"),
        };
        let code_of: Vec<i64> = cells.keys().iter().map(|key| code(key) as i64).collect();
        let codes = cells.codes().iter().map(|&cell| code_of[cell as usize]).collect();
        Self { name, n_shared: axis.shared.len(), own, codes }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let axis = |name: &str, shared: &[&str]| {
            let axis = Axis::new(Section::Axis(name.parse().unwrap()), BTreeMap::new());
            Axis { shared: shared.iter().map(|key| key.parse().unwrap()).collect(), ..axis }
        };
        let tissues = ["r/atlas@tissue/blood", "r/atlas@tissue/lung"];
        let axes = vec![Axis::new(Section::Condition, BTreeMap::new()), axis("donor", &[]), axis("tissue", &tissues)];
        Layout::of_axes(axes)
    }

    /// Cells by donor and tissue.
    fn query(cells: &[(&str, &str)]) -> Result<CellConditions> {
        let column =
            |of: fn(&(&str, &str)) -> String| Categorical::from_values(&cells.iter().map(of).collect::<Vec<String>>());
        let names = CellNames {
            batch: column(|(donor, tissue)| format!("{donor}_{tissue}")),
            axes: vec![
                ("donor".parse().unwrap(), column(|(donor, _)| (*donor).to_owned())),
                ("tissue".parse().unwrap(), column(|(_, tissue)| (*tissue).to_owned())),
            ],
        };
        names.of_query(&"berlin".parse().unwrap(), &"lung".parse().unwrap(), &layout())
    }

    fn keys(conditions: &CellConditions) -> Vec<String> {
        conditions.all_keys().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_that_the_card_has_in_common_is_the_references_and_any_other_is_the_sites() {
        let query = query(&[("blood", "blood"), ("d2", "spleen")]).unwrap();
        let expected = [
            "berlin/lung/blood_blood",
            "berlin/lung/d2_spleen",
            "berlin/lung@donor/blood",
            "berlin/lung@donor/d2",
            "r/atlas@tissue/blood",
            "berlin/lung@tissue/spleen",
        ];
        assert_eq!(keys(&query), expected, "donors are called what their site calls them");
        let own = query.cells_of_own_keys(&layout());
        assert_eq!(own.len(), 5);
        assert_eq!(own[&"berlin/lung@tissue/spleen".parse().unwrap()], [1]);
    }

    #[test]
    fn cells_that_no_new_key_binds_together_are_trained_apart() {
        let groups = |cells: &[(&str, &str)]| query(cells).unwrap().groups(&layout());
        assert_eq!(groups(&[("a", "lung"), ("b", "lung"), ("a", "lung")]), [vec![0, 2], vec![1]]);
        assert_eq!(groups(&[("a", "lung"), ("b", "lung"), ("a", "blood")]), [vec![0, 2], vec![1]]);
        assert_eq!(groups(&[("a", "skin"), ("b", "skin"), ("c", "lung"), ("b", "lung")]), [vec![0, 1, 3], vec![2]]);
        assert_eq!(groups(&[("b", "y"), ("a", "x"), ("b", "x")]), [vec![0, 1, 2]]);
    }

    #[test]
    fn some_cells_have_the_keys_that_they_have() {
        let some = query(&[("a", "lung"), ("b", "skin"), ("a", "lung")]).unwrap().select_cells(&[0, 2]);
        assert_eq!(keys(&some), ["berlin/lung/a_lung", "berlin/lung@donor/a", "r/atlas@tissue/lung"]);
        assert_eq!((some.codes(), some.further()[1].codes()), (&[0, 0][..], &[0, 0][..]));
    }

    #[test]
    fn columns_that_are_the_wrong_way_round_are_refused() {
        let refused = query(&[("lung", "d1"), ("blood", "d1")]).unwrap_err().to_string();
        let expected = "`blood`, `lung` are new on axis `donor`, and all of them are names of axis `tissue`";
        assert!(refused.contains(expected), "{refused}");
        query(&[("lung", "d1"), ("d2", "d1")]).unwrap();
    }

    #[test]
    fn a_grown_axis_has_the_references_rows_first() {
        let query = query(&[("a", "skin"), ("b", "lung"), ("b", "eye")]).unwrap();
        let layout = layout();
        let axis = GrownAxis::new("tissue".parse().unwrap(), &layout.axes[2], &query.further()[1]);
        assert_eq!((axis.n_shared, axis.own.len()), (2, 2));
        assert_eq!(axis.codes, [3, 1, 2], "blood and lung, then eye and skin");
        assert_eq!(axis.name.as_str(), "tissue");
    }
}
