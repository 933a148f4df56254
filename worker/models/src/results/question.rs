//! Questions that one model answers and others do not, such as imputed features, scores of terms or embeddings of conditions.
//!
//! A model lists a [`QuestionCard`] and its module answers; the command line makes a command of the card.

use std::collections::BTreeMap;

use ndarray::Array2;

use crate::error::{Error, Result};

/// A question, as a person reads about it. Its answer is [`Module::answer`](crate::model::Module::answer)'s.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct QuestionCard {
    /// Its name, as a command.
    pub name: &'static str,
    /// What it asks for: a line, and more after an empty one.
    pub help: &'static str,
    /// Commands that ask it, without the program's name.
    pub examples: &'static [&'static str],
    /// Whether it is asked about cells; otherwise about the reference alone.
    pub is_of_cells: bool,
    /// What it can be told.
    pub arguments: &'static [Argument],
}

/// Something that a question can be told.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Argument {
    /// Its name, in words with underscores between them.
    pub name: &'static str,
    /// What it is.
    pub kind: ArgumentKind,
    /// What it decides.
    pub help: &'static str,
}

/// What an argument is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ArgumentKind {
    /// It is given or not.
    Flag,
    /// A whole number.
    Count {
        /// The number where none is given.
        default: usize,
    },
    /// A number.
    Number {
        /// The number where none is given.
        default: f64,
    },
    /// One of several words, the first where none is given, with what each means.
    Choice(&'static [(&'static str, &'static str)]),
    /// Names, separated by commas.
    Names,
    /// Batches of the reference, separated by commas.
    Conditions,
    /// A column of obs with a text for every cell; must be given. Only of a question about cells.
    Column,
    /// Columns of the cells, separated by commas.
    Columns,
    /// A file.
    File,
}

/// The value of an argument.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Whether a flag is given.
    Flag(bool),
    /// A whole number.
    Count(usize),
    /// A number.
    Number(f64),
    /// A word.
    Choice(String),
    /// Names.
    Names(Vec<String>),
    /// Codes of conditions.
    Conditions(Vec<i64>),
    /// A text for every cell.
    Column(Vec<String>),
    /// Columns by their names, with a text for each cell.
    Columns(Vec<(String, Vec<String>)>),
    /// What a file holds, if one is given.
    File(Option<Vec<u8>>),
}

/// What a question was told: a value for each of its arguments.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Given(BTreeMap<&'static str, Value>);

/// What a question is answered with.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// A row of numbers for every cell.
    Cells {
        /// Names of the columns.
        columns: Vec<String>,
        /// `[n_cells, n_columns]`
        values: Array2<f32>,
    },
    /// A table of anything else.
    Table {
        /// What a row is, such as `term`.
        rows_are: &'static str,
        /// Names of the rows.
        rows: Vec<String>,
        /// Names of the columns.
        columns: Vec<String>,
        /// `[n_rows, n_columns]`
        values: Array2<f32>,
    },
    /// Files by name.
    Files(BTreeMap<String, Vec<u8>>),
    /// One file.
    File(Vec<u8>),
    /// Columns of names and numbers.
    Frame(Frame),
}

/// Columns of names and numbers, of cells or of anything else.
#[derive(Clone, PartialEq, Debug)]
pub struct Frame {
    /// What a row is, and the names of the rows; nothing for cells.
    pub rows: Option<(&'static str, Vec<String>)>,
    /// The columns, in order.
    pub columns: Vec<(String, Column)>,
    /// A matrix beside them, with names of its columns.
    pub values: Option<(Vec<String>, Array2<f32>)>,
    /// Places of the rows, by names that scanpy looks for.
    pub places: Vec<(String, Array2<f32>)>,
}

/// A column of a [`Frame`].
#[derive(Clone, PartialEq, Debug)]
pub enum Column {
    /// Names.
    Names(Vec<String>),
    /// Numbers.
    Numbers(Vec<f32>),
}

impl Frame {
    /// One of cells, without columns yet.
    pub fn of_cells() -> Self {
        Self { rows: None, columns: vec![], values: None, places: vec![] }
    }

    /// One of these rows, without columns yet.
    pub fn of_rows(rows_are: &'static str, rows: Vec<String>) -> Self {
        Self { rows: Some((rows_are, rows)), ..Self::of_cells() }
    }

