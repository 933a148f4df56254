//! Labelled data sets join a tree one after another.

use std::collections::BTreeMap;

use archipelago_hierarchy::{Addition, CountTable, JOINING_ROOT, Joined, RESERVED, ROOT, Tree};
use ndarray::{ArrayView2, Axis};

use super::options::LearnOptions;
use super::trained::TrainedTree;
use crate::{AnalysisError, Labels, Result};

/// Cells in a common space, each with a label that is its data set's own.
#[derive(Debug, Clone, Copy)]
pub struct LabelledCells<'a> {
    /// Positions, `[n_cells, n_dims]`.
    pub x: ArrayView2<'a, f32>,
    /// One label per cell.
    pub labels: &'a Labels,
}

/// Some of the cells: a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSet {
    /// What it is called.
    pub name: String,
    /// Rows of its cells.
    pub rows: Vec<usize>,
}

/// What happened when a data set joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The data set.
    pub name: String,
    /// The counts that changed the tree.
    pub addition: Addition,
    /// What they did.
    pub joined: Joined,
    /// The tree afterwards.
    pub tree: Tree,
}

/// A tree that data sets have joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The tree, trained on all of them.
    pub trained: TrainedTree,
    /// One per data set that joined, in order.
    pub steps: Vec<Step>,
}

impl Learned {
    /// Labels that found no place, in the order in which they failed to.
    pub fn missing(&self) -> Vec<&str> {
        self.steps.iter().flat_map(|step| step.joined.missing()).collect()
    }
}

/// Learns a tree from data sets in the given order; `told` hears of each that joined.
///
/// # Errors   no data set or one without cells, labels that two share or that are reserved, a label with one cell, and what
/// [`TrainedTree::train`] and [`Tree::join`] refuse
pub fn learn<'a>(
    cells: LabelledCells<'_>,
    order: &[DataSet],
    options: &'a LearnOptions,
    told: &'a mut dyn FnMut(&Step),
) -> Result<Learned> {
    let Some((first, rest)) = order.split_first() else {
        return Err(AnalysisError::TooFew { step: "a tree", unit: "data sets", needed: 1, found: 0 });
    };
    cells.check(order)?;
    let labels = cells.labels.select(&first.rows);
    let tree = flat(&labels)?;
    Learning { cells, options, tree, rows: first.rows.clone(), labels, steps: Vec::new(), told }.through(rest, None)
}

/// Lets further data sets join a tree that `added` have joined. With `retrain` the tree is trained anew before the first;
/// without, it predicts as it is.
///
/// # Errors   as [`learn`], cells of another space than the tree's, no cell of a type of the tree
pub fn update<'a>(
    trained: TrainedTree,
    cells: LabelledCells<'_>,
    added: &[DataSet],
    order: &[DataSet],
    retrain: bool,
    options: &'a LearnOptions,
    told: &'a mut dyn FnMut(&Step),
) -> Result<Learned> {
    if cells.x.ncols() != trained.n_dims {
        let (found, expected) = (cells.x.ncols(), trained.n_dims);
        return Err(AnalysisError::Length { what: "a cell", found, expected });
    }
    cells.check(&[added, order].concat())?;
    // In the order of the file, as upstream takes them: folds of a cross-validation depend on it.
    let mut rows: Vec<usize> = added.iter().flat_map(|set| set.rows.iter().copied()).collect();
    rows.sort_unstable();
    let labels = cells.labels.select(&rows);
    let tree = trained.tree.clone();
    let learning = Learning { cells, options, tree, rows, labels, steps: Vec::new(), told };
    learning.through(order, (!retrain).then_some(trained))
}

/// The flat tree of the labels that cells carry.
fn flat(labels: &Labels) -> Result<Tree> {
    let carried: Vec<&str> = labels.carried().into_iter().map(|(name, ..)| name).collect();
    Ok(Tree::flat(&carried)?)
}

