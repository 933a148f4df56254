//! Dense arrays of any rank, scalars among them.

use crate::{Error, Result, Values};

/// A dense row-major array; a scalar has the empty shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    values: Values,
}

impl Array {
    /// # Errors
    /// When the number of values is not the product of the shape.
    pub fn new(shape: Vec<usize>, values: impl Into<Values>) -> Result<Self> {
        let values = values.into();
        let expected = shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n));
        if expected != Some(values.len()) {
            return Err(Error::Invalid {
                kind: "array",
                detail: format!("shape {shape:?} does not hold {} values", values.len()),
            });
        }
        Ok(Self { shape, values })
    }

    /// A matrix from its rows laid end to end.
    ///
    /// # Errors
    /// As [`Array::new`].
    pub fn matrix(n_rows: usize, n_cols: usize, values: impl Into<Values>) -> Result<Self> {
        Self::new(vec![n_rows, n_cols], values)
    }

    /// A vector.
    pub fn vector(values: impl Into<Values>) -> Self {
        let values = values.into();
        Self { shape: vec![values.len()], values }
    }

    /// A scalar of text.
    pub fn text(value: impl Into<String>) -> Self {
        Self { shape: Vec::new(), values: Values::Str(vec![value.into()]) }
    }

    /// A scalar float.
    pub fn float(value: f64) -> Self {
        Self { shape: Vec::new(), values: Values::F64(vec![value]) }
    }

    /// A scalar integer.
    pub fn int(value: i64) -> Self {
        Self { shape: Vec::new(), values: Values::I64(vec![value]) }
    }

    /// Length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values in row-major order.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The values in row-major order.
    pub fn into_values(self) -> Values {
        self.values
    }

    /// The text of a scalar.
    pub fn as_text(&self) -> Option<&str> {
        match (&self.shape[..], &self.values) {
            ([], Values::Str(v)) => v.first().map(String::as_str),
            _ => None,
        }
    }

    /// Rows (slices along the first axis) at `rows`.
    ///
    /// # Panics
    /// On a scalar, and if a row is out of range.
    #[must_use]
    pub fn select_rows(&self, rows: &[usize]) -> Self {
        let width: usize = self.shape[1..].iter().product();
        let positions: Vec<usize> = rows.iter().flat_map(|&row| row * width..(row + 1) * width).collect();
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        Self { shape, values: self.values.gather(&positions) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_must_match_the_number_of_values() {
        assert!(Array::matrix(2, 2, vec![1.0_f32; 3]).is_err());
        assert!(Array::new(vec![usize::MAX, 2], vec![1_u8]).is_err());
    }

    #[test]
    fn rows_are_selected_in_order() {
        let array = Array::matrix(3, 2, vec![1_i32, 2, 3, 4, 5, 6]).unwrap();
        let rows = array.select_rows(&[2, 0]);
        assert_eq!((rows.shape(), rows.values()), (&[2, 2][..], &Values::I32(vec![5, 6, 1, 2])));
    }
}
