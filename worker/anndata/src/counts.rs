//! Whether a matrix holds counts.

use crate::{Csr, Error, Result};

/// Names of empty cells that a report keeps.
const N_EXAMPLES: usize = 5;

/// What a matrix of counts looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct CountReport {
    /// Cells without a single count.
    pub n_empty_cells: usize,
    /// Rows of the first few of them.
    pub first_empty_rows: Vec<usize>,
    /// Largest count.
    pub max: f32,
}

/// Checks that every value is a whole number of at least zero and that there are cells.
///
/// `genes` names the columns for the error; where it is too short, columns are numbered. Cells without counts are
/// legal (they carry no information) and reported.
///
/// # Errors
/// [`Error::NoCells`], or [`Error::NotCounts`] with the first value that is negative, fractional or not finite.
pub fn check(matrix: &Csr, genes: &[String]) -> Result<CountReport> {
    if matrix.n_rows() == 0 {
        return Err(Error::NoCells);
    }
    let mut report = CountReport { n_empty_cells: 0, first_empty_rows: Vec::new(), max: 0.0 };
    for cell_row in 0..matrix.n_rows() {
        let (cols, values) = matrix.row(cell_row);
        if let Some(at) = values.iter().position(|&value| !is_count(value)) {
            let col = cols[at] as usize;
            let gene = genes.get(col).cloned().unwrap_or_else(|| format!("#{col}"));
            return Err(Error::NotCounts { cell_row, gene, value: values[at], counted: Vec::new() });
        }
        report.max = values.iter().copied().fold(report.max, f32::max);
        if values.iter().all(|&value| value == 0.0) {
            report.n_empty_cells += 1;
            if report.first_empty_rows.len() < N_EXAMPLES {
                report.first_empty_rows.push(cell_row);
            }
        }
    }
    Ok(report)
}

/// Whether a value can be a count.
pub fn is_count(value: f32) -> bool {
    value.is_finite() && value >= 0.0 && value.fract() == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(dense: &[f32]) -> Result<CountReport> {
        let matrix = Csr::from_dense(dense.len() / 2, 2, dense)?;
        check(&matrix, &["CD3D".into(), "MS4A1".into()])
    }

    #[test]
    fn a_value_that_is_no_count_is_named() {
        for (value, shown) in [(-1.0, "-1"), (0.5, "0.5"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
            let message = verdict(&[1.0, 0.0, 3.0, value]).unwrap_err().to_string();
            assert!(message.contains(&format!("cell row 1, gene `MS4A1` holds {shown}")), "{message}");
        }
        assert!(verdict(&[0.5, 0.0]).unwrap_err().hint().unwrap().contains("--layer counts"));
    }

    #[test]
    fn no_cells_are_refused() {
        assert!(matches!(verdict(&[]), Err(Error::NoCells)));
    }

    #[test]
    fn empty_cells_are_reported() {
        let report = verdict(&[0.0, 0.0, 0.0, 7.0, 0.0, 0.0]).unwrap();
        assert_eq!((report.n_empty_cells, report.first_empty_rows, report.max), (2, vec![0, 2], 7.0));
    }
}
