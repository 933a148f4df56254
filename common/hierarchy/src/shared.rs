//! One tree that sites learn together: what they counted, in an agreed order, makes it.
//!
//! Every data set has machines that know its own types, and counts what others' machines say of its cells. For a data set
//! that joins, the cells of all earlier ones by its machines are the sum of their tables; its own cells by the tree are
//! what a [`Jury`] of the earlier ones says of them. The rest is [`Tree::join`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::join::{Addition, JoinOptions, grow};
use crate::jury::Jury;
use crate::table::CountTable;
use crate::tree::Tree;
use crate::{JOINING_ROOT, ROOT, Result};

/// What a data set brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedData {
    /// What it is called; everybody else is called otherwise.
    pub name: String,
    /// The types that its machines know, as it calls them.
    pub types: BTreeSet<String>,
    /// Its cells, own label by what the machines of another data set say, by the name of that one. A cell that these reject
    /// stands under [`ROOT`].
    pub counts: BTreeMap<String, CountTable>,
}

/// The counts by which data sets joined a first one: they alone give the tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// Labels of the first data set.
    pub first: Vec<String>,
    /// One per data set that joined.
    pub additions: Vec<Addition>,
    /// How names were matched.
    pub options: JoinOptions,
}

impl Tables {
    /// The tree that the tables give.
    ///
    /// # Errors   tables that do not fit the tree
    pub fn grow(&self) -> Result<Tree> {
        grow(&self.first, &self.additions, &self.options).map(|(tree, _)| tree)
    }
}

/// A tree that sites learned together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedTree {
    /// What became of each data set, in their order.
    pub data_sets: Vec<Standing>,
    /// The counts that made it.
    pub tables: Tables,
    /// The tree.
    pub tree: Tree,
}

/// What became of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The data set.
    pub name: String,
    /// Whether it is in the tree.
    pub state: State,
    /// Its labels that found no place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Whether a data set is in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its types stand right below the root, unless something moved them since.
    First,
    /// It joined.
    Joined,
    /// It joins once there are counts in both directions.
    Waits,
    /// Its tables cannot be, with the reason.
    Refused(String),
}

impl SharedTree {
    /// The tree of data sets in this order: a pure function of whole numbers, so everybody computes the same.
    pub fn of(data_sets: &[SharedData]) -> Self {
        let (first, additions, options) = (Vec::new(), Vec::new(), JoinOptions::default());
        let empty = Tree::new(crate::Node::leaf(ROOT));
        let mut shared = Self { data_sets: Vec::new(), tables: Tables { first, additions, options }, tree: empty };
        let mut earlier: Vec<&SharedData> = Vec::new();
        for data in data_sets {
            let (state, missing) = match shared.add(data, &earlier) {
                Ok(Some(outcome)) => outcome,
                Ok(None) => (State::Waits, Vec::new()),
                Err(error) => (State::Refused(error.to_string()), Vec::new()),
            };
            if matches!(state, State::First | State::Joined) {
                earlier.push(data);
            }
            shared.data_sets.push(Standing { name: data.name.clone(), state, missing });
        }
        shared
    }

    /// Adds one data set; `None` where it has to wait. On an error the tree is as before.
    fn add(&mut self, data: &SharedData, earlier: &[&SharedData]) -> Result<Option<(State, Vec<String>)>> {
        if earlier.is_empty() {
            let types: Vec<String> = data.own_types().into_iter().collect();
            self.tree = Tree::flat(&types)?;
            self.tables.first = types;
            return Ok(Some((State::First, Vec::new())));
        }
        let Some(addition) = self.addition(data, earlier)? else { return Ok(None) };
        let joined = self.tree.join(&addition, &self.tables.options)?;
        self.tables.additions.push(addition);
        Ok(Some((State::Joined, joined.missing().into_iter().map(str::to_owned).collect())))
    }

    /// Both tables of a data set that joins, once there are counts in both directions.
    fn addition(&self, data: &SharedData, earlier: &[&SharedData]) -> Result<Option<Addition>> {
        let mut of_tree = CountTable::default();
        for other in earlier {
            if let Some(counts) = other.counts.get(&data.name) {
                of_tree.add(&counts.named(&other.name, &data.name, JOINING_ROOT))?;
            }
        }
        let judge = |other: &&SharedData| {
            let counts = data.counts.get(&other.name)?;
            Some((other.own_types(), counts.named(&data.name, &other.name, ROOT)))
        };
        let (types, judgements): (Vec<_>, Vec<_>) = earlier.iter().filter_map(judge).unzip();
        let of_joining = Jury::new(&self.tree, types.iter()).table(&judgements);
        let is_counted = of_tree.n_cells() > 0 && of_joining.n_cells() > 0;
        Ok(is_counted.then_some(Addition { of_tree, of_joining }))
    }
}

impl SharedData {
    /// Its types by the names that they have in the tree.
    pub fn own_types(&self) -> BTreeSet<String> {
        self.types.iter().map(|label| unique(label, &self.name)).collect()
    }
}

