//! Changes by hand.

use crate::tree::{Node, Tree, check_label, listed};
use crate::{HierarchyError, ROOT, Result};

impl Tree {
    /// Adds a leaf as the last child of `parent`, and puts those children of `parent` below it that are listed.
    ///
    /// # Errors   an unknown parent, a name that is in the tree, a listed node that is no child; the tree stays as it was
    pub fn add_node(&mut self, name: &str, parent: &str, children: &[String]) -> Result<()> {
        check_label(name)?;
        self.check_new(name)?;
        let path = self.path_of(parent)?;
        let node = self.root.at_mut(&path);
        if let Some(child) = children.iter().find(|child| !node.children.iter().any(|known| known.carries(child))) {
            return Err(HierarchyError::NotAChild { child: child.clone(), parent: parent.to_owned() });
        }
        node.gather(Node::leaf(name), |child| children.iter().any(|name| child.carries(name)));
        Ok(())
    }

    /// Gives a node one new name instead of all that it has.
    ///
    /// # Errors   an unknown node, the root, a new name that another node has; the tree stays as it was
    pub fn rename_node(&mut self, name: &str, new: &str) -> Result<()> {
        check_label(new)?;
        let path = self.path_of(name)?;
        if path.is_empty() {
            return Err(HierarchyError::Root { change: "renamed" });
        }
        if !self.root.at(&path).carries(new) {
            self.check_new(new)?;
        }
        self.root.at_mut(&path).names = vec![new.to_owned()];
        Ok(())
    }

    /// Removes a node and all below it.
    ///
    /// # Errors   an unknown node, the root; the tree stays as it was
    pub fn remove_node(&mut self, name: &str) -> Result<()> {
        self.take(name).map(|_| ())
    }

    /// Removes a node; its children become the last children of its parent.
    ///
    /// # Errors   as [`Self::remove_node`]
    pub fn remove_node_only(&mut self, name: &str) -> Result<()> {
        let (parent, node) = self.take(name)?;
        self.root.at_mut(&parent).children.extend(node.children);
        Ok(())
    }

    /// Takes a node out; the path of its parent, and the node.
    fn take(&mut self, name: &str) -> Result<(Vec<usize>, Node)> {
        let path = self.path_of(name)?;
        let Some((&child, parent)) = path.split_last() else {
            return Err(HierarchyError::Root { change: "removed" });
        };
        let node = self.root.at_mut(parent).children.remove(child);
        Ok((parent.to_vec(), node))
    }

    fn path_of(&self, name: &str) -> Result<Vec<usize>> {
        let path = if name == ROOT { Some(Vec::new()) } else { self.root.find(|node| node.carries(name)) };
        path.ok_or_else(|| HierarchyError::UnknownNode { name: name.to_owned(), known: self.listed() })
    }

    fn check_new(&self, name: &str) -> Result<()> {
        match self.node(name) {
            Some(_) => Err(HierarchyError::RepeatedLabel { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// Checks that every label of some cells is in the tree.
    ///
    /// # Errors   the first that is not
    pub fn check_labels<'a>(&self, labels: impl Iterator<Item = &'a str>) -> Result<()> {
        for label in labels {
            if self.node(label).is_none() {
                let known = listed(self.labels().into_iter());
                return Err(HierarchyError::UnknownNode { name: label.to_owned(), known });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Names;

    #[test]
    fn an_edit_that_cannot_be_made_changes_nothing() {
        let mut tree = Tree::from_newick("((CD4,CD8)T,B)root").unwrap();
        let before = tree.clone();
        let check = |error: Result<()>, word: &str| {
            let text = error.unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        };
        check(tree.add_node("X", "nowhere", &[]), "no node `nowhere`");
        check(tree.add_node("X", "root", &["CD4".into()]), "`CD4` is not a child of `root`");
        check(tree.add_node("B", "T", &[]), "`B` is listed twice");
        check(tree.rename_node("root", "all"), "the root of the tree cannot be renamed");
        check(tree.rename_node("T", "B"), "`B` is listed twice");
        check(tree.remove_node("root"), "the root of the tree cannot be removed");
        check(tree.remove_node("NK"), "no node `NK`");
        assert_eq!(tree, before);
        tree.rename_node("T", "T").unwrap();
        assert_eq!(tree.newick(Names::First), "((CD4,CD8)T,B)root");
    }
}
