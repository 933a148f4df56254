//! Trees as text: `((CD4,CD8)T,B)root`.

use crate::tree::{Node, Tree};
use crate::{HierarchyError, Result};

/// Which names of a node are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// *The* name.
    First,
    /// All, joined with `|`.
    All,
}

impl Tree {
    /// Reads one tree. Names are trimmed, a `:length` is dropped, spaces inside names are kept; a name between single
    /// quotes may hold anything, a quote twice.
    ///
    /// # Errors   [`HierarchyError::Newick`] with the letter at fault
    pub fn from_newick(text: &str) -> Result<Self> {
        let mut trees = Self::all_from_newick(text)?.into_iter();
        let first = trees.next().ok_or_else(|| Reader::new(text).fault("there is no tree"))?;
        match trees.next() {
            None => Ok(first),
            Some(_) => Err(Reader::new(text).fault("there is more than one tree")),
        }
    }

    /// Reads trees that end in `;`.
    ///
    /// # Errors   [`HierarchyError::Newick`]
    pub fn all_from_newick(text: &str) -> Result<Vec<Self>> {
        let (mut reader, mut trees) = (Reader::new(text), Vec::new());
        loop {
            while reader.next_is(';') {
                reader.at += 1;
            }
            if reader.is_done() {
                return Ok(trees);
            }
            trees.push(Self::new(reader.node(0)?));
            if !reader.is_done() && !reader.next_is(';') {
                let reason = match reader.peek() {
                    Some(')') => "a bracket is closed that was not opened",
                    Some(',') => "a comma outside all brackets",
                    _ => "expected the end of the tree",
                };
                return Err(reader.fault(reason));
            }
        }
    }

    /// The tree as text, without a semicolon.
    pub fn newick(&self, names: Names) -> String {
        let mut text = String::new();
        write(&self.root, names, &mut text);
        text
    }
}

fn write(node: &Node, names: Names, text: &mut String) {
    if !node.is_leaf() {
        text.push('(');
        for (i, child) in node.children.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            write(child, names, text);
        }
        text.push(')');
    }
    let name = match names {
        Names::First => node.name().to_owned(),
        Names::All => node.names.join("|"),
    };
    let is_plain = !name.contains(SPECIAL) && name.trim() == name && !name.starts_with('\'');
    text.push_str(&if is_plain { name } else { format!("'{}'", name.replace('\'', "''")) });
}

struct Reader<'a> {
    text: &'a str,
    letters: Vec<char>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, letters: text.chars().collect(), at: 0 }
    }

    fn node(&mut self, depth: usize) -> Result<Node> {
        if depth > DEEPEST {
            return Err(self.fault("the tree is too deep"));
        }
        let mut children = Vec::new();
        if self.next_is('(') {
            let opened = self.at;
            loop {
                self.at += 1;
                children.push(self.node(depth + 1)?);
                if self.next_is(')') {
                    self.at += 1;
                    break;
                }
                if !self.next_is(',') {
                    self.at = opened;
                    return Err(self.fault("a bracket is opened and not closed"));
                }
            }
        }
        if depth == 0 && self.next_is(')') {
            return Err(self.fault("a bracket is closed that was not opened"));
        }
        let name = self.name()?;
        if self.next_is(':') {
            while !self.is_done() && !matches!(self.letters[self.at], ',' | ')' | ';') {
                self.at += 1;
            }
        }
        Ok(Node::above(name, children))
    }

    fn name(&mut self) -> Result<String> {
        let mut name = String::new();
        if self.next_is('\'') {
            let opened = self.at;
            loop {
                self.at += 1;
                match (self.letters.get(self.at), self.letters.get(self.at + 1)) {
                    (Some('\''), Some('\'')) => self.at += 1,
                    (Some('\''), _) => break,
                    (Some(_), _) => {}
                    (None, _) => {
                        self.at = opened;
                        return Err(self.fault("a quote is opened and not closed"));
                    }
                }
                name.push(self.letters[self.at]);
            }
            self.at += 1;
        } else {
            while let Some(&letter) = self.letters.get(self.at).filter(|letter| !SPECIAL.contains(letter)) {
                name.push(letter);
                self.at += 1;
            }
            name = name.trim().to_owned();
        }
        if name.is_empty() { Err(self.fault("a node has no name")) } else { Ok(name) }
    }

    /// The next letter that is no space.
    fn peek(&mut self) -> Option<char> {
        while self.letters.get(self.at).is_some_and(|letter| letter.is_whitespace()) {
            self.at += 1;
        }
        self.letters.get(self.at).copied()
    }

    fn next_is(&mut self, letter: char) -> bool {
        self.peek() == Some(letter)
    }

    fn is_done(&mut self) -> bool {
        self.at >= self.letters.len() || self.peek().is_none()
    }

    fn fault(&self, reason: &'static str) -> HierarchyError {
        let shown: String = self.text.trim().chars().take(MOST_SHOWN).collect();
        HierarchyError::Newick { text: shown, at: self.at + 1, reason }
    }
}

/// Letters that a name without quotes cannot have.
const SPECIAL: [char; 5] = ['(', ')', ',', ':', ';'];
const MOST_SHOWN: usize = 60;
/// Nested brackets recurse.
const DEEPEST: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tree_is_read_back() {
        for text in ["leaf", "((a,b)c,d)root", "('x, (y)',z 1)root", "('''5'' end')'r:1'", "(5' end,b)root"] {
            assert_eq!(Tree::from_newick(text).unwrap().newick(Names::First), text);
        }
        assert_eq!(Tree::all_from_newick("a;(b:1)c;").unwrap().len(), 2);
    }

    #[test]
    fn a_tree_that_cannot_be_read_says_where() {
        let check = |text: &str, at: usize, word: &str| {
            let error = Tree::from_newick(text).unwrap_err().to_string();
            assert!(error.contains(&format!("letter {at} ")) && error.contains(word), "{text}: {error}");
        };
        check("((a,b)c,d", 1, "not closed");
        check("(a,(b,c)root", 1, "not closed");
        check("(a,b))root", 6, "not opened");
        check("(a,,b)root", 4, "no name");
        check("a,b", 2, "comma");
        check("('a)root", 2, "quote");
        check(" ", 1, "no tree");
        check("a;b", 1, "more than one");
        check(&"(".repeat(1000), 202, "too deep");
    }
}