/// A label by the name that it has in a shared tree, which no other data set's label has.
pub fn unique(label: &str, data_set: &str) -> String {
    format!("{label}-{data_set}")
}

impl CountTable {
    /// The same cells with labels that are unique: rows are of one data set, columns of another, or its root.
    fn named(&self, of_rows: &str, of_columns: &str, root: &str) -> Self {
        let mut named = Self::default();
        for row in self.rows() {
            for column in self.columns() {
                let column_name = if column == ROOT { root.to_owned() } else { unique(column, of_columns) };
                named.put(&unique(row, of_rows), &column_name, self.count(row, column));
            }
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Names;

    fn counts(cells: &[(&str, &str, usize)]) -> CountTable {
        CountTable::of_cells(cells.iter().flat_map(|&(row, column, n)| std::iter::repeat_n((row, column), n)))
    }

    /// How many cells of a label were taken for which other one.
    type Counted<'a> = &'a [(&'a str, &'a str, usize)];

    fn data(name: &str, types: &[&str], by: &[(&str, Counted<'_>)]) -> SharedData {
        SharedData {
            name: name.to_owned(),
            types: types.iter().map(|&label| label.to_owned()).collect(),
            counts: by.iter().map(|&(other, cells)| (other.to_owned(), counts(cells))).collect(),
        }
    }

    /// `a` knows B and T; `b` knows B, CD4 and CD8; `c` knows B and a type that nobody has.
    fn sites() -> [SharedData; 3] {
        [
            data(
                "a",
                &["B", "T"],
                &[
                    ("b", &[("B", "B", 90), ("B", ROOT, 10), ("T", "CD4", 60), ("T", "CD8", 40)]),
                    ("c", &[("B", "B", 100), ("T", ROOT, 100)]),
                ],
            ),
            data(
                "b",
                &["B", "CD4", "CD8"],
                &[
                    ("a", &[("B", "B", 80), ("CD4", "T", 50), ("CD8", "T", 30)]),
                    ("c", &[("B", "B", 80), ("CD4", ROOT, 50), ("CD8", ROOT, 30)]),
                ],
            ),
            data(
                "c",
                &["B", "odd"],
                &[
                    ("a", &[("B", "B", 70), ("odd", ROOT, 40)]),
                    ("b", &[("B", "B", 70), ("odd", ROOT, 38), ("odd", "CD4", 2)]),
                ],
            ),
        ]
    }

    #[test]
    fn three_sites_learn_one_tree_and_its_tables_alone_give_it_again() {
        let shared = SharedTree::of(&sites());
        assert_eq!(shared.tree.newick(Names::All), "(B-a|B-b|B-c,(CD4-b,CD8-b)T-a,odd-c)root");
        let states: Vec<&State> = shared.data_sets.iter().map(|data| &data.state).collect();
        assert_eq!(states, [&State::First, &State::Joined, &State::Joined]);
        assert_eq!(shared.tables.grow().unwrap(), shared.tree);
        let written = serde_json::to_string(&shared).unwrap();
        assert_eq!(serde_json::from_str::<SharedTree>(&written).unwrap(), shared);
    }

    #[test]
    fn the_cells_of_the_tree_are_those_that_one_place_would_count() {
        let [a, b, c] = sites();
        let shared = SharedTree::of(&[a, b, c]);
        // All cells of `a` and `b` by the machines of `c`, as if they lay in one file.
        let pooled = counts(&[
            ("B-a", "B-c", 100),
            ("T-a", JOINING_ROOT, 100),
            ("B-b", "B-c", 80),
            ("CD4-b", JOINING_ROOT, 50),
            ("CD8-b", JOINING_ROOT, 30),
        ]);
        assert_eq!(shared.tables.additions[1].of_tree, pooled);
    }

    #[test]
    fn who_leaves_leaves_the_tree_of_the_others() {
        let [a, b, c] = sites();
        let without = SharedTree::of(&[a.clone(), c.clone()]);
        let forget = |mut data: SharedData| {
            data.counts.remove("b");
            data
        };
        assert_eq!(without, SharedTree::of(&[forget(a), forget(c)]));
        assert_eq!(without.tree.newick(Names::All), "(B-a|B-c,T-a,odd-c)root");
        drop(b);
    }

    #[test]
    fn who_is_not_counted_waits_and_who_counts_what_cannot_be_is_refused() {
        let [a, mut b, mut c] = sites();
        b.counts.remove("a");
        c.counts.insert("a".into(), counts(&[("B", "nobody's", 3)]));
        c.counts.remove("b");
        let shared = SharedTree::of(&[a, b, c]);
        assert_eq!(shared.data_sets[1].state, State::Waits);
        assert_eq!(shared.tree.newick(Names::All).matches("-b").count(), 0);
        // A prediction that lies on no node is one that nobody places.
        assert_eq!(shared.data_sets[2].state, State::Joined);
        let none = SharedTree::of(&[data("a", &[], &[])]);
        assert_eq!(none.tree.newick(Names::First), "root");
    }
}
