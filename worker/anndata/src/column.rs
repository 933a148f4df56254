//! One column of `obs`, `var` or another data frame.

use std::collections::HashMap;

use crate::{Error, Kept, Result, Values, names};

/// A column: plain values, a categorical, or values with missing entries.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// One value per row.
    Plain(Values),
    /// One code per row into a table of categories; [`Column::MISSING`] is no category.
    Categorical(Categorical),
    /// One value per row, and `true` where it is missing (pandas' nullable integers, booleans and strings).
    Nullable {
        /// Booleans, integers or text.
        values: Values,
        /// `true` where the value is missing.
        missing: Vec<bool>,
    },
    /// Values of a type that has no counterpart here, copied when they are written.
    Kept(Kept),
}

/// Codes into a table of categories.
#[derive(Debug, Clone, PartialEq)]
pub struct Categorical {
    codes: Vec<i32>,
    categories: Values,
    /// Whether the categories have an order.
    pub ordered: bool,
}

impl Categorical {
    /// # Errors
    /// When a code is neither [`Column::MISSING`] nor a position in `categories`.
    pub fn new(codes: Vec<i32>, categories: impl Into<Values>, ordered: bool) -> Result<Self> {
        let categories = categories.into();
        let n = categories.len();
        match codes.iter().find(|&&code| code != Column::MISSING && !usize::try_from(code).is_ok_and(|c| c < n)) {
            Some(code) => {
                Err(Error::Invalid { kind: "categorical", detail: format!("code {code} with {n} categories") })
            }
            None => Ok(Self { codes, categories, ordered }),
        }
    }

    /// An unordered categorical whose categories are the distinct labels in ascending order, as pandas makes it; none is missing.
    pub fn of<'a>(labels: impl Iterator<Item = Option<&'a str>> + Clone) -> Self {
        let mut categories: Vec<&str> = labels.clone().flatten().collect();
        categories.sort_unstable();
        categories.dedup();
        let code: HashMap<&str, i32> = categories.iter().copied().zip(0..).collect();
        let codes = labels.map(|label| label.map_or(Column::MISSING, |label| code[label])).collect();
        let categories = Values::Str(categories.into_iter().map(str::to_owned).collect());
        Self { codes, categories, ordered: false }
    }

    /// One code per row.
    pub fn codes(&self) -> &[i32] {
        &self.codes
    }

    /// The table of categories, mostly text.
    pub fn categories(&self) -> &Values {
        &self.categories
    }
}

impl Column {
    /// The code of a missing category.
    pub const MISSING: i32 = -1;

    /// A column of text.
    pub fn text<S: Into<String>>(values: impl IntoIterator<Item = S>) -> Self {
        Self::Plain(Values::Str(values.into_iter().map(Into::into).collect()))
    }

