//! Chosen cells of a file into another, with everything that is known about them.
//!
//! Matrices with a row per cell are copied a piece of rows at a time, so that a file larger than memory is as good as any
//! other; the rest passes through memory, where a caller can change it. Matrices by columns have no rows to go by and pass
//! through memory as well.

use std::{mem, ops::Range, path::Path};

use hdf5::{Dataset, File, Group};

use super::{atomically, check_key, create_group, element::has_narrow_indices, write_root};
use crate::{
    AnnData, Array, Compression, Csr, DataFrame, Dict, Error, H5adFile, Result, RowReader, Values,
    anndata::check_axis,
    h5,
    read::{self, Large, matrix::read_indices},
    rows::{ByRows, Source},
};

impl H5adFile {
    /// Writes the cells at `rows`, which ascend, to another file as `read_all`, `select_obs` and `write` would, without
    /// holding their matrices in memory. `change` is handed the rest (no X, no layers, no matrices of `obsm`) and may change
    /// and add to it; `progress` hears the share of the matrices that is written.
    ///
    /// # Errors
    /// When the file is malformed, its parts disagree, rows do not ascend, or the disk refuses; and those of `change`.
    pub fn write_cells(
        &self,
        rows: &[usize],
        path: impl AsRef<Path>,
        compression: Compression,
        change: impl FnOnce(&mut AnnData) -> Result<()>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<()> {
        let (whole, mut large) = self.around_matrices(rows)?;
        let mut rest = whole.rows(rows);
        change(&mut rest)?;
        rest.check()?;
        // What was added replaces what the file has under that name.
        large.obsm.retain(|name, _| !rest.obsm.contains_key(name));
        let total = large.readers().map(RowReader::n_stored).sum::<usize>().max(1);
        let mut report = |done: usize| progress(done as f64 / total as f64);
        let mut copies = Copies { large, rows, done: 0, report: Some(&mut report) };
        rest.beside.check(rest.obs_names(), rest.var_names())?;
        atomically(path.as_ref(), &rest.beside.user_block(), |root| write_root(&rest, &mut copies, root, compression))
    }

    /// Whether [`H5adFile::write_cells`] can write these cells, as far as that is known without their matrices: everything else is
    /// written once, of no cell, to a file in memory.
    ///
    /// # Errors
    /// Those that `write_cells` would end with.
    pub fn check_writable(&self, rows: &[usize]) -> Result<()> {
        let (whole, large) = self.around_matrices(rows)?;
        let mut copies = Copies { large, rows: &[], done: 0, report: None };
        let failed = |source| Error::Hdf5 { action: "write", object: "/".into(), path: self.path().to_owned(), source };
        let in_memory = File::with_options().with_fapl(|plist| plist.core_filebacked(false)).create(REHEARSAL);
        let file = in_memory.map_err(failed)?;
        write_root(&whole.rows(&[]), &mut copies, &h5::group(&file, "/")?, Compression::None)
    }

    /// What is beside the matrices of the file, which agree with it, as modalities do with the rows that are chosen.
    fn around_matrices(&self, rows: &[usize]) -> Result<(AnnData, Large)> {
        if !rows.is_sorted_by(|a, b| a < b) || rows.last().is_some_and(|&last| last >= self.n_obs()) {
            let detail = format!("rows that do not ascend below {}", self.n_obs());
            return Err(Error::Invalid { kind: "selection of cells", detail });
        }
        let (whole, large) = read::around_matrices(&self.root()?)?;
        self.check_large(&whole, &large).and_then(|()| whole.check()).map_err(|e| read::in_file(e, self.path()))?;
        whole.beside.check_choice(rows, whole.n_obs())?;
        Ok((whole, large))
    }

    fn check_large(&self, rest: &AnnData, large: &Large) -> Result<()> {
        let (n_obs, n_vars) = (rest.n_obs(), rest.n_vars());
        let x = large.x.iter().map(|x| ("X".to_owned(), x));
        for (part, matrix) in x.chain(large.layers.iter().map(|(name, layer)| (format!("layers/{name}"), layer))) {
            check_axis(&part, matrix.n_rows(), ("cells", n_obs, "obs"))?;
            check_axis(&part, matrix.n_cols(), ("genes", n_vars, "var"))?;
        }
        for (name, matrix) in &large.obsm {
            check_axis(&format!("obsm/{name}"), matrix.n_rows(), ("cells", n_obs, "obs"))?;
        }
        if let Some((x, var, _)) = &large.raw {
            check_axis("raw/X", x.n_rows(), ("cells", n_obs, "obs"))?;
            check_axis("raw/X", x.n_cols(), ("genes", var.n_rows(), "raw/var"))?;
        }
        Ok(())
    }
}

impl AnnData {
    /// Writes this data set with another matrix as X, a piece of it at a time: it may lie in a
    /// [`Storage`](crate::Storage) and be larger than memory.
    ///
    /// # Errors
    /// As [`AnnData::write`]; when there is an X already.
    pub fn write_with_x(&self, x: &Csr, path: impl AsRef<Path>, compression: Compression) -> Result<()> {
        if self.x.is_some() {
            return Err(Error::Invalid { kind: "data set", detail: "it has an X already".to_owned() });
        }
        self.check()?;
        check_axis("X", x.n_rows(), ("cells", self.n_obs(), "obs"))?;
        check_axis("X", x.n_cols(), ("genes", self.n_vars(), "var"))?;
        atomically(path.as_ref(), &self.beside.user_block(), |root| {
            write_csr(root, "X", x, compression)?;
            write_root(self, &mut Copies::none(), root, compression)
        })
    }
}

/// HDF5 wants a name for a file that never reaches a disk.
const REHEARSAL: &str = "archipelago-rehearsal.h5ad";

fn write_csr(parent: &Group, name: &str, x: &Csr, compression: Compression) -> Result<()> {
    let shape = (x.n_rows(), x.n_cols());
    let to = SparseTarget::create(parent, name, shape, x.nnz(), &Values::F32(vec![]), compression)?;
    let (columns, values) = (x.indices().chunks(VALUES_AT_ONCE), x.data().chunks(VALUES_AT_ONCE));
    for (at, (columns, values)) in (0..).step_by(VALUES_AT_ONCE).zip(columns.zip(values)) {
        to.fill(at, columns, &Values::F32(values.to_vec()))?;
    }
    to.finish(x.indptr(), compression)
}

/// Values of a matrix that are copied while it is written.
const VALUES_AT_ONCE: usize = 1 << 20;

/// A sparse matrix by rows that is being written.
struct SparseTarget {
    group: Group,
    data: Dataset,
    indices: Dataset,
    narrow: bool,
}

impl SparseTarget {
    fn create(
        parent: &Group,
        name: &str,
        shape: (usize, usize),
        n_stored: usize,
        like: &Values,
        compression: Compression,
    ) -> Result<Self> {
        let group = create_group(parent, name, "csr_matrix", "0.1.0")?;
        h5::attribute::write(&group, "shape", &Array::vector(vec![shape.0 as i64, shape.1 as i64]))?;
        let narrow = has_narrow_indices(n_stored, shape);
        let data = h5::dataset::create(&group, "data", &[n_stored], like, compression)?;
        let indices = h5::dataset::create(&group, "indices", &[n_stored], &indices_of(&[], narrow), compression)?;
        Ok(Self { group, data, indices, narrow })
    }

