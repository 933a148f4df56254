//! Trees of cell types by the recipe of the peer's figures: scVI's latent space, a tree of the reference's data sets, the query
//! placed in it, the tree updated with the query's names, one whose first data set knows coarse labels, and types left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use archipelago_analysis::{
    Labels,
    hierarchy::{Node, REJECTED_BY_DISTANCE, REJECTED_BY_ERROR, ROOT, Tree},
    metrics,
};
use archipelago_anndata::{AnnData, Column, Compression};
use serde_json::Value;

use crate::{
    cells::{column, distinct},
    comparison::Figures,
    quality_runs::SeedRun,
};

impl SeedRun<'_> {
    /// Trees by nearest cells and by linear machines, on one latent space.
    pub(crate) fn trees(&self) -> Result<Figures> {
        let spaces = self.spaces()?;
        let mut figures = Figures::default();
        for classifier in ["knn", "svm"] {
            for (name, value) in self.judge_trees(classifier, &spaces)? {
                figures.insert(&format!("{classifier}_{name}"), value);
            }
        }
        Ok(figures)
    }

    /// Trains, maps, and writes the positions of the reference's cells, of the query's, and of both.
    fn spaces(&self) -> Result<Spaces> {
        let (known, new) = self.write_parts()?;
        let [cells, reference, mapped] = ["cells.h5ad", "reference", "mapped"].map(|name| self.path(name));
        let [of_known, of_new] = [&known, &new].map(|parts| parts.join(","));
        let (trained, moved) = (self.args.reference_epochs().to_string(), self.args.surgery_epochs().to_string());
        let sizes = ["--n-layers", "2", "--deeply-inject-covariates", "true", "--epochs", &trained];
        let by = ["--batch-key", PART];
        let surgery = ["--surgery", &self.args.surgery];
        let train = ["train", &cells, "--batches", &of_known, "--out", &reference];
        let map = ["map", &reference, &cells, "--batches", &of_new, "--epochs", &moved, "--out", &mapped];
        self.seeded(&[&train[..], &by, &sizes].concat())?;
        let [own, both] = ["own.h5ad", "both.h5ad"].map(|name| self.path(name));
        self.plain(&[&["latent", &reference, &cells, "--batches", &of_known, "--out", &own][..], &by].concat())?;
        self.seeded(&[&map[..], &by, &surgery].concat())?;
        let query = format!("{mapped}/mapped.h5ad");
        self.plain(&["concat", &own, &query, "--out", &both])?;
        Ok(Spaces { known, new, own, query, both })
    }

    /// Writes the cells with their data sets: the batches, or where there is no split into reference and query, three random parts
    /// of which the last is the query.
    fn write_parts(&self) -> Result<(Vec<String>, Vec<String>)> {
        let all = AnnData::read(&self.args.data)?;
        let counts = all.matrix(None)?.to_csr()?;
        let rows: Vec<usize> = (0..all.n_obs()).filter(|&row| !counts.row(row).1.is_empty()).collect();
        let mut cells = all.select_obs(&rows)?;
        let types = column(&cells, &self.args.labels_key)?;
        let parts = match self.args.reference.is_empty() {
            false => column(&cells, &self.args.batch_key)?,
            true => self.random_parts(rows.len()),
        };
        let labels: Vec<String> = types.iter().zip(&parts).map(|(label, part)| format!("{label}-{part}")).collect();
        for (name, values) in [(PART, &parts), (TYPE, &types), (LABEL, &labels)] {
            cells.obs.insert(name, Column::categorical(values))?;
        }
        if let Some(key) = &self.args.coarse_key {
            let coarse = column(&cells, key)?;
            cells.obs.insert(COARSE, Column::categorical(&coarse))?;
        }
        cells.write(Path::new(&self.path("cells.h5ad")), Compression::Gzip(4))?;
        if !self.args.reference.is_empty() {
            return Ok((self.args.reference.clone(), self.args.query.clone()));
        }
        let [known @ .., new] = &distinct(&parts)[..] else { anyhow::bail!("there is no cell") };
        Ok((known.to_vec(), vec![new.clone()]))
    }

    /// Two fifths, two fifths and the rest, at random.
    fn random_parts(&self, n_cells: usize) -> Vec<String> {
        let mut parts = vec![String::new(); n_cells];
        for (place, cell) in self.shuffled(n_cells).into_iter().enumerate() {
            parts[cell] = format!("part{}", (5 * place / n_cells.max(1)) / 2);
        }
        parts
    }

    fn judge_trees(&self, classifier: &str, spaces: &Spaces) -> Result<Vec<(String, f64)>> {
        let (tree, larger) = (self.path("tree"), self.path("larger"));
        let learned = self.learn(classifier, &spaces.own, spaces, &tree)?;
        let own = Known::read(&spaces.own)?;
        let mut figures = Vec::new();
        let mut add = |group: &str, found: Vec<(&'static str, f64)>| {
            figures.extend(found.into_iter().map(|(name, value)| (format!("{group}{name}"), value)));
        };
        let shown = self.show(&tree)?;
        add("tree_", own.matches(&shown, n_missing(&learned)));
        add("predict_", self.place(&tree, spaces, &own.type_of, &shown)?);
        let order = spaces.new.join(",");
        let update =
            ["tree", "update", &tree, &spaces.both, "--order", &order, "--min-cells", FEWEST_TEXT, "--out", &larger];
        let updated = self.plain(&update)?;
        add("updated_", Known::read(&spaces.both)?.matches(&self.show(&larger)?, n_missing(&updated)));
        if self.args.coarse_key.is_some() {
            add("coarse_", self.judge_coarse(classifier, spaces, &own)?);
        }
        if !self.args.no_left_out {
            add("left_out_", self.judge_left_out(classifier, spaces, &own)?);
        }
        Ok(figures)
    }

    fn learn(&self, classifier: &str, cells: &str, spaces: &Spaces, out: &str) -> Result<Value> {
        let order = spaces.known.join(",");
        let learn =
            ["tree", "learn", cells, "--labels-key", LABEL, "--batch-key", PART, "--order", &order, "--out", out];
        self.plain(&[&learn[..], &["--classifier", classifier, "--min-cells", FEWEST_TEXT]].concat())
    }

    fn show(&self, tree: &str) -> Result<Tree> {
        Ok(serde_json::from_value(self.plain(&["tree", "show", tree])?["tree"].take())?)
    }

    /// Where the query's cells go in a tree, judged by the types that its labels mean.
    fn place(
        &self,
        tree: &str,
        spaces: &Spaces,
        type_of: &BTreeMap<String, String>,
        shown: &Tree,
    ) -> Result<Vec<(&'static str, f64)>> {
        let (found, truth) = self.placed(tree, spaces)?;
        let whys: Vec<Why> =
            found.iter().zip(&truth).map(|(node, label)| Why::of(shown, type_of, node, label)).collect();
        let n = whys.len().max(1) as f64;
        let share = |wanted: &[Why]| whys.iter().filter(|why| wanted.contains(why)).count() as f64 / n;
        let accepted = 1.0 - share(&[Why::Rejected]);
        let named = |(why, (node, label)): (&Why, (&String, &String))| match why {
            Why::Right => label.clone(),
            Why::Rejected | Why::Coarser => format!("({why:?})"),
            Why::Wrong => means(shown, type_of, node).into_iter().next().unwrap_or_default(),
        };
        let named: Vec<String> = whys.iter().zip(found.iter().zip(&truth)).map(named).collect();
        let confusion = metrics::Confusion::new(&Labels::from_names(&truth), &Labels::from_names(&named))?;
        Ok(vec![
            ("accuracy", share(&[Why::Right])),
            ("accuracy_of_accepted", share(&[Why::Right]) / accepted.max(f64::MIN_POSITIVE)),
            ("right_or_coarser", share(&[Why::Right, Why::Coarser])),
            ("macro_f1", confusion.macro_f1_of_true_labels().context("there is no cell")?),
            ("wrong", share(&[Why::Wrong])),
            ("rejected", share(&[Why::Rejected])),
        ])
    }

    /// The node and the type of each of the query's cells.
    fn placed(&self, tree: &str, spaces: &Spaces) -> Result<(Vec<String>, Vec<String>)> {
        let out = self.path("placed.h5ad");
        self.plain(&["tree", "predict", tree, &spaces.query, "--out", &out])?;
        let placed = AnnData::read(Path::new(&out))?;
        Ok((column(&placed, "tree_label")?, column(&placed, TYPE)?))
    }

    /// The first data set knows coarse labels only: which fine ones come to lie below the right of them.
    fn judge_coarse(&self, classifier: &str, spaces: &Spaces, own: &Known) -> Result<Vec<(&'static str, f64)>> {
        let (file, out) = (self.path("mixed.h5ad"), self.path("coarse"));
        let mut cells = AnnData::read(Path::new(&spaces.own))?;
        let (parts, coarse, mut labels) = (column(&cells, PART)?, column(&cells, COARSE)?, column(&cells, LABEL)?);
        let first = &spaces.known[0];
        let (mut above, mut fine) = (BTreeMap::new(), BTreeMap::new());
        for ((label, part), coarse) in labels.iter_mut().zip(&parts).zip(&coarse) {
            if part == first {
                *label = format!("{coarse}-{part}");
                above.insert(label.clone(), coarse.clone());
            } else if let Some(meant) = own.type_of.get(label.as_str()) {
                fine.insert(label.clone(), (meant.clone(), coarse.clone()));
            }
        }
        cells.obs.insert(LABEL, Column::categorical(&labels))?;
        cells.write(Path::new(&file), Compression::Gzip(4))?;
        self.learn(classifier, &file, spaces, &out)?;
        let tree = self.show(&out)?;
        let paths = paths(&tree);
        let (mut n_true, mut n_found, mut n_both) = (0.0, 0.0, 0.0);
        for (above_label, meant) in &above {
            for (label, (_, coarse)) in &fine {
                let is_below = match (paths.get(above_label), paths.get(label)) {
                    (Some(above), Some(path)) => path.starts_with(above),
                    _ => false,
                };
                let is_true = coarse == meant;
                n_true += f64::from(u8::from(is_true));
                n_found += f64::from(u8::from(is_below));
                n_both += f64::from(u8::from(is_true && is_below));
            }
        }
        let type_of = fine.into_iter().map(|(label, (fine, _))| (label, fine)).collect();
        let edges =
            [("edge_recall", n_both / f64::max(n_true, 1.0)), ("edge_precision", n_both / f64::max(n_found, 1.0))];
        Ok([edges.to_vec(), self.place(&out, spaces, &type_of, &tree)?].concat())
    }

    /// Each type of the query is left out of the tree in turn: how many of its cells are rejected then, and of the others.
    fn judge_left_out(&self, classifier: &str, spaces: &Spaces, own: &Known) -> Result<Vec<(&'static str, f64)>> {
        let (file, out) = (self.path("rest.h5ad"), self.path("left"));
        let known: BTreeSet<&String> = own.type_of.values().collect();
        let truth = column(&AnnData::read(Path::new(&spaces.query))?, TYPE)?;
        let cells = AnnData::read(Path::new(&spaces.own))?;
        let types = column(&cells, TYPE)?;
        let mut shares = Vec::new();
        for label in distinct(&truth) {
            let n_cells = truth.iter().filter(|other| **other == label).count();
            if n_cells < FEWEST_LEFT_OUT || !known.contains(&label) {
                continue;
            }
            let rows: Vec<usize> = (0..types.len()).filter(|&row| types[row] != label).collect();
            cells.select_obs(&rows)?.write(Path::new(&file), Compression::Gzip(4))?;
            self.learn(classifier, &file, spaces, &out)?;
            let (found, truth) = self.placed(&out, spaces)?;
            let rejected = |of_it: bool| {
                let cells: Vec<&String> = found
                    .iter()
                    .zip(&truth)
                    .filter(|(_, own)| (**own == label) == of_it)
                    .map(|(node, _)| node)
                    .collect();
                cells.iter().filter(|node| REJECTED.contains(&node.as_str())).count() as f64 / cells.len().max(1) as f64
            };
            shares.push((rejected(true), rejected(false)));
        }
        ensure!(!shares.is_empty(), "no type of the query has enough cells to be left out");
        let n = shares.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| shares.iter().map(of).sum::<f64>() / n;
        Ok(vec![("rejected", mean(|shares| shares.0)), ("rejected_others", mean(|shares| shares.1))])
    }
}

