//! A data set joins a tree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::actions::Change;
use crate::marks::{BinaryTable, SumTable};
use crate::scan::Marks;
use crate::table::CountTable;
use crate::tree::{Node, Tree, check_label, listed};
use crate::{HierarchyError, JOINING_ROOT, REJECTED_BY_DISTANCE, REJECTED_BY_ERROR, ROOT, Result};

/// All that a data set changes the tree by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addition {
    /// Cells of the tree's data sets: own label by the label that the joining data set's flat tree gives them.
    pub of_tree: CountTable,
    /// Cells that join: own label by the label that the tree gives them.
    pub of_joining: CountTable,
}

/// How names are matched.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinOptions {
    /// Shares of a row that lie closer than this are marked together.
    pub match_threshold: f64,
    /// Whether labels that found no place are put below the root.
    pub attach_missing: bool,
    /// Whose rules.
    pub rules: Rules,
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self { match_threshold: 0.25, attach_missing: false, rules: Rules::Corrected }
    }
}

/// Whose rules decide where scHPL has a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rules {
    /// Roots are known by name and not by their place in the alphabet, marks are added as numbers, and a label that found
    /// no place is missing.
    Corrected,
    /// As scHPL 1.0.5, faults included.
    Upstream,
}

/// What became of a label that joined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Whether it found a place.
    pub has_joined: bool,
    /// Name of the node that it means too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<String>,
}

/// What came of an addition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Marks of the tree's cells, then of the joining ones.
    pub marks: [BinaryTable; 2],
    /// Both added up.
    pub sums: SumTable,
    /// Each label that joined.
    pub statuses: BTreeMap<String, Status>,
}

impl Joined {
    /// Labels that found no place in the tree.
    pub fn missing(&self) -> Vec<&str> {
        self.statuses.iter().filter(|(_, status)| !status.has_joined).map(|(label, _)| label.as_str()).collect()
    }
}

/// The tree of a first data set with these labels, joined by others in order: a pure function of what is given.
///
/// # Errors   tables that do not fit the tree, see [`Tree::join`]
pub fn grow<S: AsRef<str>>(first: &[S], additions: &[Addition], options: &JoinOptions) -> Result<(Tree, Vec<Joined>)> {
    let mut tree = Tree::flat(first)?;
    let joined = additions.iter().map(|addition| tree.join(addition, options)).collect::<Result<_>>()?;
    Ok((tree, joined))
}

impl Tree {
    /// Lets a data set join, by its two tables. On error the tree is as before.
    ///
    /// # Errors   a table without cells, labels on both sides, predictions of labels that do not exist, a margin that is none
    pub fn join(&mut self, addition: &Addition, options: &JoinOptions) -> Result<Joined> {
        if !(0.0..=1.0).contains(&options.match_threshold) {
            let found = options.match_threshold.to_string();
            return Err(HierarchyError::Option { option: "match_threshold", expected: "from 0 to 1", found });
        }
        self.check(addition)?;
        let of_tree =
            addition.of_tree.renamed(|label| self.name_in_tables(label), |label| or_root(label, JOINING_ROOT));
        let of_joining = addition.of_joining.renamed(|label| label, |label| or_root(label, ROOT));
        let marks = [&of_tree, &of_joining].map(|table| BinaryTable::new(table, options.match_threshold));
        let leaves: Vec<&str> = self.root.leaves().map(Node::name).collect();
        let sums = SumTable::new(&marks[0], &marks[1], &leaves, options.rules == Rules::Upstream);
        let mut statuses: BTreeMap<String, Status> =
            of_joining.rows().into_iter().map(|label| (label.to_owned(), Status::default())).collect();
        let mut change = Change { tree: self, statuses: &mut statuses, rules: options.rules };
        let (mut all, mut strict) = (Marks::all(&sums), Marks::strict(&sums));
        all.scan(&mut change);
        strict.keep(&all);
        if !strict.is_empty() {
            strict.scan(&mut change);
        }
        let joined = Joined { marks, sums, statuses };
        if options.attach_missing {
            self.root.children.extend(joined.missing().into_iter().map(Node::leaf));
        }
        Ok(joined)
    }

    /// What a label is called when the next data set joins: a leaf by its name, whichever of its names a cell has; an inner
    /// node's cells keep theirs.
    pub fn name_in_tables<'a>(&'a self, label: &'a str) -> &'a str {
        self.root.leaves().find(|leaf| leaf.carries(label)).map_or(label, Node::name)
    }

