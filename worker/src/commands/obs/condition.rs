//! What holds of a cell: comparisons of its columns with values.

use std::{iter::Peekable, str::FromStr, vec::IntoIter};

use archipelago_anndata::DataFrame;

use crate::{
    error::{Error, Result},
    lists,
};

/// A condition, as it was typed.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// A column has one of the values.
    In(String, Vec<String>),
    /// A column of numbers is so.
    Order(String, Order, f64),
    Missing(String),
}

/// How numbers are compared.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

impl Condition {
    /// Whether it holds of each row.
    ///
    /// # Errors  a column that is not there, or holds no numbers and is compared with one
    pub(super) fn holds(&self, obs: &DataFrame) -> Result<Vec<bool>> {
        let fold = |all: &[Self], empty: bool, join: fn(bool, bool) -> bool| {
            all.iter().try_fold(vec![empty; obs.n_rows()], |joined, one| {
                Ok::<_, Error>(joined.into_iter().zip(one.holds(obs)?).map(|(a, b)| join(a, b)).collect())
            })
        };
        match self {
            Self::All(all) => fold(all, true, |a, b| a && b),
            Self::Any(all) => fold(all, false, |a, b| a || b),
            Self::Not(one) => Ok(one.holds(obs)?.into_iter().map(|holds| !holds).collect()),
            Self::Missing(column) => Ok(obs.column(column)?.to_strings().iter().map(Option::is_none).collect()),
            Self::In(column, asked) => {
                let values = obs.column(column)?.to_strings();
                let asked = lists::of_column(asked, column, &values)?;
                Ok(values.iter().map(|value| value.as_ref().is_some_and(|value| asked.contains(value))).collect())
            }
            Self::Order(name, order, bound) => {
                let column = obs.column(name)?;
                let found = column.kind();
                let numbers = column.to_f64().ok_or_else(|| archipelago_anndata::Error::Kind {
                    name: name.clone(),
                    found,
                    expected: "numbers",
                })?;
                // A missing number is not compared: nothing holds of it.
                let holds = |x: f64| match order {
                    Order::Less => x < *bound,
                    Order::LessOrEqual => x <= *bound,
                    Order::More => x > *bound,
                    Order::MoreOrEqual => x >= *bound,
                };
                Ok(numbers.into_iter().map(holds).collect())
            }
        }
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut tokens = tokens(text)?.into_iter().peekable();
        let condition = any(&mut tokens, 0)?;
        match tokens.next() {
            None => Ok(condition),
            Some(token) => Err(format!("`{}` after the condition is over", token.text())),
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    /// A name, a value or a word of the language; quoted ones are never of the language.
    Word {
        text: String,
        is_quoted: bool,
    },
    Sign(&'static str),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word { text, .. } => text,
            Self::Sign(sign) => sign,
        }
    }

    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word { text, is_quoted: false } if text.eq_ignore_ascii_case(word))
    }
}

type Tokens = Peekable<IntoIter<Token>>;

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(*sign)) {
            tokens.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else if first == '"' {
            let end = rest[1..].find('"').ok_or_else(|| format!("a quote is not closed: {rest}"))?;
            tokens.push(Token::Word { text: rest[1..=end].to_owned(), is_quoted: true });
            rest = &rest[end + 2..];
        } else {
            let is_end = |c: char| c.is_whitespace() || "=!<>(),\"".contains(c);
            let end = rest.find(is_end).unwrap_or(rest.len());
            if end == 0 {
                return Err(format!("`{first}` is no sign of a condition"));
            }
            tokens.push(Token::Word { text: rest[..end].to_owned(), is_quoted: false });
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

fn any(tokens: &mut Tokens, depth: u32) -> Result<Condition, String> {
    let mut parts = vec![all(tokens, depth)?];
    while tokens.next_if(|token| token.is("or")).is_some() {
        parts.push(all(tokens, depth)?);
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::Any(parts) })
}

fn all(tokens: &mut Tokens, depth: u32) -> Result<Condition, String> {
    let mut parts = vec![one(tokens, depth)?];
    while tokens.next_if(|token| token.is("and")).is_some() {
        parts.push(one(tokens, depth)?);
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::All(parts) })
}

