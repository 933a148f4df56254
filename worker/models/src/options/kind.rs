//! Which values an option takes, from the type that holds them.

use std::{
    fmt,
    ops::{Bound, Range, RangeBounds as _, RangeFrom, RangeInclusive},
};

use archipelago_common::Name;
use serde::{
    Deserializer,
    de::{DeserializeOwned, Error as _, Visitor, value::Error as Stopped},
    forward_to_deserialize_any,
};
use serde_json::Value;

use super::OptionCard;

/// Which values an option takes.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// A whole number, not negative.
    Integer(Interval),
    /// A number.
    Number(Interval),
    /// True or false.
    Truth,
    /// Any text.
    Text,
    /// One of these names.
    Choice(Vec<&'static str>),
    /// A list of whole numbers.
    Integers(Interval),
    /// A list of numbers.
    Numbers(Interval),
    /// A list, each one of these names.
    Choices(Vec<&'static str>),
    /// A name.
    Name,
    /// A list of names, each once.
    Names,
    /// A list of texts.
    Texts,
    /// Further options, by name.
    Further(Vec<OptionCard>),
}

/// Numbers from one on, to another or below it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interval {
    start: f64,
    end: Bound<f64>,
}

/// A type that an option's value can have.
pub(crate) trait OptionValue {
    /// Whether there may be none.
    const IS_OPTIONAL: bool = false;

    /// Which values it has.
    fn kind() -> Kind;
}

/// An enum whose variants an option chooses from, under the names that serde gives them.
pub(crate) trait Choice: DeserializeOwned {}

impl Kind {
    pub(super) fn within(self, interval: Interval) -> Self {
        match self {
            Self::Integer(_) => Self::Integer(interval),
            Self::Number(_) => Self::Number(interval),
            Self::Integers(_) => Self::Integers(interval),
            Self::Numbers(_) => Self::Numbers(interval),
            other => unreachable!("{other:?} has no interval"),
        }
    }

    pub(super) fn among(self, names: &[&'static str]) -> Self {
        match self {
            Self::Choice(all) if names.iter().all(|name| all.contains(name)) => Self::Choice(names.to_vec()),
            other => unreachable!("{other:?} are not {names:?}"),
        }
    }

    /// Whether this is one of the values.
    pub(super) fn takes(&self, value: &Value) -> bool {
        let integer = |value: &Value, interval: &Interval| value.as_u64().is_some_and(|n| interval.contains(n as f64));
        let number = |value: &Value, interval: &Interval| value.as_f64().is_some_and(|n| interval.contains(n));
        let choice = |value: &Value, names: &[&str]| value.as_str().is_some_and(|name| names.contains(&name));
        let all = |takes: &dyn Fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(takes));
        match self {
            Self::Integer(interval) => integer(value, interval),
            Self::Number(interval) => number(value, interval),
            Self::Truth => value.is_boolean(),
            Self::Text => value.is_string(),
            Self::Name => value.as_str().is_some_and(|text| text.parse::<Name>().is_ok()),
            Self::Choice(names) => choice(value, names),
            Self::Integers(interval) => all(&|item| integer(item, interval)),
            Self::Numbers(interval) => all(&|item| number(item, interval)),
            Self::Choices(names) => all(&|item| choice(item, names)),
            Self::Names => value.as_array().is_some_and(|items| {
                let name = |item: &Value| item.as_str().and_then(|text| text.parse::<Name>().ok());
                let names: Vec<Option<Name>> = items.iter().map(name).collect();
                names.iter().enumerate().all(|(at, name)| name.is_some() && !names[..at].contains(name))
            }),
            Self::Texts => all(&|item| item.is_string()),
            Self::Further(_) => false,
        }
    }

    /// The value that a text stands for; the text itself where it stands for none.
    pub(super) fn read(&self, text: &str) -> Value {
        let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        match self {
            Self::Text | Self::Name | Self::Choice(_) => text.into(),
            Self::Integers(_) | Self::Numbers(_) | Self::Choices(_) | Self::Names | Self::Texts if text.is_empty() => {
                Value::Array(vec![])
            }
            Self::Names | Self::Texts | Self::Choices(_) => {
                text.split(',').map(|item| Value::from(item.trim())).collect()
            }
            Self::Integers(_) | Self::Numbers(_) => text.split(',').map(|item| json(item.trim())).collect(),
            Self::Integer(_) | Self::Number(_) | Self::Truth | Self::Further(_) => json(text),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(interval) => write!(f, "an integer{interval}"),
            Self::Number(interval) => write!(f, "a number{interval}"),
            Self::Truth => f.write_str("true or false"),
            Self::Text => f.write_str("text"),
            Self::Name => f.write_str("a name of a-z, 0-9, `.`, `_` and `-`"),
            Self::Choice(names) => f.write_str(&one_of(names)),
            Self::Choices(names) => write!(f, "{}, several separated by commas", one_of(names)),
            Self::Integers(interval) => write!(f, "integers{interval}, separated by commas"),
            Self::Numbers(interval) => write!(f, "numbers{interval}, separated by commas"),
            Self::Names => f.write_str("names of a-z, 0-9, `.`, `_` and `-`, each once, separated by commas"),
            Self::Texts => f.write_str("texts, separated by commas"),
            Self::Further(cards) => {
                let inner: Vec<String> =
                    cards.iter().map(|card| format!("{} ({})", card.name, card.values())).collect();
                write!(f, "a JSON object with {}", inner.join(", "))
            }
        }
    }
}

