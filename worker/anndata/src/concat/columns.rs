//! Columns of several data sets as one, of their own type where all share one.

use std::collections::HashMap;

use half::f16;

use crate::{Categorical, Column, Values};

/// One column below the other, missing where a part lacks it; `None` for values of a type that is not known here.
///
/// Values of one type stay of it, with a mask where some are missing (numbers with a fraction have NaN for that). Categories stay
/// in order: those of the first part, then what later ones add; they are ordered still if all parts have the same in the same order.
/// Numbers of several types become floats, anything else categories of text.
pub(crate) fn concatenated(columns: &[Option<&Column>], lengths: &[usize]) -> Option<Column> {
    if columns.iter().flatten().any(|column| matches!(column, Column::Kept(_))) {
        return None;
    }
    let categorical: Vec<&Categorical> = columns.iter().flatten().filter_map(|column| as_categorical(column)).collect();
    let n_present = columns.iter().flatten().count();
    if categorical.len() == n_present
        && let Some(column) = categories(columns, lengths)
    {
        return Some(column);
    }
    if categorical.is_empty() {
        if let Some(column) = of_one_type(columns, lengths) {
            return Some(column);
        }
        let parts = columns.iter().zip(lengths);
        let numbers: Option<Vec<Vec<f64>>> =
            parts.map(|(column, &n)| column.map_or(Some(vec![f64::NAN; n]), Column::to_f64)).collect();
        if let Some(numbers) = numbers {
            return Some(Column::Plain(Values::F64(numbers.concat())));
        }
    }
    Some(as_texts(columns, lengths))
}

fn as_categorical(column: &Column) -> Option<&Categorical> {
    match column {
        Column::Categorical(categorical) => Some(categorical),
        _ => None,
    }
}

/// Categoricals whose categories are of one type; `None` if they are not.
fn categories(columns: &[Option<&Column>], lengths: &[usize]) -> Option<Column> {
    let parts: Vec<Option<&Categorical>> = columns.iter().map(|column| column.and_then(as_categorical)).collect();
    let tables: Vec<&Values> = parts.iter().flatten().map(|part| part.categories()).collect();
    let all = Values::concatenated(&tables)?;
    let names = all.to_strings();
    let mut code_of: HashMap<&str, i32> = HashMap::new();
    let mut first = Vec::new();
    for (at, name) in names.iter().enumerate() {
        code_of.entry(name).or_insert_with(|| {
            first.push(at);
            first.len() as i32 - 1
        });
    }
    let (mut codes, mut start) = (Vec::new(), 0);
    for (part, &n) in parts.iter().zip(lengths) {
        let Some(part) = part else {
            codes.extend(vec![Column::MISSING; n]);
            continue;
        };
        let code =
            |&code: &i32| usize::try_from(code).map_or(Column::MISSING, |at| code_of[names[start + at].as_str()]);
        codes.extend(part.codes().iter().map(code));
        start += part.categories().len();
    }
    let ordered = parts.iter().flatten().all(|part| part.ordered) && tables.iter().all(|table| *table == tables[0]);
    Categorical::new(codes, all.gather(&first), ordered).ok().map(Column::Categorical)
}

/// Plain and nullable columns whose values are of one type; `None` if they are not.
fn of_one_type(columns: &[Option<&Column>], lengths: &[usize]) -> Option<Column> {
    let values = |column: &&Column| match column {
        Column::Plain(values) | Column::Nullable { values, .. } => Some(values.clone()),
        _ => None,
    };
    let present = columns.iter().flatten().map(values).collect::<Option<Vec<Values>>>()?;
    let nothing = |n: usize| match present.first()? {
        // Missing numbers with a fraction are NaN, which needs no mask.
        Values::F16(_) => Some(Values::F16(vec![f16::NAN; n])),
        Values::F32(_) => Some(Values::F32(vec![f32::NAN; n])),
        Values::F64(_) => Some(Values::F64(vec![f64::NAN; n])),
        // Readers before anndata 0.11 know no text with missing values.
        Values::Str(_) => None,
        other => Some(other.zeros(n)),
    };
    let (mut all, mut missing, mut present_of) = (Vec::new(), Vec::new(), present.iter());
    for (column, &n) in columns.iter().zip(lengths) {
        match column {
            None => {
                all.push(nothing(n)?);
                missing.extend(vec![true; n]);
            }
            Some(column) => {
                all.push(present_of.next()?.clone());
                match column {
                    Column::Nullable { missing: mask, .. } => missing.extend_from_slice(mask),
                    _ => missing.extend(vec![false; n]),
                }
            }
        }
    }
    let values = Values::concatenated(&all.iter().collect::<Vec<_>>())?;
    let is_float = matches!(values, Values::F16(_) | Values::F32(_) | Values::F64(_));
    let is_nullable = columns.iter().flatten().any(|column| matches!(column, Column::Nullable { .. }));
    match is_nullable || (!is_float && missing.contains(&true)) {
        true => Some(Column::Nullable { values, missing }),
        false => Some(Column::Plain(values)),
    }
}

