//! What a scan of marks does to the tree: match, split, merge, add.

use std::collections::BTreeMap;

use crate::join::{Rules, Status};
use crate::tree::{Node, Tree};

/// A tree that a data set is joining, and what has become of its labels so far.
pub(crate) struct Change<'a> {
    pub(crate) tree: &'a mut Tree,
    pub(crate) statuses: &'a mut BTreeMap<String, Status>,
    pub(crate) rules: Rules,
}

impl Change<'_> {
    /// Adds a label right below the root: a population that the tree did not know.
    pub(crate) fn add_population(&mut self, label: &str) {
        self.tree.root.children.push(Node::leaf(label));
        self.has_joined(label);
    }

    /// Gives the last node that carries `known` another name.
    pub(crate) fn match_label(&mut self, label: &str, known: &str) {
        let paths = self.tree.root.paths();
        let Some(path) = paths.iter().rev().find(|path| self.tree.root.at(path).carries(known)) else { return };
        let node = self.tree.root.at_mut(path);
        let status = Status { has_joined: true, matched: Some(node.name().to_owned()) };
        node.names.push(label.to_owned());
        self.statuses.insert(label.to_owned(), status);
    }

    /// Adds labels below the node `known`.
    pub(crate) fn split(&mut self, known: &str, labels: &[&str]) {
        let Some(path) = self.tree.root.find(|node| node.name() == known) else { return };
        for label in labels {
            self.tree.root.at_mut(&path).children.push(Node::leaf(*label));
            self.has_joined(label);
        }
    }

    /// Puts a label above nodes of the tree; whether it could be done.
    pub(crate) fn merge(&mut self, known: &[&str], label: &str) -> bool {
        if self.moves_below_itself(known, label) {
            return true;
        }
        let mut known = known.to_vec();
        if known.contains(&self.tree.root.name()) {
            let root = self.tree.root.name().to_owned();
            known.retain(|&name| name != root);
            if !self.is_of_joining(&self.tree.root.children) {
                self.tree.root.gather(Node::leaf(label), |child| child.holds(&known));
                return true;
            }
            if let [only] = known[..] {
                self.match_label(label, only);
                return true;
            }
        }
        let first = self.tree.root.preorder().find(|node| known.contains(&node.name()));
        let Some(first) = first else { return false };
        let n_held = first.preorder().filter(|node| known.contains(&node.name())).count();
        if n_held == known.len() {
            let name = first.name().to_owned();
            if first.preorder().count() == n_held {
                self.match_label(label, &name);
                return true;
            }
            known.retain(|&kept| kept != name);
        }
        self.merge_below_ancestor(&known, label)
    }

    /// Where the label is a node already: its siblings that hold one of the names move below it.
    fn moves_below_itself(&mut self, known: &[&str], label: &str) -> bool {
        let Some(path) = self.tree.root.find(|node| node.name() == label) else { return false };
        let Some((_, parent)) = path.split_last() else { return false };
        let parent = self.tree.root.at_mut(parent);
        let siblings = std::mem::take(&mut parent.children).into_iter();
        let (moved, kept): (Vec<_>, Vec<_>) =
            siblings.partition(|node: &Node| node.name() != label && node.holds(known));
        parent.children = kept;
        if let Some(node) = parent.children.iter_mut().find(|node| node.name() == label) {
            node.children.extend(moved);
        }
        true
    }

    fn merge_below_ancestor(&mut self, known: &[&str], label: &str) -> bool {
        let Some(path) = self.common_ancestor(known) else {
            // Upstream inserts nothing, says that it has, and loses the label.
            return self.rules == Rules::Upstream;
        };
        let ancestor = self.tree.root.at(&path);
        let holding: Vec<&Node> = ancestor.children.iter().filter(|child| child.holds(known)).collect();
        if holding.iter().any(|child| self.is_of_joining(std::slice::from_ref(*child))) {
            return false;
        }
        if ancestor.children.iter().all(|child| known.contains(&child.name())) {
            let name = ancestor.name().to_owned();
            self.match_label(label, &name);
            return true;
        }
        self.tree.root.at_mut(&path).gather(Node::leaf(label), |child| child.holds(known));
        true
    }

    /// The deepest node above all of several; none for a single one.
    fn common_ancestor(&self, known: &[&str]) -> Option<Vec<usize>> {
        let paths: Vec<Vec<usize>> = self.tree.root.paths();
        let mut found = paths.into_iter().filter(|path| known.contains(&self.tree.root.at(path).name()));
        let first = found.next()?;
        let rest: Vec<Vec<usize>> = found.collect();
        if rest.is_empty() {
            return None;
        }
        let above = |path: &[usize]| path.len().checked_sub(1);
        let mut depth = above(&first)?;
        for path in &rest {
            let shared = first.iter().zip(path).take_while(|(a, b)| a == b).count();
            depth = depth.min(shared).min(above(path)?);
        }
        Some(first[..depth].to_vec())
    }

    /// Whether some node among these or below has the name of a label that is joining.
    fn is_of_joining(&self, nodes: &[Node]) -> bool {
        nodes.iter().flat_map(Node::preorder).any(|node| self.statuses.contains_key(node.name()))
    }

    pub(crate) fn has_joined(&mut self, label: &str) {
        self.statuses.entry(label.to_owned()).or_default().has_joined = true;
    }
}
