//! The objects of a pickle and who refers to whom.

use super::Value;

/// A parsed pickle.
#[derive(Debug)]
pub struct Pickle {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
}

impl Pickle {
    /// The pickled object.
    pub fn root(&self) -> Value<'_> {
        Value::new(self, self.root)
    }
}

/// Position of an object in [`Pickle::nodes`].
pub(super) type Id = usize;

/// One object.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    /// Keys and values in the order they were set.
    Dict(Vec<(Id, Id)>),
    /// A class or function by module and name.
    Class(String),
    Call(Box<CallNode>),
    /// A reference that only the archive around the pickle can resolve: a tensor's storage.
    Persistent(Id),
}

/// A class or function applied to arguments, and what was done to the result.
#[derive(Debug)]
pub(super) struct CallNode {
    /// A [`Node::Class`]. Shared rather than copied, as the arguments: a few bytes may call with the same long tuple
    /// again and again.
    pub(super) class: Id,
    /// A [`Node::Tuple`].
    pub(super) arguments: Id,
    /// What `__setstate__` would get.
    pub(super) state: Option<Id>,
    /// Entries that were set, for dictionaries.
    pub(super) entries: Vec<(Id, Id)>,
    /// Items that were appended, for lists.
    pub(super) items: Vec<Id>,
}

/// What an object is called in messages.
pub(super) fn kind(nodes: &[Node], id: Id) -> &str {
    match &nodes[id] {
        Node::None => "None",
        Node::Bool(_) => "a truth value",
        Node::Int(_) => "an integer",
        Node::Float(_) => "a float",
        Node::Text(_) => "text",
        Node::Bytes(_) => "bytes",
        Node::List(_) => "a list",
        Node::Tuple(_) => "a tuple",
        Node::Set(_) => "a set",
        Node::Dict(_) => "a dict",
        Node::Class(name) => name,
        Node::Call(call) => kind(nodes, call.class),
        Node::Persistent(_) => "a reference to a storage",
    }
}
