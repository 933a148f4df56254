//! Quality of cells and genes: totals, detected genes, shares of a gene set such as the mitochondrial genes.

use crate::{AnalysisError, CsrView, Result};

/// One value per cell; the columns' names in scanpy's `obs` are given with each.
#[derive(Debug, Clone, PartialEq)]
pub struct CellQuality {
    /// Genes with a count: `n_genes_by_counts`.
    pub n_genes: Vec<u32>,
    /// Sum of counts: `total_counts`.
    pub total: Vec<f64>,
    /// Per asked number of top genes, the percentage of counts in the cell's most expressed ones:
    /// `pct_counts_in_top_<n>_genes`. NaN for a cell without counts.
    pub percent_in_top: Vec<Vec<f64>>,
    /// Per gene set, the sum of its counts: `total_counts_<set>`.
    pub set_total: Vec<Vec<f64>>,
    /// Per gene set, the percentage of counts in it: `pct_counts_<set>`. NaN for a cell without counts.
    pub set_percent: Vec<Vec<f64>>,
}

/// One value per gene; the columns' names in scanpy's `var` are given with each.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneQuality {
    /// Cells with a count: `n_cells_by_counts`.
    pub n_cells: Vec<u32>,
    /// Mean count: `mean_counts`.
    pub mean: Vec<f64>,
    /// Percentage of cells without a count: `pct_dropout_by_counts`.
    pub percent_dropout: Vec<f64>,
    /// Sum of counts: `total_counts`.
    pub total: Vec<f64>,
}

/// Quality of each cell.
///
/// # Shapes   each of `sets`: `[n_genes]`, whether a gene belongs to the set
/// # Errors   a set of another number of genes, a top number of zero or beyond the genes
/// # Source   `calculate_qc_metrics` of scanpy
pub fn cell_quality(counts: CsrView<'_>, top: &[usize], sets: &[Vec<bool>]) -> Result<CellQuality> {
    if let Some(set) = sets.iter().find(|set| set.len() != counts.n_genes()) {
        return Err(AnalysisError::Length { what: "a gene set", found: set.len(), expected: counts.n_genes() });
    }
    if let Some(n) = top.iter().find(|&&n| n == 0 || n > counts.n_genes()) {
        let expected = "between 1 and the number of genes";
        return Err(AnalysisError::Option { option: "percent_top", expected, found: n.to_string() });
    }
    let (total, n_genes) = cell_totals(counts);
    let mut quality = CellQuality {
        n_genes,
        total,
        percent_in_top: vec![Vec::with_capacity(counts.n_cells()); top.len()],
        set_total: vec![Vec::with_capacity(counts.n_cells()); sets.len()],
        set_percent: vec![Vec::with_capacity(counts.n_cells()); sets.len()],
    };
    for cell in 0..counts.n_cells() {
        let (genes, values) = counts.row(cell);
        let total = quality.total[cell];
        let mut descending: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        descending.sort_by(|a, b| b.total_cmp(a));
        for (percent, &n) in quality.percent_in_top.iter_mut().zip(top) {
            percent.push(descending.iter().take(n).sum::<f64>() / total * 100.0);
        }
        for (index, set) in sets.iter().enumerate() {
            let members = genes.iter().zip(values).filter(|(gene, _)| set[**gene as usize]);
            let in_set: f64 = members.map(|(_, &value)| f64::from(value)).sum();
            quality.set_total[index].push(in_set);
            quality.set_percent[index].push(in_set / total * 100.0);
        }
    }
    Ok(quality)
}

/// Sum of counts and number of genes with a count, of each cell.
pub(super) fn cell_totals(counts: CsrView<'_>) -> (Vec<f64>, Vec<u32>) {
    let cells = (0..counts.n_cells()).map(|cell| {
        let (_, values) = counts.row(cell);
        let total: f64 = values.iter().map(|&value| f64::from(value)).sum();
        (total, values.iter().filter(|&&value| value != 0.0).count() as u32)
    });
    cells.unzip()
}

/// Quality of each gene.
///
/// # Source   `calculate_qc_metrics` of scanpy
pub fn gene_quality(counts: CsrView<'_>) -> GeneQuality {
    let mut n_cells = vec![0u32; counts.n_genes()];
    let mut total = vec![0.0; counts.n_genes()];
    for cell in 0..counts.n_cells() {
        let (genes, values) = counts.row(cell);
        for (&gene, &value) in genes.iter().zip(values) {
            n_cells[gene as usize] += u32::from(value != 0.0);
            total[gene as usize] += f64::from(value);
        }
    }
    let all = counts.n_cells() as f64;
    GeneQuality {
        mean: total.iter().map(|total| total / all).collect(),
        percent_dropout: n_cells.iter().map(|&n| 100.0 * (1.0 - f64::from(n) / all)).collect(),
        n_cells,
        total,
    }
}

/// Genes whose name starts with one of the prefixes, letters of either case: `MT-` for human and mouse mitochondria.
pub fn genes_with_prefix<S: AsRef<str>>(names: &[S], prefixes: &[&str]) -> Vec<bool> {
    let starts =
        |name: &str, prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    names.iter().map(|name| prefixes.iter().any(|prefix| starts(name.as_ref(), prefix))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_either_case_and_never_splits_a_letter() {
        assert_eq!(genes_with_prefix(&["MT-CO1", "mt-Nd1", "MTOR", "MTé"], &["MT-"]), [true, true, false, false]);
        assert_eq!(genes_with_prefix(&["Mé"], &["MT-"]), [false]);
    }

    #[test]
    fn sets_and_top_numbers_that_do_not_fit_are_refused() {
        let counts = CsrView::new(2, &[0, 1], &[0], &[3.0]).unwrap();
        assert!(matches!(cell_quality(counts, &[], &[vec![true]]), Err(AnalysisError::Length { .. })));
        assert!(matches!(cell_quality(counts, &[3], &[]), Err(AnalysisError::Option { .. })));
        assert_eq!(cell_quality(counts, &[1], &[]).unwrap().percent_in_top, [[100.0]]);
    }
}