/// Names as a choice, in words.
fn one_of(names: &[&str]) -> String {
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "nothing".to_owned(),
    }
}

impl Interval {
    /// All numbers.
    pub const ALL: Self = Self { start: f64::NEG_INFINITY, end: Bound::Unbounded };

    /// Whether a number is one of them.
    pub fn contains(&self, number: f64) -> bool {
        (Bound::Included(self.start), self.end).contains(&number)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.start, self.end) {
            (start, Bound::Included(end)) => write!(f, " from {start} to {end}"),
            (start, Bound::Excluded(end)) => write!(f, " of {start} or more and below {end}"),
            (f64::NEG_INFINITY, Bound::Unbounded) => Ok(()),
            (start, Bound::Unbounded) => write!(f, " of {start} or more"),
        }
    }
}

/// Ranges of numbers as intervals; an integer of an option is far below 2^53. A range of bare literals is one of `i32`.
macro_rules! intervals {
    ($($number:ty)*) => {$(
        impl From<RangeInclusive<$number>> for Interval {
            fn from(range: RangeInclusive<$number>) -> Self {
                Self { start: *range.start() as f64, end: Bound::Included(*range.end() as f64) }
            }
        }

        impl From<Range<$number>> for Interval {
            fn from(range: Range<$number>) -> Self {
                Self { start: range.start as f64, end: Bound::Excluded(range.end as f64) }
            }
        }

        impl From<RangeFrom<$number>> for Interval {
            fn from(range: RangeFrom<$number>) -> Self {
                Self { start: range.start as f64, end: Bound::Unbounded }
            }
        }
    )*};
}
intervals! { i32 usize f64 }

impl OptionValue for usize {
    fn kind() -> Kind {
        Kind::Integer(Interval::ALL)
    }
}

impl OptionValue for f64 {
    fn kind() -> Kind {
        Kind::Number(Interval::ALL)
    }
}

impl OptionValue for bool {
    fn kind() -> Kind {
        Kind::Truth
    }
}

impl OptionValue for String {
    fn kind() -> Kind {
        Kind::Text
    }
}

impl OptionValue for Name {
    fn kind() -> Kind {
        Kind::Name
    }
}

impl OptionValue for Vec<usize> {
    fn kind() -> Kind {
        Kind::Integers(Interval::ALL)
    }
}

impl OptionValue for Vec<f64> {
    fn kind() -> Kind {
        Kind::Numbers(Interval::ALL)
    }
}

impl<C: Choice> OptionValue for Vec<C> {
    fn kind() -> Kind {
        Kind::Choices(names_of::<C>())
    }
}

impl OptionValue for Vec<Name> {
    fn kind() -> Kind {
        Kind::Names
    }
}

impl OptionValue for Vec<String> {
    fn kind() -> Kind {
        Kind::Texts
    }
}

impl<V: OptionValue> OptionValue for Option<V> {
    const IS_OPTIONAL: bool = true;

    fn kind() -> Kind {
        V::kind()
    }
}

impl<V: Choice> OptionValue for V {
    fn kind() -> Kind {
        Kind::Choice(names_of::<V>())
    }
}

/// The names of an enum's variants.
fn names_of<C: Choice>() -> Vec<&'static str> {
    let mut names = Names(&[]);
    // It stops at once, having told the names.
    let _ = C::deserialize(&mut names);
    names.0.to_vec()
}

/// Learns the names of an enum's variants, which serde tells whoever deserializes one.
struct Names(&'static [&'static str]);

impl<'de> Deserializer<'de> for &mut Names {
    type Error = Stopped;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stopped> {
        Err(Stopped::custom("a choice is an enum"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Stopped> {
        self.0 = variants;
        Err(Stopped::custom("the names are all that was asked for"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