    /// The same with a matrix beside the columns.
    #[must_use]
    pub fn with_values(self, names: Vec<String>, values: Array2<f32>) -> Self {
        Self { values: Some((names, values)), ..self }
    }
}

impl Argument {
    /// An argument that is given or not.
    pub const fn flag(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: ArgumentKind::Flag, help }
    }

    /// A whole number.
    pub const fn count(name: &'static str, default: usize, help: &'static str) -> Self {
        Self { name, kind: ArgumentKind::Count { default }, help }
    }

    /// A number.
    pub const fn number(name: &'static str, default: f64, help: &'static str) -> Self {
        Self { name, kind: ArgumentKind::Number { default }, help }
    }

    /// One of several words.
    pub const fn choice(
        name: &'static str,
        words: &'static [(&'static str, &'static str)],
        help: &'static str,
    ) -> Self {
        Self { name, kind: ArgumentKind::Choice(words), help }
    }

    /// Names.
    pub const fn names(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: ArgumentKind::Names, help }
    }

    /// Batches of the reference.
    pub const fn conditions(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: ArgumentKind::Conditions, help }
    }

    /// A column of obs.
    pub const fn column(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: ArgumentKind::Column, help }
    }

    /// Columns of the cells.
    pub const fn columns(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: ArgumentKind::Columns, help }
    }

    /// A file.
    pub const fn file(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: ArgumentKind::File, help }
    }
}

impl Given {
    /// What is given for these arguments where nothing is said.
    pub fn defaults(arguments: &[Argument]) -> Self {
        let default = |argument: &Argument| match argument.kind {
            ArgumentKind::Flag => Value::Flag(false),
            ArgumentKind::Count { default } => Value::Count(default),
            ArgumentKind::Number { default } => Value::Number(default),
            ArgumentKind::Choice(words) => Value::Choice(words[0].0.to_owned()),
            ArgumentKind::Names => Value::Names(vec![]),
            ArgumentKind::Conditions => Value::Conditions(vec![]),
            ArgumentKind::Column => Value::Column(vec![]),
            ArgumentKind::Columns => Value::Columns(vec![]),
            ArgumentKind::File => Value::File(None),
        };
        Self(arguments.iter().map(|argument| (argument.name, default(argument))).collect())
    }

    /// The same with one more value.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.0.insert(name, value);
        self
    }

    /// Whether a flag is given.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.value(name), Value::Flag(true))
    }

    /// A whole number.
    pub fn count(&self, name: &str) -> usize {
        match self.value(name) {
            Value::Count(count) => *count,
            other => wrong(name, other),
        }
    }

    /// A number.
    pub fn number(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Number(number) => *number,
            other => wrong(name, other),
        }
    }

    /// A word.
    pub fn choice(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Choice(word) => word,
            other => wrong(name, other),
        }
    }

    /// Names.
    pub fn names(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::Names(names) => names,
            other => wrong(name, other),
        }
    }

    /// Codes of conditions.
    pub fn conditions(&self, name: &str) -> &[i64] {
        match self.value(name) {
            Value::Conditions(codes) => codes,
            other => wrong(name, other),
        }
    }

    /// The text of every cell.
    pub fn column(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::Column(texts) => texts,
            other => wrong(name, other),
        }
    }

    /// Columns of the cells.
    pub fn columns(&self, name: &str) -> &[(String, Vec<String>)] {
        match self.value(name) {
            Value::Columns(columns) => columns,
            other => wrong(name, other),
        }
    }

    /// What a file holds, if one is given.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        match self.value(name) {
            Value::File(bytes) => bytes.as_deref(),
            other => wrong(name, other),
        }
    }

    /// Positions of the names asked for among those there are, all where none is asked for.
    ///
    /// # Errors  [`Error::Argument`] for a name that is not there
    pub fn positions(&self, name: &'static str, known: &[String]) -> Result<Vec<usize>> {
        let asked = self.names(name);
        if asked.is_empty() {
            return Ok((0..known.len()).collect());
        }
        let position = |asked: &String| {
            let (found, expected) = (format!("`{asked}`"), format!("some of {}", known.join(", ")));
            let unknown = || Error::Argument { name, found, expected };
            known.iter().position(|known| known == asked).ok_or_else(unknown)
        };
        asked.iter().map(position).collect()
    }

    fn value(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or_else(|| panic!("the question has no argument `{name}`"))
    }
}

fn wrong(name: &str, value: &Value) -> ! {
    panic!("the argument `{name}` is {value:?}")
}