    /// Writes stored values from number `at` on.
    fn fill(&self, at: usize, columns: &[u32], values: &Values) -> Result<()> {
        h5::dataset::fill_elements(&self.data, at, values)?;
        h5::dataset::fill_elements(&self.indices, at, &indices_of(columns, self.narrow))
    }

    /// Writes where each row starts.
    fn finish(self, starts: &[usize], compression: Compression) -> Result<()> {
        let starts = if self.narrow {
            Values::I32(starts.iter().map(|&start| start as i32).collect())
        } else {
            Values::I64(starts.iter().map(|&start| start as i64).collect())
        };
        h5::dataset::write_values(&self.group, "indptr", &[starts.len()], &starts, compression).map(drop)
    }
}

impl Large {
    fn readers(&self) -> impl Iterator<Item = &RowReader> {
        let raw = self.raw.iter().map(|(x, ..)| x);
        self.x.iter().chain(self.layers.values()).chain(self.obsm.values()).chain(raw)
    }
}

/// Matrices that are copied from a file while the rest of a data set is written.
pub(super) struct Copies<'a> {
    large: Large,
    /// The rows that are taken.
    rows: &'a [usize],
    /// Values that were looked at.
    done: usize,
    report: Option<&'a mut dyn FnMut(usize)>,
}

/// Which of them.
pub(super) enum Copy {
    X,
    Layers,
    Obsm,
    Raw,
}