    /// As [`Categorical::of`], of labels none of which is missing.
    pub fn categorical<S: AsRef<str>>(labels: &[S]) -> Self {
        Self::Categorical(Categorical::of(labels.iter().map(|label| Some(label.as_ref()))))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(values) | Self::Nullable { values, .. } => values.len(),
            Self::Categorical(categorical) => categorical.codes.len(),
            Self::Kept(kept) => kept.n_rows().unwrap_or(0),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `categorical`, `nullable int64`, `float32`, `str`…
    pub fn kind(&self) -> String {
        match self {
            Self::Plain(values) => values.dtype().into(),
            Self::Categorical(_) => "categorical".into(),
            Self::Nullable { values, .. } => format!("nullable {}", values.dtype()),
            Self::Kept(_) => "kept".into(),
        }
    }

    /// One name per row, `None` where it is missing: the one way from a column of any type to names (see [`names`]).
    pub fn to_strings(&self) -> Vec<Option<String>> {
        match self {
            Self::Plain(values) => names::of(values),
            Self::Categorical(Categorical { codes, categories, .. }) => {
                let names = names::of(categories);
                codes.iter().map(|&code| usize::try_from(code).ok().and_then(|code| names[code].clone())).collect()
            }
            Self::Nullable { values, missing } => {
                let names = names::of(values).into_iter().zip(missing);
                names.map(|(name, &missing)| name.filter(|_| !missing)).collect()
            }
            Self::Kept(_) => vec![None; self.len()],
        }
    }

    /// One number per row, NaN where it is missing; `None` for text, for categories of text and for what is not read.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        match self {
            Self::Plain(values) => values.to_f64(),
            Self::Categorical(Categorical { codes, categories, .. }) => {
                let numbers = categories.to_f64()?;
                Some(codes.iter().map(|&code| usize::try_from(code).map_or(f64::NAN, |code| numbers[code])).collect())
            }
            Self::Nullable { values, missing } => {
                let numbers = values.to_f64()?;
                Some(numbers.into_iter().zip(missing).map(|(x, &missing)| if missing { f64::NAN } else { x }).collect())
            }
            Self::Kept(_) => None,
        }
    }

    /// As a categorical: one as it is (with categories turned to text), other columns by their distinct texts.
    pub fn to_categorical(&self) -> Categorical {
        if let Self::Categorical(Categorical { codes, categories, ordered }) = self {
            // A category that is no name (a number that is none) would stand for what is missing.
            let names = names::of(categories);
            let code = |code: &i32| {
                usize::try_from(*code).map_or(Self::MISSING, |at| names[at].as_ref().map_or(Self::MISSING, |_| *code))
            };
            let codes = codes.iter().map(code).collect();
            let categories = Values::Str(names.iter().map(|name| name.clone().unwrap_or_default()).collect());
            return Categorical { codes, categories, ordered: *ordered };
        }
        Categorical::of(self.to_strings().iter().map(Option::as_deref))
    }

    /// The rows at `rows`, in that order; categories stay as they are.
    ///
    /// # Panics
    /// If a row is out of range.
    #[must_use]
    pub fn select_rows(&self, rows: &[usize]) -> Self {
        match self {
            Self::Plain(values) => Self::Plain(values.gather(rows)),
            Self::Categorical(categorical) => Self::Categorical(Categorical {
                codes: rows.iter().map(|&row| categorical.codes[row]).collect(),
                ..categorical.clone()
            }),
            Self::Nullable { values, missing } => {
                Self::Nullable { values: values.gather(rows), missing: rows.iter().map(|&row| missing[row]).collect() }
            }
            Self::Kept(kept) => Self::Kept(kept.select_rows(rows).expect("a column has rows")),
        }
    }
}

impl<T> From<Vec<T>> for Column
where
    Values: From<Vec<T>>,
{
    fn from(values: Vec<T>) -> Self {
        Self::Plain(values.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_are_sorted_and_distinct() {
        let Column::Categorical(column) = Column::categorical(&["b", "a", "b"]) else { panic!("not categorical") };
        assert_eq!((column.codes(), column.categories()), (&[1, 0, 1][..], &Values::from(vec!["a", "b"])));
    }

    #[test]
    fn codes_beyond_the_table_are_refused() {
        assert!(Categorical::new(vec![0, -1, 1], vec!["a", "b"], false).is_ok());
        assert!(Categorical::new(vec![2], vec!["a", "b"], false).is_err());
        assert!(Categorical::new(vec![-2], vec!["a", "b"], false).is_err());
    }

    #[test]
    fn missing_values_have_no_text_and_no_number() {
        let column = Column::Nullable { values: vec![1_i64, 2].into(), missing: vec![false, true] };
        assert_eq!(column.to_strings(), [Some("1".into()), None]);
        assert!(column.to_f64().unwrap()[1].is_nan());
        assert_eq!(column.to_categorical().codes(), [0, -1]);
    }

    #[test]
    fn a_number_that_is_none_is_missing_in_every_kind_of_column() {
        let (floats, expected) = (vec![1.0, f64::NAN, 2.5], [Some("1".to_owned()), None, Some("2.5".to_owned())]);
        let categorical = Categorical::new(vec![0, 1, 2], floats.clone(), false).unwrap();
        let nullable = Column::Nullable { values: floats.clone().into(), missing: vec![false; 3] };
        for column in [Column::from(floats), Column::Categorical(categorical), nullable] {
            assert_eq!(column.to_strings(), expected);
            let codes = column.to_categorical();
            let names = codes.categories().to_strings();
            let named = codes.codes().iter().map(|&code| usize::try_from(code).ok().map(|code| names[code].clone()));
            assert_eq!(named.collect::<Vec<_>>(), expected);
        }
        let floats = Column::from(vec![1.0_f32, f32::NAN]);
        assert_eq!(floats.to_strings(), [Some("1".to_owned()), None]);
    }
}
