//! The steps.

use std::{collections::HashMap, path::PathBuf, str::FromStr};

use archipelago_anndata::{Categorical, Column, DataFrame, Values};
use rand::seq::index;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

use super::{ObsArgs, joined::Table};
use crate::{
    error::{Error, Result},
    lists,
};

/// What is asked of a column: `column=…`.
#[derive(Clone, Debug)]
pub(super) struct Named<T> {
    column: String,
    value: T,
}

impl<T: FromStr<Err: ToString>> FromStr for Named<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (column, value) = text.split_once('=').ok_or("expected `COLUMN=…`")?;
        let value = value.parse().map_err(|error: T::Err| error.to_string())?;
        Ok(Self { column: column.to_owned(), value })
    }
}

/// What a column can be made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Category,
    Text,
    Integer,
    Number,
    Bool,
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "category" => Self::Category,
            "text" => Self::Text,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "bool" => Self::Bool,
            other => return Err(format!("`{other}` is none of `category`, `text`, `integer`, `number`, `bool`")),
        })
    }
}

impl ObsArgs {
    /// Changes the columns; of how many cells each joined table says nothing.
    pub(super) fn change(&self, obs: &mut DataFrame) -> Result<Vec<usize>> {
        let not_joined = self.join.iter().map(|path| self.join(path.clone(), obs)).collect::<Result<_>>()?;
        for Named { column, value } in &self.rename {
            let values = obs.column(column)?.clone();
            if obs.columns().iter().any(|(known, _)| known == value) {
                return Err(Error::ColumnExists { column: value.clone() });
            }
            obs.remove(column);
            obs.insert(value, values)?;
        }
        for Named { column, value } in &self.set {
            obs.insert(column, Column::categorical(&vec![value; obs.n_rows()]))?;
        }
        for Named { column, value } in &self.paste {
            let parts = lists::split(std::slice::from_ref(value));
            let parts =
                parts.iter().map(|part| Ok(obs.column(part.trim())?.to_strings())).collect::<Result<Vec<_>>>()?;
            let of_cell = |cell: usize| {
                let parts: Option<Vec<&str>> = parts.iter().map(|part| part[cell].as_deref()).collect();
                parts.map(|parts| parts.join("_"))
            };
            let pasted: Vec<Option<String>> = (0..obs.n_rows()).map(of_cell).collect();
            obs.insert(column, categories(&pasted))?;
        }
        for Named { column, value } in &self.map {
            let table = Table::read(value)?;
            let renamed = |text: String| table.value(&text).map_or(text.clone(), str::to_owned);
            let values = obs.column(column)?.to_strings().into_iter().map(|text| text.map(renamed));
            obs.insert(column, categories(&values.collect::<Vec<_>>()))?;
        }
        for Named { column, value } in &self.cast {
            let cast = cast(column, obs.column(column)?, *value)?;
            obs.insert(column, cast)?;
        }
        for column in &self.drop {
            obs.column(column)?;
            obs.remove(column);
        }
        Ok(not_joined)
    }

    fn join(&self, path: PathBuf, obs: &mut DataFrame) -> Result<usize> {
        let table = Table::read(&path)?;
        if let Some(column) = table.columns.iter().find(|name| obs.columns().iter().any(|(known, _)| known == *name)) {
            return Err(Error::ColumnExists { column: column.clone() });
        }
        let keys: Vec<Option<String>> = match &self.join_on {
            Some(column) => obs.column(column)?.to_strings(),
            None => obs.index().iter().cloned().map(Some).collect(),
        };
        let (columns, n_missing) = table.of(keys.iter().map(Option::as_deref));
        if n_missing == obs.n_rows() {
            let of = self.join_on.as_ref().map_or_else(|| "no cell".to_owned(), |on| format!("no value of `{on}`"));
            return Err(Error::Table { path, detail: format!("{of} is in its first column") });
        }
        for (name, column) in table.columns.iter().zip(columns) {
            obs.insert(name, column)?;
        }
        Ok(n_missing)
    }

    /// The cells that stay, ascending.
    pub(super) fn choose(&self, obs: &DataFrame) -> Result<Vec<usize>> {
        let mut kept: Vec<usize> = (0..obs.n_rows()).collect();
        if let Some(condition) = &self.condition {
            let holds = condition.holds(obs)?;
            kept.retain(|&cell| holds[cell]);
        }
        for Named { column, value } in &self.min_cells {
            let values = obs.column(column)?.to_strings();
            let mut n_cells: HashMap<&str, usize> = HashMap::new();
            for &cell in &kept {
                values[cell].as_deref().into_iter().for_each(|value| *n_cells.entry(value).or_default() += 1);
            }
            kept.retain(|&cell| values[cell].as_deref().is_some_and(|name| n_cells[name] >= *value));
        }
        if let Some(n) = self.sample {
            let n = if n < 1.0 { (n * kept.len() as f64).round() } else { n } as usize;
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            let mut drawn = index::sample(&mut rng, kept.len(), n.min(kept.len())).into_vec();
            drawn.sort_unstable();
            kept = drawn.into_iter().map(|at| kept[at]).collect();
        }
        Ok(kept)
    }
}

fn categories(values: &[Option<String>]) -> Column {
    Column::Categorical(Categorical::of(values.iter().map(Option::as_deref)))
}

fn cast(name: &str, column: &Column, kind: Kind) -> Result<Column> {
    let texts = column.to_strings();
    let wrong = |text: &str, expected| archipelago_anndata::Error::Kind {
        name: name.to_owned(),
        found: format!("`{text}`"),
        expected,
    };
    let numbers = |expected: &'static str, is_fine: fn(f64) -> bool| {
        let number = |text: &Option<String>| match text {
            None => Ok(f64::NAN),
            Some(text) => text.parse().ok().filter(|x| is_fine(*x)).ok_or_else(|| wrong(text, expected)),
        };
        texts.iter().map(number).collect::<Result<Vec<f64>, _>>()
    };
    let missing: Vec<bool> = texts.iter().map(Option::is_none).collect();
    let with_missing = |values: Values| match missing.contains(&true) {
        true => Column::Nullable { values, missing: missing.clone() },
        false => Column::Plain(values),
    };
    Ok(match kind {
        Kind::Category => categories(&texts),
        Kind::Text => with_missing(Values::Str(texts.iter().map(|text| text.clone().unwrap_or_default()).collect())),
        Kind::Number => Column::from(numbers("a number", |_| true)?),
        Kind::Integer => {
            let whole = numbers("a whole number", |x| x.fract() == 0.0 && x.abs() < 2_f64.powi(53))?;
            with_missing(Values::I64(whole.into_iter().map(|x| x as i64).collect()))
        }
        Kind::Bool => {
            let of = |text: &Option<String>| match text.as_deref().map(str::to_lowercase).as_deref() {
                None => Ok(false),
                Some("true" | "yes" | "1") => Ok(true),
                Some("false" | "no" | "0") => Ok(false),
                Some(_) => Err(wrong(text.as_deref().unwrap_or_default(), "true or false")),
            };
            with_missing(Values::Bool(texts.iter().map(of).collect::<Result<_, _>>()?))
        }
    })
}
