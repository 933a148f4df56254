//! Whether the numbers of a matrix are what a model takes them for.

use std::path::Path;

use archipelago_anndata::Csr;
use archipelago_models::data::Values;

use crate::error::{Error, Result};

/// Looks at a matrix piece by piece.
pub(crate) struct ValueCheck<'a> {
    path: &'a Path,
    /// Where in the file the matrix is.
    place: String,
    values: Values,
    /// Names of the columns.
    names: &'a [String],
    has_values: bool,
    has_fractions: bool,
    /// Whether counts may have fractions.
    takes_fractions: bool,
}

impl<'a> ValueCheck<'a> {
    pub(crate) fn new(path: &'a Path, place: impl Into<String>, values: Values, names: &'a [String]) -> Self {
        let place = place.into();
        Self { path, place, values, names, has_values: false, has_fractions: false, takes_fractions: false }
    }

    /// The same check, which takes counts that are no whole numbers.
    pub(crate) fn taking_fractions(self) -> Self {
        Self { takes_fractions: true, ..self }
    }

    /// Checks some rows; `rows` are their numbers in the file.
    ///
    /// # Errors  [`Error::WrongValues`] with the first value that is none of those expected
    pub(crate) fn piece(&mut self, matrix: &Csr, rows: &[usize]) -> Result<()> {
        for (at, &row) in rows.iter().enumerate() {
            let (columns, values) = matrix.row(at);
            if let Some(wrong) = values.iter().position(|&value| !self.allows(value)) {
                let name = self.names.get(columns[wrong] as usize).map_or("?", String::as_str);
                return Err(self.refuse(format!("{} for `{name}` in row {row}", values[wrong])));
            }
            self.has_values |= values.iter().any(|&value| value > 0.0);
            self.has_fractions |= values.iter().any(|&value| value.fract() != 0.0);
        }
        Ok(())
    }

    fn allows(&self, value: f32) -> bool {
        let number = if self.takes_fractions && self.values == Values::Counts { value.floor() } else { value };
        self.values.allow(number)
    }

    /// Checks what only the whole tells, and says where counts have fractions.
    ///
    /// # Errors  [`Error::WrongValues`] for whole numbers where logarithms are expected
    pub(crate) fn finish(self) -> Result<()> {
        let are_counts = self.has_values && !self.has_fractions;
        if self.values == Values::Counts && self.has_fractions {
            let (path, place) = (self.path.display(), &self.place);
            tracing::warn!(
                "`{place}` of `{path}` holds numbers that are not whole; a distribution of counts is not made for them"
            );
        }
        match self.values == Values::LogNormalised && are_counts {
            true => Err(self.refuse("whole numbers only, as raw counts are".to_owned())),
            false => Ok(()),
        }
    }

    fn refuse(&self, found: String) -> Error {
        let (path, place) = (self.path.into(), self.place.clone());
        Error::WrongValues { path, place, found, expected: self.values.expected() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: Values, numbers: [f32; 4]) -> Result<(), String> {
        checked(values, false, numbers)
    }

    fn check_fractions(numbers: [f32; 4]) -> Result<(), String> {
        checked(Values::Counts, true, numbers)
    }

    fn checked(values: Values, takes_fractions: bool, numbers: [f32; 4]) -> Result<(), String> {
        let names = ["g0", "g1"].map(str::to_owned);
        let matrix = Csr::from_dense(2, 2, &numbers).unwrap();
        let check = ValueCheck::new(Path::new("cells.h5ad"), "layers/counts", values, &names);
        let mut check = if takes_fractions { check.taking_fractions() } else { check };
        check.piece(&matrix, &[5, 9]).and_then(|()| check.finish()).map_err(|error| error.to_string())
    }

    #[test]
    fn counts_and_logarithms_are_told_apart() {
        check(Values::Counts, [1.0, 0.0, 3.0, 4.0]).unwrap();
        check(Values::LogNormalised, [1.0, 0.0, 3.25, 4.0]).unwrap();
        check(Values::LogNormalised, [0.0; 4]).unwrap();
        let refused = check(Values::Counts, [1.0, 0.0, 3.0, 0.5]).unwrap_err();
        assert_eq!(
            refused,
            "`layers/counts` of `cells.h5ad` holds 0.5 for `g1` in row 9, expected raw counts, whole numbers of at least 0"
        );
        for (wrong, named) in
            [(-0.5, "-0.5 for `g0` in row 5"), (f32::NAN, "NaN for `g0`"), (f32::INFINITY, "inf for `g0`")]
        {
            assert!(check_fractions([wrong, 0.0, 3.0, 0.5]).unwrap_err().contains(named));
        }
        check_fractions([0.25, 0.0, 3.0, 0.5]).unwrap();
        let refused = check(Values::LogNormalised, [1.0, 0.0, 3.0, 4.0]).unwrap_err();
        assert!(refused.contains("whole numbers only") && refused.contains("log-transformed"), "{refused}");
        assert!(
            check(Values::LogNormalised, [1000.5, 0.0, 3.0, 4.0]).unwrap_err().contains("1000.5 for `g0` in row 5")
        );
    }
}