/// Files of positions, and the data sets in them.
struct Spaces {
    known: Vec<String>,
    new: Vec<String>,
    own: String,
    query: String,
    both: String,
}

/// The labels of a file's cells that are in trees, with their types and data sets.
struct Known {
    type_of: BTreeMap<String, String>,
    part_of: BTreeMap<String, String>,
}

impl Known {
    fn read(file: &str) -> Result<Self> {
        let cells = AnnData::read(Path::new(file))?;
        let labels = column(&cells, LABEL)?;
        let mut n_cells: BTreeMap<&String, usize> = BTreeMap::new();
        labels.iter().for_each(|label| *n_cells.entry(label).or_default() += 1);
        let is_used = |(label, _): &(&String, String)| n_cells[label] >= FEWEST;
        let by = |key: &str| -> Result<BTreeMap<String, String>> {
            let named = labels.iter().zip(column(&cells, key)?).filter(is_used);
            Ok(named.map(|(label, value)| (label.clone(), value)).collect())
        };
        Ok(Self { type_of: by(TYPE)?, part_of: by(PART)? })
    }

    /// Pairs of labels of two data sets: on one node, and on one path from the root.
    fn matches(&self, tree: &Tree, n_missing: usize) -> Vec<(&'static str, f64)> {
        let paths = paths(tree);
        let placed: Vec<(&String, &Vec<&str>)> =
            self.type_of.keys().filter_map(|label| Some((label, paths.get(label.as_str())?))).collect();
        let [mut n_true, mut n_node, mut n_path, mut true_node, mut true_path] = [0.0; 5];
        for (at, (label, path)) in placed.iter().enumerate() {
            for (other, other_path) in placed[..at].iter().filter(|(o, _)| self.part_of[*o] != self.part_of[*label]) {
                let is_true = self.type_of[*label] == self.type_of[*other];
                let on_node = path == other_path;
                let on_path = path.starts_with(other_path) || other_path.starts_with(path);
                let count = |is: bool| f64::from(u8::from(is));
                n_true += count(is_true);
                n_node += count(on_node);
                n_path += count(on_path);
                true_node += count(is_true && on_node);
                true_path += count(is_true && on_path);
            }
        }
        let share = |n: f64, of: f64| n / f64::max(of, 1.0);
        vec![
            ("match_recall", share(true_node, n_true)),
            ("match_precision", share(true_node, n_node)),
            ("path_recall", share(true_path, n_true)),
            ("path_precision", share(true_path, n_path)),
            ("missing", n_missing as f64),
            ("labels_lost", (self.type_of.len() - placed.len()) as f64),
        ]
    }
}

