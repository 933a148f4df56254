//! Reading counts: a piece of rows at a time, into one matrix or one for each batch, in memory or beyond.

use std::ops::Range;

use archipelago_anndata::{
    Csr, CsrBuilder,
    align::{Alignment, align},
};

use super::SiteData;
use crate::{
    error::{Error, Result},
    fields::{Source, ValueCheck},
};

/// Counts in the order of a gene panel.
#[derive(Debug)]
pub struct AlignedCounts<C = Csr> {
    /// Cells used × genes of the panel.
    pub counts: C,
    /// How the file's genes met the panel.
    pub alignment: Alignment,
    /// Cells without a single count among the panel's genes.
    pub n_empty_cells: usize,
}

impl SiteData {
    /// Reads the counts of the cells used, in the order of `panel`.
    ///
    /// # Errors  [`Error::WrongValues`], [`Error::Cells`] where no gene matches, or there is no room for them
    pub fn counts(&self, panel: &[String]) -> Result<AlignedCounts> {
        let AlignedCounts { mut counts, alignment, n_empty_cells } =
            self.read_counts(panel, &vec![0; self.n_cells()], 1)?;
        Ok(AlignedCounts { counts: counts.swap_remove(0), alignment, n_empty_cells })
    }

    /// The same, the cells of each group by themselves, in the order of the file; there is no second copy of them. Every cell
    /// is in one group.
    ///
    /// # Errors  as [`SiteData::counts`]
    pub fn counts_by_group(&self, panel: &[String], groups: &[Vec<usize>]) -> Result<AlignedCounts<Vec<Csr>>> {
        let mut group_of = vec![0; self.n_cells()];
        for (group, cells) in groups.iter().enumerate() {
            cells.iter().for_each(|&cell| group_of[cell] = group);
        }
        self.read_counts(panel, &group_of, groups.len())
    }

    /// Reads counts into one matrix for each group of cells.
    fn read_counts(&self, panel: &[String], group_of: &[usize], n_groups: usize) -> Result<AlignedCounts<Vec<Csr>>> {
        let cells = |source| Error::Cells { path: self.spec.path.clone(), source };
        let alignment = align(self.genes(), panel, self.spec.duplicate_genes).map_err(cells)?;
        if alignment.coverage() < FULL_ENOUGH {
            let (n_found, n_panel) = (alignment.n_found, alignment.n_panel);
            tracing::warn!(
                n_found,
                n_panel,
                "the query has under 80 % of the panel's genes; the rest are taken as zero"
            );
        }
        let reader = self.file.rows(self.preparation.layer()).map_err(cells)?;
        let genes = self.file.genes(self.preparation.layer()).map_err(cells)?.index();
        let storage = &self.handling.storage;
        if reader.is_held() && !storage.could_hold(reader.n_stored() as u64 * BYTES_PER_COUNT) {
            tracing::warn!(
                "the counts are stored by columns (CSC), so all of them are in memory while they are read; a file that is \
                 written by rows (CSR) keeps within `--memory`"
            );
        }
        let display = self.handling.output.work("reading counts");
        let (modality, layer) = (self.spec.fields.rna_modality(), self.preparation.layer());
        let place = Source::Matrix { modality: modality.map(str::to_owned), layer: layer.map(str::to_owned) };
        let check = ValueCheck::new(&self.spec.path, place.to_string(), self.spec.values(), genes);
        let mut check = if self.spec.fractional_counts { check.taking_fractions() } else { check };
        let builder = || CsrBuilder::new(panel.len(), storage, reader.n_stored());
        let mut groups: Vec<CsrBuilder> = (0..n_groups).map(|_| builder()).collect();
        let mut n_empty_cells = 0;
        let wanted = |range: &Range<usize>| !self.used_in(range).is_empty();
        let read = reader.read_ahead(reader.pieces().into_iter().filter(wanted), |range, rows| {
            let used = self.used_in(&range);
            let here = &self.rows[used.clone()];
            let chosen = match here.len() == range.len() {
                true => rows,
                false => rows.select_rows(&here.iter().map(|row| row - range.start).collect::<Vec<_>>()),
            };
            check.piece(&chosen, here)?;
            let aligned = alignment.apply(&self.preparation.rename(chosen)?)?;
            n_empty_cells += aligned.row_sums().iter().filter(|&&sum| sum == 0.0).count();
            push_groups(&mut groups, &aligned, &group_of[used.clone()])?;
            display.share(used.end as f64 / self.n_cells() as f64);
            Ok::<(), Error>(())
        });
        read.and_then(|()| check.finish()).map_err(|error| match error {
            Error::Anndata(source) => cells(source),
            other => other,
        })?;
        if n_empty_cells > 0 {
            tracing::warn!(n_empty_cells, "cells have no count in the panel's genes; the model knows nothing of them");
        }
        let counts = groups.into_iter().map(CsrBuilder::finish).collect::<Result<_, _>>().map_err(cells)?;
        self.handling.note_spilled();
        Ok(AlignedCounts { counts, alignment, n_empty_cells })
    }

    /// Positions among the cells used of those that are in these rows of the file.
    fn used_in(&self, rows: &Range<usize>) -> Range<usize> {
        self.rows.partition_point(|&row| row < rows.start)..self.rows.partition_point(|&row| row < rows.end)
    }
}

/// Appends each row to the matrix of its group.
fn push_groups(groups: &mut [CsrBuilder], rows: &Csr, group_of: &[usize]) -> archipelago_anndata::Result<()> {
    if let [one] = groups {
        return one.push(rows);
    }
    let mut own = vec![Vec::new(); groups.len()];
    group_of.iter().enumerate().for_each(|(row, &group)| own[group].push(row));
    let some = groups.iter_mut().zip(own).filter(|(_, own)| !own.is_empty());
    some.into_iter().try_for_each(|(group, own)| group.push(&rows.select_rows(&own)))
}

/// A count and its column.
const BYTES_PER_COUNT: u64 = 8;
/// Below this share of the panel's genes a mapping is doubtful; upstream warns there as well.
const FULL_ENOUGH: f64 = 0.8;
