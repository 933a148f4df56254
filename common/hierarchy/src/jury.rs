//! Where cells belong in a tree when several data sets judge them, each by its own types and knowing no others.
//!
//! A data set's judgement of a cell is one of its types or none. Each type lies on a node, and only those that have a type at
//! a node or below can tell whether a cell belongs there: of them, how many say so is the cell's share at the node.

use std::collections::{BTreeMap, BTreeSet};

use crate::table::CountTable;
use crate::tree::Tree;

/// The data sets that judge, with the nodes on which their types lie.
#[derive(Debug, Clone)]
pub struct Jury<'a> {
    /// Names of the nodes in preorder, the root first.
    names: Vec<&'a str>,
    parents: Vec<Option<usize>>,
    /// Node of each label but the root's.
    node_of: BTreeMap<&'a str, usize>,
    /// How many data sets have a type at a node or below.
    n_knowing: Vec<u64>,
}

impl<'a> Jury<'a> {
    /// A jury of data sets with these types. A type that is not in the tree says nothing.
    pub fn new<'t>(tree: &'a Tree, types: impl Iterator<Item = &'t BTreeSet<String>>) -> Self {
        let paths = tree.root.paths();
        let number_of: BTreeMap<&[usize], usize> = paths.iter().map(Vec::as_slice).zip(0..).collect();
        let (mut names, mut parents, mut node_of) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (number, path) in paths.iter().enumerate() {
            let node = tree.root.at(path);
            names.push(node.name());
            parents.push(path.split_last().map(|(_, above)| number_of[above]));
            for label in node.names().iter().filter(|_| number > 0) {
                node_of.entry(label.as_str()).or_insert(number);
            }
        }
        let mut jury = Self { n_knowing: vec![0; names.len()], names, parents, node_of };
        for types in types {
            let known: BTreeSet<usize> = types.iter().flat_map(|label| jury.path_of(label)).collect();
            known.into_iter().for_each(|node| jury.n_knowing[node] += 1);
        }
        jury
    }

    /// Where the cells of each row go, given one table from each data set: own label by the type that it gives them. The
    /// cells at a node and below are the mean over the data sets that have a type there, in whole cells; what no
    /// child gets stays at its parent.
    pub fn table(&self, judgements: &[CountTable]) -> CountTable {
        let mut placed = CountTable::default();
        let rows: BTreeSet<&str> = judgements.iter().flat_map(CountTable::rows).collect();
        for row in rows {
            let (mut votes, mut n_cells) = (vec![0; self.names.len()], 0);
            for table in judgements {
                let mut of_row = 0;
                for column in table.columns() {
                    let count = table.count(row, column);
                    of_row += count;
                    self.path_of(column).for_each(|node| votes[node] += count);
                }
                n_cells = n_cells.max(of_row);
            }
            for (name, count) in self.names.iter().zip(self.shared_out(&votes, n_cells)) {
                placed.put(row, name, count);
            }
        }
        placed
    }

    /// Cells that go to each node, of so many.
    fn shared_out(&self, votes: &[u64], n_cells: u64) -> Vec<u64> {
        let mut below = vec![0; self.names.len()];
        let mut at = vec![0; self.names.len()];
        // In preorder children come behind their parents.
        for node in (1..self.names.len()).rev() {
            let mean = votes[node].checked_div(self.n_knowing[node]).unwrap_or(0);
            let held = mean.max(below[node]);
            at[node] = held - below[node];
            if let Some(parent) = self.parents[node] {
                below[parent] += held;
            }
        }
        at[0] = n_cells.saturating_sub(below[0]);
        at
    }

    /// The node at which one cell ends, and the share of the last step: down to the child with the largest share, as long as
    /// that is more than half. One judgement from each data set.
    pub fn place(&self, judgements: &[Option<&str>]) -> (&'a str, f64) {
        let mut votes = vec![0u64; self.names.len()];
        for label in judgements.iter().flatten() {
            self.path_of(label).for_each(|node| votes[node] += 1);
        }
        let (mut node, mut share) = (0, 0.0);
        loop {
            let children = (node + 1..self.names.len()).filter(|&child| self.parents[child] == Some(node));
            // Of equal shares the first child's counts.
            let best = children.reduce(|best, child| {
                let is_more = votes[child] * self.n_knowing[best] > votes[best] * self.n_knowing[child];
                if is_more { child } else { best }
            });
            match best.filter(|&child| 2 * votes[child] > self.n_knowing[child]) {
                None => return (self.names[node], share),
                Some(child) => (node, share) = (child, votes[child] as f64 / self.n_knowing[child] as f64),
            }
        }
    }

    /// Nodes from that of a label up to, and without, the root; none for a label that the tree has not.
    fn path_of(&self, label: &str) -> impl Iterator<Item = usize> + use<'_, 'a> {
        let mut next = self.node_of.get(label).copied();
        std::iter::from_fn(move || {
            let node = next?;
            next = self.parents[node].filter(|&parent| parent > 0);
            Some(node)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ROOT;

    fn types(labels: &[&str]) -> BTreeSet<String> {
        labels.iter().map(|&label| label.to_owned()).collect()
    }

    fn counts(cells: &[(&str, &str, usize)]) -> CountTable {
        CountTable::of_cells(cells.iter().flat_map(|&(row, column, n)| std::iter::repeat_n((row, column), n)))
    }

    fn tree() -> Tree {
        let written = r#"{"name": ["root"], "children": [{"name": ["B", "b"], "children": []}, {"name": ["T"], "children":
            [{"name": ["cd4"], "children": []}, {"name": ["cd8"], "children": []}]}]}"#;
        serde_json::from_str(written).unwrap()
    }

    /// One data set knows B and T, the other b, cd4 and cd8.
    fn check(first: &[(&str, usize)], second: &[(&str, usize)], expected: &[(&str, u64)]) {
        let tree = tree();
        let known = [types(&["B", "T"]), types(&["b", "cd4", "cd8"])];
        let of =
            |given: &[(&str, usize)]| counts(&given.iter().map(|&(column, n)| ("new", column, n)).collect::<Vec<_>>());
        let placed = Jury::new(&tree, known.iter()).table(&[of(first), of(second)]);
        let found: Vec<(&str, u64)> =
            placed.columns().into_iter().map(|column| (column, placed.count("new", column))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn cells_go_where_those_who_know_a_type_there_put_them() {
        check(&[("B", 100)], &[("b", 100)], &[("B", 100)]);
        check(&[("B", 100)], &[("b", 91), (ROOT, 9)], &[("B", 95), (ROOT, 5)]);
        // Deeper where somebody sees deeper, and no cell twice.
        check(&[("T", 100)], &[("cd4", 60), ("cd8", 40)], &[("cd4", 60), ("cd8", 40)]);
        check(&[("T", 100)], &[("cd4", 60), (ROOT, 40)], &[("T", 20), ("cd4", 60), (ROOT, 20)]);
        check(&[("T", 100)], &[(ROOT, 100)], &[("T", 50), (ROOT, 50)]);
        check(&[(ROOT, 100)], &[(ROOT, 100)], &[(ROOT, 100)]);
    }

    #[test]
    fn the_order_of_the_jury_does_not_matter() {
        let tree = tree();
        let known = [types(&["B", "T"]), types(&["b", "cd4", "cd8"])];
        let said = [counts(&[("x", "T", 30), ("y", "B", 5)]), counts(&[("x", "cd4", 21), ("x", ROOT, 9)])];
        let one = Jury::new(&tree, known.iter()).table(&said);
        let other = Jury::new(&tree, known.iter().rev()).table(&[said[1].clone(), said[0].clone()]);
        assert_eq!(one, other);
    }

    #[test]
    fn a_cell_goes_down_while_more_than_half_of_those_who_know_agree() {
        let tree = tree();
        let known = [types(&["B", "T"]), types(&["b", "cd4", "cd8"])];
        let jury = Jury::new(&tree, known.iter());
        assert_eq!(jury.place(&[Some("B"), Some("b")]), ("B", 1.0));
        assert_eq!(jury.place(&[Some("T"), Some("cd8")]), ("cd8", 1.0));
        assert_eq!(jury.place(&[Some("T"), None]), (ROOT, 0.0));
        assert_eq!(jury.place(&[Some("B"), Some("cd4")]), (ROOT, 0.0));
        assert_eq!(jury.place(&[Some("nobody's"), None]), (ROOT, 0.0));
        let alone = Jury::new(&tree, known[..1].iter());
        assert_eq!(alone.place(&[Some("T")]), ("T", 1.0));
    }
}