fn as_texts(columns: &[Option<&Column>], lengths: &[usize]) -> Column {
    let parts = columns.iter().zip(lengths);
    let texts: Vec<Option<String>> =
        parts.flat_map(|(column, &n)| column.map_or(vec![None; n], Column::to_strings)).collect();
    let mut categories: Vec<String> = texts.iter().flatten().cloned().collect();
    categories.sort_unstable();
    categories.dedup();
    let code = |text: &String| categories.binary_search(text).expect("every text is a category") as i32;
    let codes = texts.iter().map(|text| text.as_ref().map_or(Column::MISSING, code)).collect();
    Column::Categorical(Categorical::new(codes, categories.clone(), false).expect("codes are positions of categories"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(columns: &[Option<Column>], expected: &Column) {
        let lengths: Vec<usize> = columns.iter().map(|column| column.as_ref().map_or(2, Column::len)).collect();
        let columns: Vec<Option<&Column>> = columns.iter().map(Option::as_ref).collect();
        assert_eq!(&concatenated(&columns, &lengths).unwrap(), expected);
    }

    fn categorical(codes: &[i32], categories: &[&str], ordered: bool) -> Column {
        Column::Categorical(Categorical::new(codes.to_vec(), categories.to_vec(), ordered).unwrap())
    }

    #[test]
    fn categories_keep_their_order_and_later_ones_are_added() {
        let stages = categorical(&[0, 1], &["young", "adult"], true);
        check(&[Some(stages.clone()), Some(stages.clone())], &categorical(&[0, 1, 0, 1], &["young", "adult"], true));
        let others = categorical(&[1, 0], &["adult", "old"], true);
        let joined = categorical(&[0, 1, 2, 1, -1, -1], &["young", "adult", "old"], false);
        check(&[Some(stages), Some(others), None], &joined);
        let plates =
            |codes: &[i32], ids: Vec<i64>| Column::Categorical(Categorical::new(codes.to_vec(), ids, false).unwrap());
        check(&[Some(plates(&[0], vec![20])), Some(plates(&[1], vec![20, 3]))], &plates(&[0, 1], vec![20, 3]));
    }

    #[test]
    fn integers_stay_integers_with_a_mask_for_what_is_missing() {
        let (small, missing) = (Column::from(vec![1_i32, 2]), vec![false, false, true, true]);
        check(&[Some(small.clone()), Some(small.clone())], &vec![1_i32, 2, 1, 2].into());
        let values = vec![1_i32, 2, 0, 0].into();
        check(&[Some(small.clone()), None], &Column::Nullable { values, missing: missing.clone() });
        let truths = Column::from(vec![true, false]);
        let values = vec![true, false, false, false].into();
        check(&[Some(truths), None], &Column::Nullable { values, missing });
        let mixed = [Some(small), Some(vec![0.5_f32, 1.0].into())];
        check(&mixed, &vec![1.0, 2.0, 0.5, 1.0].into());
    }

    #[test]
    fn text_with_missing_values_becomes_categories() {
        check(&[Some(Column::text(["b", "a"])), None], &categorical(&[1, 0, -1, -1], &["a", "b"], false));
        let mixed = [Some(Column::text(["1", "x"])), Some(vec![1.0_f64, f64::NAN].into())];
        check(&mixed, &categorical(&[0, 1, 0, -1], &["1", "x"], false));
    }
}