/// What became of a cell of the query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    Right,
    Coarser,
    Rejected,
    Wrong,
}

impl Why {
    fn of(tree: &Tree, type_of: &BTreeMap<String, String>, node: &str, label: &str) -> Self {
        let below = || {
            tree.node(node).into_iter().flat_map(Node::preorder).flat_map(|below| means(tree, type_of, below.name()))
        };
        if REJECTED.contains(&node) {
            Self::Rejected
        } else if means(tree, type_of, node).contains(label) {
            Self::Right
        } else if below().any(|meant| meant == label) {
            Self::Coarser
        } else {
            Self::Wrong
        }
    }
}

/// The types that the names of a node mean.
fn means(tree: &Tree, type_of: &BTreeMap<String, String>, node: &str) -> BTreeSet<String> {
    let names = tree.node(node).map(Node::names).unwrap_or_default();
    names.iter().filter_map(|name| type_of.get(name).cloned()).collect()
}

/// The names of nodes from the root to each label.
fn paths(tree: &Tree) -> BTreeMap<String, Vec<&str>> {
    let (mut open, mut paths) = (vec![(tree.root(), Vec::new())], BTreeMap::new());
    while let Some((node, mut path)) = open.pop() {
        path.push(node.name());
        paths.extend(node.names().iter().map(|name| (name.clone(), path.clone())));
        open.extend(node.children().iter().map(|child| (child, path.clone())));
    }
    paths
}

