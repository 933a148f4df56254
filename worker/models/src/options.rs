//! Options of models. Each is stated once, in the struct that holds its value: name, help, default, values it takes.
//!
//! `options!` makes that struct and its [`OptionCard`]s. Whatever else knows about options follows from the cards: the check of
//! given values, the flags of `train`, the list that `models` prints.

mod kind;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) use kind::{Choice, OptionValue};
pub use kind::{Interval, Kind};

use crate::{
    error::{Error, Result},
    model::Config,
};

/// An option of a model.
#[derive(Clone, PartialEq, Debug)]
pub struct OptionCard {
    /// Its name.
    pub name: &'static str,
    /// What it decides.
    pub help: String,
    /// Which values it takes.
    pub kind: Kind,
    /// Whether it may be left without a value.
    pub is_optional: bool,
    /// The value where none is given.
    pub default: Value,
    /// What its whole numbers are to the size of a network.
    pub size: Size,
}

/// What whole numbers are to the size of a network. Whoever bounds what a network may be reads it here and knows no names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// Units of layers, or how many layers there are: what a whole number is where its declaration says nothing else, so that a
    /// forgotten word makes a bound stricter.
    Layers,
    /// Dimensions of the latent space.
    Latent,
    /// Nothing: epochs, numbers of cells, seeds.
    Nothing,
}

/// A struct of options.
pub(crate) trait Options: Default + Serialize + DeserializeOwned {
    /// Every option, in order.
    fn cards() -> Vec<OptionCard>;

    /// What the values of several options must have together.
    ///
    /// # Errors  a text that names the option
    fn check_together(&self) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// Reads options by name, checks them, and gives the others their defaults.
///
/// # Errors  [`Error::Config`] naming the option
pub(crate) fn parse<C: Options>(model: &'static str, given: &Config) -> Result<C> {
    let refuse = |detail: String| Error::Config { model, detail };
    check(&C::cards(), given.iter()).map_err(refuse)?;
    let given = given.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let config: C = serde_json::from_value(Value::Object(given)).map_err(|e| refuse(e.to_string()))?;
    config.check_together().map_err(refuse)?;
    Ok(config)
}

/// All options by name, defaults included.
pub(crate) fn to_config<C: Options>(config: &C) -> Config {
    match serde_json::to_value(config) {
        Ok(Value::Object(values)) => values.into_iter().collect(),
        _ => unreachable!("options are a struct of plain values"),
    }
}

/// Whether every given value is one that the option of its name takes.
fn check<'a>(
    cards: &[OptionCard],
    given: impl Iterator<Item = (&'a String, &'a Value)>,
) -> std::result::Result<(), String> {
    for (name, value) in given {
        let Some(card) = cards.iter().find(|card| card.name == name) else {
            let names: Vec<&str> = cards.iter().map(|card| card.name).collect();
            return Err(format!("there is no option `{name}`; there are {}", names.join(", ")));
        };
        card.check(value)?;
    }
    Ok(())
}

impl OptionCard {
    /// The card of an option whose value is of this type.
    pub(crate) fn new<V: OptionValue + Serialize>(name: &'static str, help: &str, default: &V) -> Self {
        let default = serde_json::to_value(default).expect("options are plain values");
        let (kind, size) = (V::kind(), Size::Layers);
        Self { name, help: sentence(help), kind, is_optional: V::IS_OPTIONAL, default, size }
    }

    /// The same with another meaning of its whole numbers.
    pub(crate) fn sizes(self, size: Size) -> Self {
        Self { size, ..self }
    }

    /// The largest whole number of a value that sizes a network in a way that is meant, and the option's name; of options inside an
    /// option too.
    pub fn largest(&self, value: &Value, is_meant: &dyn Fn(Size) -> bool) -> Option<(&'static str, u64)> {
        match (&self.kind, value) {
            (Kind::Further(cards), Value::Object(inner)) => {
                let given = cards.iter().filter_map(|card| card.largest(inner.get(card.name)?, is_meant));
                given.max_by_key(|(_, found)| *found)
            }
            (Kind::Integer(_) | Kind::Integers(_), _) if is_meant(self.size) => {
                let found = match value {
                    Value::Array(items) => items.iter().filter_map(Value::as_u64).max(),
                    value => value.as_u64(),
                };
                found.map(|found| (self.name, found))
            }
            _ => None,
        }
    }

    /// The same with bounds on its number, or on each of its numbers.
    pub(crate) fn within(self, interval: impl Into<Interval>) -> Self {
        Self { kind: self.kind.within(interval.into()), ..self }
    }

