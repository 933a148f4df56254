//! A look at one object of a pickle, with the shapes in which Python writes the same thing.

use std::fmt;

use super::{
    NdArray, Pickle,
    graph::{self, Id, Node},
};

/// One object of a pickle.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    pickle: &'a Pickle,
    id: Id,
}

/// A class or function applied to arguments. It was never run; the reader gives it a meaning.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Module and name.
    pub class: &'a str,
    /// Its positional arguments.
    pub arguments: Vec<Value<'a>>,
    /// What its `__setstate__` would get.
    pub state: Option<Value<'a>>,
}

/// A plain value, of the type it was saved with: a category, an option.
#[derive(Clone, PartialEq, Debug)]
pub enum Scalar {
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// Text.
    Text(String),
}

impl<'a> Value<'a> {
    pub(super) fn new(pickle: &'a Pickle, id: Id) -> Self {
        Self { pickle, id }
    }

    /// What the object is called in messages.
    pub fn kind(self) -> &'a str {
        graph::kind(&self.pickle.nodes, self.id)
    }

    /// Whether it is `None`.
    pub fn is_none(self) -> bool {
        matches!(self.node(), Node::None)
    }

    /// Text.
    pub fn as_str(self) -> Option<&'a str> {
        match self.node() {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer, plain or a numpy scalar.
    pub fn as_int(self) -> Option<i64> {
        match self.scalar()? {
            Scalar::Int(value) => Some(value),
            _ => None,
        }
    }

    /// A truth value, plain or a numpy scalar.
    pub fn as_bool(self) -> Option<bool> {
        match self.scalar()? {
            Scalar::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// A plain value, or the numpy scalar that stands for one.
    pub fn scalar(self) -> Option<Scalar> {
        match self.node() {
            Node::Bool(value) => Some(Scalar::Bool(*value)),
            Node::Int(value) => Some(Scalar::Int(*value)),
            Node::Float(value) => Some(Scalar::Float(*value)),
            Node::Text(text) => Some(Scalar::Text(text.clone())),
            Node::Call(_) => super::numpy::scalar(self),
            _ => None,
        }
    }

    /// The plain values of a list, a tuple or a one-dimensional array.
    pub fn scalars(self) -> Option<Vec<Scalar>> {
        match NdArray::of(self) {
            Some(array) if array.shape.len() == 1 => array.scalars(),
            Some(_) => None,
            None => self.items()?.into_iter().map(Self::scalar).collect(),
        }
    }

    /// The texts of a list, a tuple or a one-dimensional array.
    pub fn texts(self) -> Option<Vec<String>> {
        let text = |scalar| match scalar {
            Scalar::Text(text) => Some(text),
            _ => None,
        };
        self.scalars()?.into_iter().map(text).collect()
    }

    /// The items of a list or a tuple.
    pub fn items(self) -> Option<Vec<Self>> {
        match self.node() {
            Node::List(items) | Node::Tuple(items) => Some(self.all(items)),
            _ => None,
        }
    }

    /// The entries of a dict, an ordered dict or a dict with a default, in the order they were set.
    pub fn entries(self) -> Option<Vec<(Self, Self)>> {
        let pairs = |entries: &[(Id, Id)]| entries.iter().map(|&(key, value)| (self.at(key), self.at(value))).collect();
        match self.node() {
            Node::Dict(entries) => Some(pairs(entries)),
            Node::Call(call) => match self.at(call.class).kind() {
                "collections.OrderedDict" | "collections.defaultdict" | "builtins.dict" | "__builtin__.dict" => {
                    Some(pairs(&call.entries))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of a dict under a text key. Python keeps the entry that was set last.
    pub fn get(self, key: &str) -> Option<Self> {
        self.entries()?.into_iter().rev().find(|(k, _)| k.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// Bytes, also in the shapes that protocol 2 has for them: `_codecs.encode(text, "latin1")` and `bytes()`.
    pub fn bytes(self) -> Option<Vec<u8>> {
        if let Node::Bytes(bytes) = self.node() {
            return Some(bytes.clone());
        }
        let call = self.call()?;
        match (call.class, call.arguments.as_slice()) {
            ("builtins.bytes" | "__builtin__.bytes" | "builtins.bytearray" | "__builtin__.bytearray", []) => {
                Some(vec![])
            }
            ("_codecs.encode", [text, encoding]) if encoding.as_str() == Some("latin1") => {
                text.as_str()?.chars().map(|c| u8::try_from(c).ok()).collect()
            }
            _ => None,
        }
    }

    /// A call.
    pub fn call(self) -> Option<Call<'a>> {
        let Node::Call(call) = self.node() else { return None };
        let Node::Tuple(arguments) = &self.pickle.nodes[call.arguments] else { return None };
        Some(Call {
            class: self.at(call.class).kind(),
            arguments: self.all(arguments),
            state: call.state.map(|id| self.at(id)),
        })
    }

    /// The name of a class.
    pub fn class(self) -> Option<&'a str> {
        match self.node() {
            Node::Class(name) => Some(name),
            _ => None,
        }
    }

    /// What a reference out of the pickle says.
    pub fn persistent(self) -> Option<Self> {
        match self.node() {
            Node::Persistent(id) => Some(self.at(*id)),
            _ => None,
        }
    }

    fn node(self) -> &'a Node {
        &self.pickle.nodes[self.id]
    }

    fn at(self, id: Id) -> Self {
        Self { pickle: self.pickle, id }
    }

    fn all(self, ids: &[Id]) -> Vec<Self> {
        ids.iter().map(|&id| self.at(id)).collect()
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => f.write_str(if *value { "True" } else { "False" }),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<&Scalar> for serde_json::Value {
    fn from(scalar: &Scalar) -> Self {
        match scalar {
            Scalar::Bool(value) => (*value).into(),
            Scalar::Int(value) => (*value).into(),
            Scalar::Float(value) => (*value).into(),
            Scalar::Text(text) => text.clone().into(),
        }
    }
}