fn one(tokens: &mut Tokens, depth: u32) -> Result<Condition, String> {
    if depth > DEEPEST {
        return Err("it is nested too deeply".to_owned());
    }
    if tokens.next_if(|token| token.is("not")).is_some() {
        return Ok(Condition::Not(Box::new(one(tokens, depth + 1)?)));
    }
    if tokens.next_if_eq(&Token::Sign("(")).is_some() {
        let inner = any(tokens, depth + 1)?;
        return closed(tokens).map(|()| inner);
    }
    let column = word(tokens, "a column")?;
    match tokens.next() {
        Some(Token::Sign("=" | "==")) => Ok(Condition::In(column, vec![word(tokens, "a value")?])),
        Some(Token::Sign("!=")) => Ok(Condition::Not(Box::new(Condition::In(column, vec![word(tokens, "a value")?])))),
        Some(Token::Sign(sign @ ("<" | "<=" | ">" | ">="))) => {
            let order = match sign {
                "<" => Order::Less,
                "<=" => Order::LessOrEqual,
                ">" => Order::More,
                _ => Order::MoreOrEqual,
            };
            let bound = word(tokens, "a number")?;
            let bound = bound.parse().map_err(|_| format!("`{bound}`, expected a number after `{sign}`"))?;
            Ok(Condition::Order(column, order, bound))
        }
        Some(token) if token.is("in") => values(tokens).map(|values| Condition::In(column, values)),
        Some(token) if token.is("not") && tokens.next_if(|token| token.is("in")).is_some() => {
            values(tokens).map(|values| Condition::Not(Box::new(Condition::In(column, values))))
        }
        Some(token) if token.is("is") => {
            let is_not = tokens.next_if(|token| token.is("not")).is_some();
            match tokens.next() {
                Some(token) if token.is("missing") => {
                    let missing = Condition::Missing(column);
                    Ok(if is_not { Condition::Not(Box::new(missing)) } else { missing })
                }
                _ => Err(format!("expected `missing` after `{column} is`")),
            }
        }
        Some(token) => {
            Err(format!("`{}` after `{column}`, expected a comparison, `in (…)` or `is missing`", token.text()))
        }
        None => Err(format!("nothing after `{column}`, expected a comparison, `in (…)` or `is missing`")),
    }
}

fn values(tokens: &mut Tokens) -> Result<Vec<String>, String> {
    if tokens.next_if_eq(&Token::Sign("(")).is_none() {
        return Err("expected `(` after `in`".to_owned());
    }
    let mut values = vec![word(tokens, "a value")?];
    while tokens.next_if_eq(&Token::Sign(",")).is_some() {
        values.push(word(tokens, "a value")?);
    }
    closed(tokens).map(|()| values)
}

fn closed(tokens: &mut Tokens) -> Result<(), String> {
    match tokens.next() {
        Some(Token::Sign(")")) => Ok(()),
        Some(token) => Err(format!("`{}`, expected `)`", token.text())),
        None => Err("a bracket is not closed".to_owned()),
    }
}

fn word(tokens: &mut Tokens, what: &str) -> Result<String, String> {
    match tokens.next() {
        Some(Token::Word { text, .. }) => Ok(text),
        Some(Token::Sign(sign)) => Err(format!("`{sign}`, expected {what}")),
        None => Err(format!("nothing, expected {what}")),
    }
}

/// Longer ones first.
const SIGNS: [&str; 10] = ["<=", ">=", "!=", "==", "=", "<", ">", "(", ")", ","];
/// Brackets in brackets that anybody writes.
const DEEPEST: u32 = 64;

#[cfg(test)]
mod tests {
    use archipelago_anndata::Column;

    use super::*;

    fn obs() -> DataFrame {
        let mut obs = DataFrame::new(["a", "b", "c", "d"]);
        obs.insert("cell type", Column::categorical(&["B", "NK cell", "B", "T"])).unwrap();
        obs.insert("n", vec![100.0, 600.0, 700.0, f64::NAN]).unwrap();
        obs.insert("batch", vec![1_i64, 1, 2, 2]).unwrap();
        obs
    }

    #[track_caller]
    fn check(text: &str, expected: [u8; 4]) {
        let condition: Condition = text.parse().unwrap();
        assert_eq!(condition.holds(&obs()).unwrap(), expected.map(|holds| holds == 1), "{condition:?}");
    }

    #[test]
    fn conditions_hold_of_the_cells_that_they_say() {
        check("n > 500", [0, 1, 1, 0]);
        check("n>=600 and n<=600.0", [0, 1, 0, 0]);
        check("\"cell type\" = B or batch = 2", [1, 0, 1, 1]);
        check("\"cell type\" in (B, \"NK cell\") and not batch == 1.0", [0, 0, 1, 0]);
        check("\"cell type\" not in (B)", [0, 1, 0, 1]);
        check("(n < 200 or batch != 1) and n is not missing", [1, 0, 1, 0]);
        check("n is missing", [0, 0, 0, 1]);
    }

    #[test]
    fn what_cannot_be_read_or_is_not_there_is_said() {
        for (text, expected) in [
            ("n >", "nothing, expected a number"),
            ("n > many", "`many`, expected a number"),
            ("n", "nothing after `n`"),
            ("(n > 1", "bracket is not closed"),
            ("n > 1 n", "`n` after the condition is over"),
            ("\"n", "quote is not closed"),
            ("batch in 1", "expected `(`"),
            (&"(".repeat(100), "nested too deeply"),
        ] {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for (text, expected) in
            [("donor = a", "no column `donor`"), ("\"cell type\" = C", "`B`"), ("\"cell type\" > 1", "not numbers")]
        {
            let error = text.parse::<Condition>().unwrap().holds(&obs()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