/// Labels that found no place, by the worker's answer.
fn n_missing(answer: &Value) -> usize {
    let sets = answer["data_sets"].as_array().into_iter().flatten();
    sets.filter_map(|set| set["missing"].as_array()).map(Vec::len).sum()
}

/// The column of cells' data sets.
const PART: &str = "part";
/// The column of their types.
const TYPE: &str = "type";
/// The column of their types by names that are a data set's own.
const LABEL: &str = "label";
/// The column of coarser types.
const COARSE: &str = "coarse";
/// What cells are called that no type took.
const REJECTED: [&str; 3] = [REJECTED_BY_ERROR, REJECTED_BY_DISTANCE, ROOT];
/// Cells of a type below which a data set leaves it out: one cell has no neighbours of its type.
const FEWEST: usize = 2;
/// The same as the worker takes it.
const FEWEST_TEXT: &str = "2";
/// Cells of a type in the query below which it is not left out of a tree.
const FEWEST_LEFT_OUT: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let labels = [("B-a", "B", "a"), ("B-b", "B", "b"), ("T-a", "T", "a"), ("cd4-b", "T", "b")];
        let map = |at: fn(&(&str, &str, &str)) -> String| labels.iter().map(|l| (l.0.to_owned(), at(l))).collect();
        Known { type_of: map(|l| l.1.to_owned()), part_of: map(|l| l.2.to_owned()) }
    }

    #[test]
    fn pairs_on_one_node_and_on_one_path_are_told_apart() {
        let written = r#"{"name": ["root"], "children": [{"name": ["B-a", "B-b"], "children": []},
            {"name": ["T-a"], "children": [{"name": ["cd4-b"], "children": []}]}]}"#;
        let tree: Tree = serde_json::from_str(written).unwrap();
        let found: BTreeMap<&str, f64> = known().matches(&tree, 0).into_iter().collect();
        let expected = [("match_recall", 0.5), ("match_precision", 1.0), ("path_recall", 1.0), ("path_precision", 1.0)];
        expected.iter().for_each(|(name, value)| assert_eq!(found[name], *value, "{name}"));
        let why = |node: &str, label: &str| Why::of(&tree, &known().type_of, node, label);
        assert_eq!([why("B-a", "B"), why("root", "B"), why("T-a", "B")], [Why::Right, Why::Rejected, Why::Wrong]);
        let fine = BTreeMap::from([("cd4-b".to_owned(), "CD4".to_owned())]);
        assert_eq!(Why::of(&tree, &fine, "T-a", "CD4"), Why::Coarser);
    }
}
