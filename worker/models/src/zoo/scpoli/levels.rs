//! Cell types, on one level or on several: the table of types that all levels share.

use tch::Tensor;

use crate::{
    data::{Dataset, Field, FieldKind, LABELS, Minibatch, Need, Registry, Slot, slot::Labels},
    error::Result,
};

/// The types of cells. A name that two levels have is one type.
#[derive(Clone, Debug)]
pub struct Levels {
    levels: Vec<Level>,
    types: Vec<String>,
}

/// A column of types.
#[derive(Clone, Debug)]
struct Level {
    name: &'static str,
    slot: Slot<Labels>,
    /// The type of each of its codes; none for cells without one.
    types: Vec<i64>,
}

/// The fields that levels can be in.
pub(super) const FIELDS: [&str; 4] = [LABELS, "labels_2", "labels_3", "labels_4"];
/// The type of a cell that has none.
pub(super) const NO_TYPE: i64 = -1;

/// The fields of all levels; this category stands for cells without a type, and so do these names.
pub(super) fn fields(unlabelled: &str, unknown: &[String]) -> impl Iterator<Item = Field> {
    let kind = FieldKind::Labels { unlabelled: Some(unlabelled.to_owned()) };
    FIELDS.iter().map(move |&name| {
        let help =
            if name == LABELS { "cell types of those cells that have one" } else { "cell types of a further level" };
        Field::new(name, kind.clone(), Need::Optional, help).growing().without(unknown)
    })
}

impl Levels {
    /// Those that a reference's cells have.
    ///
    /// # Errors  a field of another kind
    pub fn new(registry: &Registry) -> Result<Self> {
        let (mut levels, mut types): (Vec<Level>, Vec<String>) = (Vec::new(), Vec::new());
        for name in FIELDS {
            let (Some(slot), Some(labels)) = (registry.find::<Labels>(name)?, registry.remembered::<Labels>(name))
            else {
                continue;
            };
            let mut own = Vec::with_capacity(labels.names.len());
            for label in &labels.names {
                let known = types.iter().position(|known| known == label);
                own.push(known.unwrap_or(types.len()) as i64);
                if known.is_none() {
                    types.push(label.clone());
                }
            }
            levels.push(Level { name, slot, types: own });
        }
        Ok(Self { levels, types })
    }

    /// The types, by code.
    pub fn types(&self) -> &[String] {
        &self.types
    }

    /// Names of the levels' fields.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &'static str> + '_ {
        self.levels.iter().map(|level| level.name)
    }

    /// The types of a level, in its order.
    pub fn of_level(&self, level: usize) -> &[i64] {
        &self.levels[level].types
    }

    /// The field of each level, and the types of its codes.
    pub(super) fn slots(&self) -> Vec<(Slot<Labels>, Vec<usize>)> {
        let types = |level: &Level| level.types.iter().map(|&code| code as usize).collect();
        self.levels.iter().map(|level| (level.slot, types(level))).collect()
    }

    /// The type of each cell on each level, `[n, n_levels]`; -1 for none.
    pub fn of_minibatch(&self, minibatch: &Minibatch) -> Tensor {
        let device = minibatch.x.device();
        let column = |level: &Level| {
            let types = Tensor::from_slice(&[level.types.as_slice(), &[NO_TYPE]].concat()).to_device(device);
            types.index_select(0, &minibatch.get(level.slot).clamp_max(level.types.len() as i64))
        };
        let columns: Vec<Tensor> = self.levels.iter().map(column).collect();
        if columns.is_empty() {
            return Tensor::full([minibatch.x.size()[0], 0], NO_TYPE, (tch::Kind::Int64, device));
        }
        Tensor::stack(&columns, 1)
    }

    /// The types of a cell, those of its levels that it has one on.
    pub fn of_cell<'a>(&'a self, dataset: &'a Dataset<'_>, cell: usize) -> impl Iterator<Item = usize> + 'a {
        let on_level =
            move |level: &Level| level.types.get(dataset.codes(level.slot)[cell] as usize).map(|&t| t as usize);
        self.levels.iter().filter_map(on_level)
    }

    /// Names of a cell's types that the reference does not know.
    pub fn new_of_cell<'a>(&'a self, dataset: &'a Dataset<'_>, cell: usize) -> impl Iterator<Item = &'a str> + 'a {
        let on_level = move |level: &Level| {
            // Behind the codes of known types is that of cells without one.
            let at = dataset.codes(level.slot)[cell] as usize;
            dataset.new_labels(level.slot).get(at.checked_sub(level.types.len() + 1)?).map(String::as_str)
        };
        self.levels.iter().filter_map(on_level)
    }

    /// The level with most types, the last among equals: the one that cells are split by.
    pub fn finest(&self) -> Option<usize> {
        (0..self.levels.len()).max_by_key(|&level| self.levels[level].types.len())
    }

    /// The type of each cell on a level, by the level's own code; none for cells without one.
    pub fn codes_on<'a>(&self, level: usize, dataset: &'a Dataset<'_>) -> impl Iterator<Item = Option<usize>> + 'a {
        let Level { slot, types, .. } = &self.levels[level];
        let n_types = types.len();
        dataset.codes(*slot).iter().map(move |&code| usize::try_from(code).ok().filter(|code| *code < n_types))
    }
}

#[cfg(test)]
mod tests {
    use archipelago_anndata::Csr;

    use super::*;
    use crate::data::{Categorical, Cells};

    #[test]
    fn levels_share_a_table_and_cells_may_lack_a_type() {
        let counts = Csr::zeros(3, 1);
        let column = |values: &[&str]| Categorical::from_values(values);
        let cells =
            Cells::new(&counts).with(LABELS, column(&["T", "?", "B"])).with("labels_3", column(&["CD4", "T", "?"]));
        let fields: Vec<Field> = fields("?", &[]).collect();
        let registry = Registry::of(&fields, &cells).unwrap();
        let levels = Levels::new(&registry).unwrap();
        assert_eq!(levels.types(), ["T", "B", "CD4"]);
        assert!(levels.names().eq([LABELS, "labels_3"]));
        assert_eq!((levels.of_level(1), levels.finest()), (&[0, 2][..], Some(1)));
        let dataset = registry.encode(&cells, &[0, 0, 0], 1).unwrap();
        let found = levels.of_minibatch(&dataset.minibatch(&[0, 1, 2], tch::Device::Cpu));
        assert_eq!(Vec::<i64>::try_from(found.reshape(-1)).unwrap(), [0, 2, -1, 0, 1, -1]);
        assert!(levels.of_cell(&dataset, 1).eq([0]));
        assert!(levels.codes_on(0, &dataset).eq([Some(0), None, Some(1)]));
        // A query without types has none.
        let unlabelled = registry.encode(&Cells::new(&counts), &[0, 0, 0], 1).unwrap();
        assert_eq!(levels.of_cell(&unlabelled, 0).count(), 0);
        assert_eq!(Levels::new(&Registry::default()).unwrap().finest(), None);
    }
}