impl Copies<'_> {
    /// Nothing to copy.
    pub(super) fn none() -> Self {
        Self { large: Large::default(), rows: &[], done: 0, report: None }
    }

    /// The genes of a `raw` whose matrix is copied.
    pub(super) fn raw(&mut self) -> Option<(DataFrame, Dict)> {
        self.large.raw.as_mut().map(|(_, var, varm)| (mem::take(var), mem::take(varm)))
    }

    /// Copies the matrices of a kind into the group where they belong.
    pub(super) fn write(&mut self, which: Copy, parent: &Group, compression: Compression) -> Result<()> {
        let matrices: Vec<(String, RowReader)> = match which {
            Copy::X => self.large.x.take().map(|x| ("X".to_owned(), x)).into_iter().collect(),
            Copy::Layers => mem::take(&mut self.large.layers).into_iter().collect(),
            Copy::Obsm => mem::take(&mut self.large.obsm).into_iter().collect(),
            Copy::Raw => self.large.raw.take().map(|(x, ..)| ("X".to_owned(), x)).into_iter().collect(),
        };
        for (name, matrix) in matrices {
            check_key(parent, &name)?;
            match &matrix.source {
                Source::Dense(dataset) => self.copy_dense(&matrix, dataset, parent, &name, compression)?,
                Source::ByRows(from) => self.copy_sparse(&matrix, from, parent, &name, compression)?,
                Source::InMemory(_) => unreachable!("matrices by columns are not read by rows"),
            }
        }
        Ok(())
    }

    fn copy_dense(
        &mut self,
        matrix: &RowReader,
        from: &Dataset,
        parent: &Group,
        name: &str,
        compression: Compression,
    ) -> Result<()> {
        let (n_cols, like) = (matrix.n_cols(), h5::dataset::no_values(from)?);
        let to = h5::dataset::create(parent, name, &[self.rows.len(), n_cols], &like, compression)?;
        h5::attribute::write_encoding(&to, "array", "0.2.0")?;
        for Piece { rows, taken, at } in pieces(matrix, self.rows) {
            if n_cols == 0 || taken.is_empty() {
                continue;
            }
            let mut values = h5::dataset::rows_at(from, rows.clone())?;
            if taken.len() < rows.len() {
                let of_row = |&row: &usize| (row - rows.start) * n_cols..(row - rows.start + 1) * n_cols;
                values = values.gather(&taken.iter().flat_map(of_row).collect::<Vec<_>>());
            }
            h5::dataset::fill_rows(&to, at, n_cols, &values)?;
            self.count(rows.len() * n_cols);
        }
        Ok(())
    }

    fn copy_sparse(
        &mut self,
        matrix: &RowReader,
        from: &ByRows,
        parent: &Group,
        name: &str,
        compression: Compression,
    ) -> Result<()> {
        let ByRows { group: whole, data, indices, indptr } = from;
        let mut starts = vec![0];
        for &row in self.rows {
            starts.push(starts[starts.len() - 1] + indptr[row + 1] - indptr[row]);
        }
        let (n_cols, n_stored) = (matrix.n_cols(), starts[starts.len() - 1]);
        let like = h5::dataset::no_values(data)?;
        let to = SparseTarget::create(parent, name, (self.rows.len(), n_cols), n_stored, &like, compression)?;
        for Piece { rows, taken, at } in pieces(matrix, self.rows) {
            let stored = indptr[rows.start]..indptr[rows.end];
            if taken.is_empty() || stored.is_empty() {
                continue;
            }
            let mut values = h5::dataset::elements_at(data, stored.clone())?;
            let mut columns = read_indices(indices, stored.clone())?;
            if let Some(beyond) = columns.iter().find(|&&column| column as usize >= n_cols) {
                return Err(h5::malformed(whole, format!("index {beyond} in an axis of {n_cols}")));
            }
            if taken.len() < rows.len() {
                let of_row = |&row: &usize| indptr[row] - stored.start..indptr[row + 1] - stored.start;
                let positions: Vec<usize> = taken.iter().flat_map(of_row).collect();
                values = values.gather(&positions);
                columns = positions.iter().map(|&position| columns[position]).collect();
            }
            to.fill(starts[at], &columns, &values)?;
            self.count(stored.len());
        }
        to.finish(&starts, compression)
    }

    /// So many more values are done with.
    fn count(&mut self, n: usize) {
        self.done += n;
        if let Some(report) = &mut self.report {
            report(self.done);
        }
    }
}

/// Some rows of a matrix, those of them that are taken, and how many were taken before.
struct Piece<'a> {
    rows: Range<usize>,
    taken: &'a [usize],
    at: usize,
}

fn pieces<'a>(matrix: &RowReader, rows: &'a [usize]) -> impl Iterator<Item = Piece<'a>> {
    matrix.pieces().into_iter().map(move |piece| {
        let below = |row: usize| rows.partition_point(|&taken| taken < row);
        let (at, end) = (below(piece.start), below(piece.end));
        Piece { rows: piece, taken: &rows[at..end], at }
    })
}

/// Column numbers as they are written.
fn indices_of(columns: &[u32], narrow: bool) -> Values {
    if narrow {
        Values::I32(columns.iter().map(|&column| column as i32).collect())
    } else {
        Values::I64(columns.iter().map(|&column| i64::from(column)).collect())
    }
}