    /// The same with fewer choices.
    pub(crate) fn among(self, names: &[&'static str]) -> Self {
        Self { kind: self.kind.among(names), ..self }
    }

    /// Whether it takes this value.
    ///
    /// # Errors  what it takes
    pub fn check(&self, value: &Value) -> std::result::Result<(), String> {
        if self.is_optional && value.is_null() {
            return Ok(());
        }
        match (&self.kind, value) {
            (Kind::Further(cards), Value::Object(inner)) => {
                check(cards, inner.iter()).map_err(|detail| format!("`{}`: {detail}", self.name))
            }
            (kind, value) if kind.takes(value) => Ok(()),
            _ => Err(format!("`{}` is {}, expected {}", self.name, text_of(value), self.values())),
        }
    }

    /// The value that a text on the command line stands for. Whether the option takes it is for [`Self::check`] to say.
    pub fn read(&self, text: &str) -> Value {
        if self.is_optional && text == NO_VALUE { Value::Null } else { self.kind.read(text) }
    }

    /// Which values it takes, in words.
    pub fn values(&self) -> String {
        let or_none = if self.is_optional { format!(", or {NO_VALUE}") } else { String::new() };
        format!("{}{or_none}", self.kind)
    }
}

/// A value as [`OptionCard::read`] reads it.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::Null => NO_VALUE.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A doc comment as one line of help.
fn sentence(comment: &str) -> String {
    let words: Vec<&str> = comment.split_whitespace().collect();
    words.join(" ").trim_end_matches('.').to_owned()
}

/// What stands for no value.
pub const NO_VALUE: &str = "none";

/// Makes a struct of options from one statement per option: its help as a doc comment, `name: type = default`, and where they are
/// narrower than the type, the values it takes (`within` an interval, `among` some names), and what its whole numbers size
/// ([`Size`]) where that is not layers.
macro_rules! options {
    (
        $(#[doc = $about:literal])+
        $vis:vis struct $config:ident {$(
            $(#[doc = $help:literal])+
            $name:ident: $value:ty = $default:expr $(, within $interval:expr)? $(, among $names:expr)? $(, sizes $size:ident)?;
        )+}
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        $vis struct $config {$(
            $(#[doc = $help])+
            pub $name: $value,
        )+}

        impl Default for $config {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl $config {
            fn option_cards() -> Vec<$crate::options::OptionCard> {
                let default = Self::default();
                vec![$(
                    $crate::options::OptionCard::new(stringify!($name), concat!($($help),+), &default.$name)
                        $(.within($interval))? $(.among(&$names))? $(.sizes($crate::options::Size::$size))?,
                )+]
            }
        }

        // Options can be the value of another option.
        impl $crate::options::OptionValue for $config {
            fn kind() -> $crate::options::Kind {
                $crate::options::Kind::Further(Self::option_cards())
            }
        }
    };
}
pub(crate) use options;

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Shape {
        LongTail,
        Flat,
        Round,
    }

    impl Choice for Shape {}

    options! {
        /// Options inside an option.
        struct Inner {
            /// Whether it is on.
            on: bool = true;
            /// How wide it is.
            width: usize = 2;
        }
    }

    options! {
        /// Options of every kind.
        struct Every {
            /// How many,
            /// counted.
            n: usize = 3, within 1..=8;
            /// A share.
            share: f64 = 0.5, within 0.0..1.0;
            /// What it looks like.
            shape: Shape = Shape::Flat, among ["flat", "long-tail"];
            /// Sizes of layers.
            sizes: Vec<usize> = vec![128, 64], within 1..=512;
            /// Dimensions of the latent space.
            latent: usize = 5, sizes Latent;
            /// When it begins.
            epoch: Option<usize> = None, sizes Nothing;
            /// Weights.
            weights: Vec<f64> = vec![1.0], within 0.0..;
            /// What several look like.
            shapes: Vec<Shape> = vec![Shape::Flat, Shape::Flat];
            /// A name.
            name: String = "x".to_owned();
            /// Whether, where that is known.
            maybe: Option<bool> = None;
            /// What else.
            inner: Inner = Inner::default();
        }
    }

    impl Options for Every {
        fn cards() -> Vec<OptionCard> {
            Self::option_cards()
        }

        fn check_together(&self) -> std::result::Result<(), String> {
            if self.n == 7 && !self.inner.on { Err("`n` is 7 and nothing is on".to_owned()) } else { Ok(()) }
        }
    }

    fn check(name: &str, value: Value) -> Result<Every> {
        parse("every", &Config::from([(name.to_owned(), value)]))
    }

    #[test]
    fn cards_say_what_the_struct_says() {
        let cards = Every::cards();
        let told: Vec<_> = cards.iter().map(|card| (card.name, text_of(&card.default), card.values())).collect();
        let expected = [
            ("n", "3", "an integer from 1 to 8"),
            ("share", "0.5", "a number of 0 or more and below 1"),
            ("shape", "flat", "flat or long-tail"),
            ("sizes", "128,64", "integers from 1 to 512, separated by commas"),
            ("latent", "5", "an integer"),
            ("epoch", "none", "an integer, or none"),
            ("weights", "1.0", "numbers of 0 or more, separated by commas"),
            ("shapes", "flat,flat", "long-tail, flat or round, several separated by commas"),
            ("name", "x", "text"),
            ("maybe", "none", "true or false, or none"),
            ("inner", "{\"on\":true,\"width\":2}", "a JSON object with on (true or false), width (an integer)"),
        ];
        assert_eq!(told, expected.map(|(name, default, values)| (name, default.to_owned(), values.to_owned())));
        assert_eq!(cards[0].help, "How many, counted");
        let config: Every = parse("every", &Config::new()).unwrap();
        assert_eq!(config, Every::default());
        assert_eq!(to_config(&config).len(), cards.len());
        assert_eq!(parse::<Every>("every", &to_config(&config)).unwrap(), config);
    }

    #[test]
    fn whole_numbers_size_layers_unless_their_declaration_says_otherwise() {
        let largest = |config: &Value, is_meant: &dyn Fn(Size) -> bool| {
            let given = Every::cards().into_iter().filter_map(|card| card.largest(&config[card.name], is_meant));
            given.max_by_key(|(_, found)| *found)
        };
        let config =
            json!({ "n": 3, "sizes": [9, 7], "latent": 11, "epoch": 500, "share": 0.5, "inner": { "width": 10 } });
        let layers = |size| size == Size::Layers;
        assert_eq!(largest(&config, &layers), Some(("width", 10)), "also inside an option");
        assert_eq!(largest(&config, &|size| size == Size::Latent), Some(("latent", 11)));
        assert_eq!(largest(&config, &|size| size == Size::Nothing), Some(("epoch", 500)));
        assert_eq!(largest(&json!({ "sizes": [], "share": 3.0 }), &layers), None);
    }

    #[test]
    fn values_are_read_from_text_as_they_are_written() {
        for card in Every::cards() {
            assert_eq!(card.read(&text_of(&card.default)), card.default, "{}", card.name);
        }
        let changed = [
            ("n", "8", json!(8)),
            ("share", "0.25", json!(0.25)),
            ("sizes", "32", json!([32])),
            ("weights", "0.5,2", json!([0.5, 2])),
            ("shapes", "round, flat", json!(["round", "flat"])),
            ("name", "7", json!("7")),
            ("maybe", "false", json!(false)),
            ("inner", "{\"on\": false}", json!({ "on": false })),
        ];
        for (name, text, expected) in changed {
            let card = Every::cards().into_iter().find(|card| card.name == name).unwrap();
            assert_eq!(card.read(text), expected, "{name}");
            check(name, card.read(text)).unwrap();
        }
    }

    #[test]
    fn values_that_an_option_does_not_take_are_refused_with_those_it_takes() {
        for (name, value, expected) in [
            ("n", json!(0), "`n` is 0, expected an integer from 1 to 8"),
            ("n", json!(-1), "`n` is -1"),
            ("n", json!(2.5), "`n` is 2.5"),
            ("n", json!("many"), "`n` is many"),
            ("n", Value::Null, "`n` is none"),
            ("share", json!(1.0), "`share` is 1.0"),
            ("shape", json!("round"), "`shape` is round, expected flat or long-tail"),
            ("sizes", json!([16, 0]), "`sizes` is 16,0"),
            ("sizes", json!(16), "`sizes` is 16"),
            ("weights", json!([1.0, -1.0]), "`weights` is 1.0,-1.0, expected numbers of 0 or more"),
            ("shapes", json!(["flat", "thin"]), "`shapes` is flat,thin, expected long-tail, flat or round"),
            ("maybe", json!(1), "`maybe` is 1"),
            ("inner", json!({ "on": 1 }), "`inner`: `on` is 1"),
            ("inner", json!({ "of": true }), "`inner`: there is no option `of`; there are on, width"),
            ("m", json!(1), "there is no option `m`; there are n, share"),
        ] {
            let error = check(name, value).unwrap_err();
            assert!(
                matches!(&error, Error::Config { model: "every", .. }) && error.to_string().contains(expected),
                "{error}"
            );
        }
        let together = Config::from([("n".to_owned(), json!(7)), ("inner".to_owned(), json!({ "on": false }))]);
        assert!(parse::<Every>("every", &together).unwrap_err().to_string().contains("nothing is on"));
    }
}
