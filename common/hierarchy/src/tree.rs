//! A rooted, ordered tree of cell types.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{HierarchyError, RESERVED, ROOT, Result};

/// A cell type with those below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Node {
    /// The name, then labels of later data sets that mean the same; never empty.
    #[serde(rename = "name")]
    pub(crate) names: Vec<String>,
    /// Children, in order.
    pub(crate) children: Vec<Node>,
}

/// A node as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Vec<String>,
    children: Vec<Node>,
}

impl TryFrom<Written> for Node {
    type Error = HierarchyError;

    fn try_from(written: Written) -> Result<Self> {
        if written.name.first().is_none_or(|name| name.is_empty()) {
            return Err(HierarchyError::NoName);
        }
        Ok(Self { names: written.name, children: written.children })
    }
}

impl Node {
    /// A leaf.
    pub fn leaf(name: impl Into<String>) -> Self {
        Self { names: vec![name.into()], children: Vec::new() }
    }

    /// A node above others.
    pub fn above(name: impl Into<String>, children: Vec<Self>) -> Self {
        Self { names: vec![name.into()], children }
    }

    /// A node with all its names, of which the first is *the* name. Panics without one: that is the caller's bug.
    pub fn named(names: Vec<String>, children: Vec<Self>) -> Self {
        assert!(!names.is_empty(), "a node has a name");
        Self { names, children }
    }

    /// *The* name.
    pub fn name(&self) -> &str {
        &self.names[0]
    }

    /// The name, then the labels matched to it.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Nodes right below, in order.
    pub fn children(&self) -> &[Self] {
        &self.children
    }

    /// Whether nothing is below.
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    /// Whether the node carries a label, as its name or a matched one.
    pub fn carries(&self, label: &str) -> bool {
        self.names.iter().any(|name| name == label)
    }

    /// The node, then those below it, children left to right.
    pub fn preorder(&self) -> impl Iterator<Item = &Self> {
        let mut open = vec![self];
        std::iter::from_fn(move || {
            let node = open.pop()?;
            open.extend(node.children.iter().rev());
            Some(node)
        })
    }

    /// Children before their parent.
    pub fn postorder(&self) -> impl Iterator<Item = &Self> {
        // Preorder with children right to left, read backwards.
        let (mut open, mut order) = (vec![self], Vec::new());
        while let Some(node) = open.pop() {
            order.push(node);
            open.extend(&node.children);
        }
        order.into_iter().rev()
    }

    /// Nodes without children, left to right.
    pub fn leaves(&self) -> impl Iterator<Item = &Self> {
        self.preorder().filter(|node| node.is_leaf())
    }

    /// Whether the node or one below has one of these as its name.
    pub(crate) fn holds(&self, names: &[&str]) -> bool {
        self.preorder().any(|node| names.contains(&node.name()))
    }

    /// Puts those children that `moves` chooses below `parent`, which becomes the last child.
    pub(crate) fn gather(&mut self, mut parent: Self, moves: impl Fn(&Self) -> bool) {
        let (moved, mut kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.children).into_iter().partition(moves);
        parent.children.extend(moved);
        kept.push(parent);
        self.children = kept;
    }

    /// The node at the end of a path of child numbers.
    pub(crate) fn at(&self, path: &[usize]) -> &Self {
        path.iter().fold(self, |node, &child| &node.children[child])
    }

    pub(crate) fn at_mut(&mut self, path: &[usize]) -> &mut Self {
        path.iter().fold(self, |node, &child| &mut node.children[child])
    }

    /// Paths of all nodes, in preorder.
    pub(crate) fn paths(&self) -> Vec<Vec<usize>> {
        let (mut open, mut paths) = (vec![Vec::new()], Vec::new());
        while let Some(path) = open.pop() {
            let below = (0..self.at(&path).children.len()).rev().map(|child| [&path[..], &[child]].concat());
            open.extend(below);
            paths.push(path);
        }
        paths
    }

    /// Path of the first node in preorder that is as asked.
    pub(crate) fn find(&self, is_it: impl Fn(&Self) -> bool) -> Option<Vec<usize>> {
        self.paths().into_iter().find(|path| is_it(self.at(path)))
    }
}

/// A tree of cell types under a root that is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tree {
    pub(crate) root: Node,
}

impl Tree {
    /// A tree with this node as its root.
    pub fn new(root: Node) -> Self {
        Self { root }
    }

    /// The tree of one data set: its labels, sorted, right below the root.
    ///
    /// # Errors   no label, a label twice, a reserved name
    pub fn flat<S: AsRef<str>>(labels: &[S]) -> Result<Self> {
        let mut sorted: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(HierarchyError::RepeatedLabel { name: pair[0].to_owned() });
        }
        sorted.iter().try_for_each(|label| check_label(label))?;
        Ok(Self { root: Node::above(ROOT, sorted.into_iter().map(Node::leaf).collect()) })
    }

    /// Where the tree begins.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// The node that carries a label.
    pub fn node(&self, label: &str) -> Option<&Node> {
        self.root.preorder().find(|node| node.carries(label))
    }

    /// All labels of the tree but the root's, in preorder.
    pub fn labels(&self) -> Vec<&str> {
        self.root.preorder().skip(1).flat_map(|node| node.names.iter().map(String::as_str)).collect()
    }

    /// Names in words, for messages.
    pub(crate) fn listed(&self) -> String {
        listed(self.root.preorder().map(Node::name))
    }

    /// One line per node in preorder, indented by depth, all names of a node joined with ` & `; nodes with a name in
    /// `new` between stars.
    pub fn text(&self, new: &BTreeSet<&str>) -> String {
        let lines = self.root.paths().into_iter().map(|path| {
            let node = self.root.at(&path);
            let names = node.names.join(" & ");
            let is_new = node.names.iter().any(|name| new.contains(name.as_str()));
            let names = if is_new { format!("*{names}*") } else { names };
            format!("{}{names}\n", "  ".repeat(path.len()))
        });
        lines.collect()
    }
}

pub(crate) fn check_label(label: &str) -> Result<()> {
    if label.is_empty() {
        return Err(HierarchyError::NoName);
    }
    match RESERVED.contains(&label) {
        true => Err(HierarchyError::Reserved { name: label.to_owned() }),
        false => Ok(()),
    }
}

/// The first names of many, in words.
pub(crate) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.len() {
        0..=MOST_LISTED => names.join(", "),
        n => format!("{} and {} others", names[..MOST_LISTED].join(", "), n - MOST_LISTED),
    }
}

const MOST_LISTED: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_tree_is_sorted_by_code_point_and_refuses_what_means_something_else() {
        let tree = Tree::flat(&["b", "B", "a"]).unwrap();
        assert_eq!(tree.labels(), ["B", "a", "b"]);
        assert_eq!(Tree::flat(&["a", "a"]), Err(HierarchyError::RepeatedLabel { name: "a".into() }));
        assert_eq!(Tree::flat(&["root"]), Err(HierarchyError::Reserved { name: "root".into() }));
    }

    #[test]
    fn new_names_stand_between_stars() {
        let mut tree = Tree::flat(&["B", "T"]).unwrap();
        tree.root.children[0].names.push("B-north".into());
        assert_eq!(tree.text(&BTreeSet::from(["B-north"])), "root\n  *B & B-north*\n  T\n");
    }

    #[test]
    fn a_written_node_needs_a_name() {
        let read = serde_json::from_str::<Tree>(r#"{"name": [], "children": []}"#);
        assert!(read.unwrap_err().to_string().contains("no name"));
    }
}