    fn check(&self, addition: &Addition) -> Result<()> {
        let joining = addition.of_joining.rows();
        for (table, name) in [(&addition.of_joining, JOINING), (&addition.of_tree, TREE)] {
            if table.n_cells() == 0 {
                return Err(HierarchyError::EmptyTable { table: name });
            }
        }
        for &label in &joining {
            check_label(label)?;
            if self.node(label).is_some() {
                return Err(HierarchyError::SharedLabel { name: label.to_owned() });
            }
        }
        // Labels that found no place when they joined are still counted; they say nothing, but some must be known.
        let rows = addition.of_tree.rows();
        if let Some(unknown) = rows.first().filter(|_| rows.iter().all(|label| self.node(label).is_none())) {
            return Err(HierarchyError::UnknownNode { name: (*unknown).to_owned(), known: self.listed() });
        }
        // A label whose own cells are too few to be counted may still be predicted.
        let is_predicted_by_joining = |label: &str| label != ROOT && self.node(label).is_none();
        let is_predicted_by_tree = |label: &str| self.root.preorder().any(|node| node.name() == label);
        for (table, name, known, is_known) in [
            (
                &addition.of_tree,
                TREE,
                listed(joining.iter().copied()),
                &is_predicted_by_joining as &dyn Fn(&str) -> bool,
            ),
            (&addition.of_joining, JOINING, self.listed(), &is_predicted_by_tree),
        ] {
            let is_wrong = |label: &&str| !is_known(label) && !REJECTIONS.contains(label);
            if let Some(label) = table.columns().into_iter().find(is_wrong) {
                return Err(HierarchyError::UnknownPrediction { table: name, name: label.to_owned(), known });
            }
        }
        Ok(())
    }
}

fn or_root<'a>(label: &'a str, root: &'a str) -> &'a str {
    if REJECTIONS.contains(&label) { root } else { label }
}

const REJECTIONS: [&str; 2] = [REJECTED_BY_ERROR, REJECTED_BY_DISTANCE];
const TREE: &str = "the tree's cells";
const JOINING: &str = "the joining cells";

#[cfg(test)]
mod tests {
    use super::*;

    fn table(counts: &[(&str, &str, u64)]) -> CountTable {
        let cells = counts.iter().flat_map(|&(row, column, n)| (0..n).map(move |_| (row, column)));
        CountTable::of_cells(cells)
    }

    fn addition(of_tree: &[(&str, &str, u64)], of_joining: &[(&str, &str, u64)]) -> Addition {
        Addition { of_tree: table(of_tree), of_joining: table(of_joining) }
    }

    #[test]
    fn tables_that_do_not_fit_the_tree_are_refused_in_words() {
        let check = |of_tree: &[(&str, &str, u64)], of_joining: &[(&str, &str, u64)], word: &str| {
            let mut tree = Tree::flat(&["B", "T"]).unwrap();
            let error = tree.join(&addition(of_tree, of_joining), &JoinOptions::default()).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(tree, Tree::flat(&["B", "T"]).unwrap());
        };
        check(&[("B", "B", 1)], &[("B", "B", 1)], "label `B` is in the tree already");
        check(&[("NK", "b", 1)], &[("b", "B", 1)], "no node `NK`; it has `root`, `B`, `T`");
        check(&[("B", "T", 1)], &[("b", "B", 1)], "the tree's cells predicts `T`, which is none of `b`");
        check(&[("B", "b", 1)], &[("b", "C", 1)], "the joining cells predicts `C`");
        check(&[], &[("b", "B", 1)], "the tree's cells has no cell");
        check(&[("B", "b", 1)], &[("root2", "B", 1)], "`root2` cannot be the name");
    }

    #[test]
    fn a_label_without_a_place_does_not_stop_the_next_data_set() {
        let counts = [("B", "b", 9), ("T", "t", 9), ("lost", "b", 4)];
        let mut tree = Tree::flat(&["B", "T"]).unwrap();
        tree.join(&addition(&counts, &[("b", "B", 9), ("t", "T", 9)]), &JoinOptions::default()).unwrap();
        assert_eq!(tree.newick(crate::Names::All), "(B|b,T|t)root");
    }

    #[test]
    fn sites_count_at_home_and_the_tree_is_the_same() {
        let sites = [
            addition(&[("B", "b", 3), ("T", "t1", 4)], &[("b", "B", 5), ("t1", "T", 2)]),
            addition(&[("B", REJECTED_BY_DISTANCE, 1), ("T", "t2", 4)], &[("t2", "T", 7)]),
        ];
        let sum = |order: [usize; 2]| {
            let mut sum = sites[order[0]].clone();
            sum.of_tree.add(&sites[order[1]].of_tree).unwrap();
            sum.of_joining.add(&sites[order[1]].of_joining).unwrap();
            grow(&["T", "B"], &[sum], &JoinOptions::default()).unwrap()
        };
        let (tree, joined) = sum([0, 1]);
        assert_eq!(tree.newick(crate::Names::All), "(B|b,(t1,t2)T)root");
        assert_eq!((tree, joined), sum([1, 0]));
    }
}