struct Learning<'c, 'a> {
    cells: LabelledCells<'c>,
    options: &'a LearnOptions,
    tree: Tree,
    /// Cells of the data sets that have joined.
    rows: Vec<usize>,
    /// Their labels; a leaf's cells take its name when the next data set joins.
    labels: Labels,
    steps: Vec<Step>,
    told: &'a mut dyn FnMut(&Step),
}

impl Learning<'_, '_> {
    /// Lets data sets join; a tree that is trained already is used for the first.
    fn through(mut self, order: &[DataSet], mut trained: Option<TrainedTree>) -> Result<Learned> {
        for set in order {
            let x = self.cells.x.select(Axis(0), &self.rows);
            let of_tree = match trained.take() {
                Some(trained) => trained,
                None => self.train(x.view(), &self.labels, self.tree.clone())?,
            };
            let addition = self.cross(&of_tree, x.view(), set)?;
            let names: Vec<&str> = self.labels.names().iter().map(|name| self.tree.name_in_tables(name)).collect();
            let known = Labels::from_codes(self.labels.codes(), &names)?;
            self.labels = known.followed_by(&self.cells.labels.select(&set.rows));
            self.rows.extend(&set.rows);
            let joined = self.tree.join(&addition, &self.options.join)?;
            self.steps.push(Step { name: set.name.clone(), addition, joined, tree: self.tree.clone() });
            self.steps.last().into_iter().for_each(&mut *self.told);
        }
        let x = self.cells.x.select(Axis(0), &self.rows);
        Ok(Learned { trained: self.train(x.view(), &self.labels, self.tree.clone())?, steps: self.steps })
    }

    /// Each side predicts the other; only counts come of it.
    fn cross(&self, of_tree: &TrainedTree, known: ArrayView2<'_, f32>, set: &DataSet) -> Result<Addition> {
        let x = self.cells.x.select(Axis(0), &set.rows);
        let labels = self.cells.labels.select(&set.rows);
        let of_joining = self.train(x.view(), &labels, flat(&labels)?)?;
        let count = |tree: &TrainedTree, root: &str, (x, labels): (ArrayView2<'_, f32>, &Labels)| -> Result<_> {
            let found = tree.predict(x, self.options.rej_threshold)?;
            let named = found.iter().map(|label| if label == ROOT { root } else { label });
            Ok(CountTable::of_cells(labels.iter().zip(named)))
        };
        Ok(Addition {
            of_tree: count(&of_joining, JOINING_ROOT, (known, &self.labels))?,
            of_joining: count(of_tree, ROOT, (x.view(), &labels))?,
        })
    }

    fn train(&self, x: ArrayView2<'_, f32>, labels: &Labels, tree: Tree) -> Result<TrainedTree> {
        TrainedTree::train(x, labels, tree, &self.options.train, self.options.join.rules)
    }
}

impl LabelledCells<'_> {
    fn check(&self, sets: &[DataSet]) -> Result<()> {
        self.labels.check_len("the list of labels", self.x.nrows())?;
        let mut owner = BTreeMap::<String, &str>::new();
        for set in sets {
            if set.rows.is_empty() {
                return Err(AnalysisError::TooFew { step: "a data set of a tree", unit: "cells", needed: 1, found: 0 });
            }
            for (label, _, rows) in self.labels.select(&set.rows).carried() {
                if RESERVED.contains(&label) {
                    let name = label.to_owned();
                    return Err(archipelago_hierarchy::HierarchyError::Reserved { name }.into());
                }
                if let Some(first) = owner.insert(label.to_owned(), &set.name) {
                    let (first, second) = (first.to_owned(), set.name.clone());
                    return Err(AnalysisError::SharedLabel { label: label.to_owned(), first, second });
                }
                if rows.len() < FEWEST_CELLS {
                    let (label, set, found) = (label.to_owned(), set.name.clone(), rows.len());
                    return Err(AnalysisError::FewCells { label, set, found, needed: FEWEST_CELLS });
                }
            }
        }
        Ok(())
    }
}

/// One cell has no distance to another of its type, and would leave every node one neighbour.
const FEWEST_CELLS: usize = 2;

#[cfg(test)]
mod tests {
    use archipelago_hierarchy::{Names, Rules, grow};
    use ndarray::Array2;

    use super::*;

    /// Two data sets around the same three places, the second with a type of its own.
    fn cells() -> (Array2<f32>, Labels, Vec<DataSet>) {
        let place = |i: usize| [(0.0, 0.0), (9.0, 0.0), (0.0, 9.0), (9.0, 9.0)][i];
        let (mut x, mut labels, mut sets) = (Vec::new(), Vec::new(), Vec::new());
        for (set, types) in [("north", &[0, 1, 2][..]), ("south", &[0, 1, 2, 3])] {
            let start = labels.len();
            for i in 0..120 {
                let at = types[i % types.len()];
                let jitter = |salt: usize| ((i * salt + start) % 61) as f32 / 61.0;
                x.extend([place(at).0 + jitter(31), place(at).1 + jitter(57)]);
                labels.push(format!("type{at}-{set}"));
            }
            sets.push(DataSet { name: set.to_owned(), rows: (start..labels.len()).collect() });
        }
        (Array2::from_shape_vec((labels.len(), 2), x).unwrap(), Labels::from_names(&labels), sets)
    }

    #[test]
    fn the_tree_is_the_one_that_the_tables_alone_give() {
        let (x, labels, sets) = cells();
        let options = LearnOptions::default();
        let mut heard = Vec::new();
        let cells = LabelledCells { x: x.view(), labels: &labels };
        let learned = learn(cells, &sets, &options, &mut |step| heard.push(step.name.clone())).unwrap();
        let expected = "(type0-north|type0-south,type1-north|type1-south,type2-north|type2-south,type3-south)root";
        assert_eq!(learned.trained.tree.newick(Names::All), expected);
        let additions: Vec<Addition> = learned.steps.iter().map(|step| step.addition.clone()).collect();
        let first = ["type0-north", "type1-north", "type2-north"];
        assert_eq!(grow(&first, &additions, &options.join).unwrap().0, learned.trained.tree);
        assert_eq!((heard, learned.missing()), (vec!["south".to_owned()], vec![]));
    }

    #[test]
    fn bad_data_sets_are_refused_in_words() {
        let (x, labels, sets) = cells();
        let check = |labels: &Labels, sets: &[DataSet], word: &str| {
            let cells = LabelledCells { x: x.view(), labels };
            let error = learn(cells, sets, &LearnOptions::default(), &mut |_| {}).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        };
        let shared: Vec<&str> = labels.iter().map(|label| &label[..5]).collect();
        check(&Labels::from_names(&shared), &sets, "`type0` is in data set `north` and in `south`");
        let mut one: Vec<&str> = labels.iter().collect();
        one[3] = "lone";
        check(&Labels::from_names(&one), &sets, "`lone` of data set `north` has 1 cell, at least 2");
        one[3] = "root2";
        check(&Labels::from_names(&one), &sets, "`root2` cannot be");
        check(&labels, &[], "at least 1 data sets");
        check(&labels, &[DataSet { name: "east".into(), rows: Vec::new() }], "at least 1 cells");
    }

    #[test]
    fn a_tree_of_another_space_is_not_updated() {
        let (x, labels, sets) = cells();
        let options = LearnOptions::default();
        let cells = LabelledCells { x: x.view(), labels: &labels };
        let north = learn(cells, &sets[..1], &options, &mut |_| {}).unwrap().trained;
        let flat = x.slice(ndarray::s![.., ..1]);
        let other = LabelledCells { x: flat, labels: &labels };
        let error = update(north.clone(), other, &sets[..1], &sets[1..], false, &options, &mut |_| {}).unwrap_err();
        assert!(matches!(error, AnalysisError::Length { found: 1, expected: 2, .. }));
        let both = update(north, cells, &sets[..1], &sets[1..], false, &options, &mut |_| {}).unwrap();
        assert_eq!(both.trained, learn(cells, &sets, &options, &mut |_| {}).unwrap().trained);
        assert_eq!(both.trained.rules, Rules::Corrected);
    }
}
