//! Rows of a file, a few at a time.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
    sync::mpsc::sync_channel,
    thread,
};

use hdf5::{Dataset, File, Group};

use crate::{
    AnnData, Csr, DataFrame, Element, Error, Layout, Nested, Result,
    anndata::check_axis,
    awkward,
    beside::MODALITIES,
    cellranger, h5,
    read::{self, element, matrix},
};

/// An open h5ad file: names and annotations in memory, measurements on disk.
#[derive(Debug)]
pub struct H5adFile {
    path: PathBuf,
    file: File,
    /// The group that holds the data set: the root, or one modality.
    at: String,
    modalities: Vec<String>,
    obs: DataFrame,
    var: DataFrame,
    /// The genes of `raw`, once somebody asked for them.
    raw_var: OnceLock<DataFrame>,
}

/// Rows of one matrix (cells × genes) of a file, read on demand.
///
/// Memory is that of the rows asked for, plus 8 bytes per cell for a matrix by rows. A dense matrix is made sparse
/// chunk by chunk. A matrix by columns (CSC) has no rows to seek to: it is read and transposed whole when the reader is
/// made; rewrite such a file by rows if it does not fit into memory.
#[derive(Debug)]
pub struct RowReader {
    n_rows: usize,
    n_cols: usize,
    pub(crate) source: Source,
}

#[derive(Debug)]
pub(crate) enum Source {
    Dense(Dataset),
    ByRows(ByRows),
    InMemory(Csr),
}

/// Parts of a matrix by rows; where each row starts is in memory.
#[derive(Debug)]
pub(crate) struct ByRows {
    pub(crate) group: Group,
    pub(crate) data: Dataset,
    pub(crate) indices: Dataset,
    pub(crate) indptr: Vec<usize>,
}

impl H5adFile {
    /// Opens a file and reads `obs` and `var`.
    ///
    /// # Errors
    /// When the file is absent, broken or leaves itself through a link, or `X` is not as large as `obs` × `var`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_at(path.as_ref(), "/".to_owned())
    }

    /// Opens one modality of an h5mu file and reads its `obs` and `var`.
    ///
    /// # Errors
    /// [`Error::Missing`] with the modalities there are, and as [`H5adFile::open`].
    pub fn open_modality(path: impl AsRef<Path>, modality: &str) -> Result<Self> {
        let path = path.as_ref();
        let file = cellranger::open(path)?;
        let available = modalities(&h5::group(&file, "/")?)?;
        if !available.iter().any(|name| name == modality) {
            return Err(Error::Missing { kind: "modality", name: modality.to_owned(), available });
        }
        Self::open_at(path, format!("/{MODALITIES}/{modality}"))
    }

    fn open_at(path: &Path, at: String) -> Result<Self> {
        let path = path.to_owned();
        let file = cellranger::open(&path)?;
        let _reading = h5::Reading::begin(&file);
        let modalities = modalities(&h5::group(&file, "/")?)?;
        let (obs, var, _) = read::annotations(&h5::group(&file, &at)?)?;
        let opened = Self { path, file, at, modalities, obs, var, raw_var: OnceLock::new() };
        if opened.has_x()? {
            opened.reader(&opened.root()?, "X", Eager::No)?;
        }
        Ok(opened)
    }

    /// Path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the modalities of an h5mu file; none in an h5ad file.
    pub fn modalities(&self) -> &[String] {
        &self.modalities
    }

    /// Number of cells.
    pub fn n_obs(&self) -> usize {
        self.obs.n_rows()
    }

    /// Number of genes.
    pub fn n_vars(&self) -> usize {
        self.var.n_rows()
    }

    /// Annotations of the cells.
    pub fn obs(&self) -> &DataFrame {
        &self.obs
    }

    /// Annotations of the genes.
    pub fn var(&self) -> &DataFrame {
        &self.var
    }

    /// Whether there is an `X`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn has_x(&self) -> Result<bool> {
        let root = self.root()?;
        if !root.link_exists("X") {
            return Ok(false);
        }
        if h5::is_group(&root, "X")? {
            return Ok(true);
        }
        let dataset = h5::dataset::open(&root, "X")?;
        Ok(!h5::dataset::is_null(&dataset)?)
    }

    /// Names of the layers.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn layers(&self) -> Result<Vec<String>> {
        self.names("layers")
    }

    /// Names in a group of the file such as `obsm`; none where the file lacks it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn names(&self, group: &str) -> Result<Vec<String>> {
        let root = self.root()?;
        if !root.link_exists(group) || !h5::is_group(&root, group)? {
            return Ok(Vec::new());
        }
        h5::names(&h5::group(&root, group)?)
    }

    /// Rows of `X`, of the named layer, or of `raw` where no layer is called so.
    ///
    /// # Errors
    /// [`Error::NoX`], [`Error::Missing`] with the layers there are, or a malformed matrix.
    pub fn rows(&self, layer: Option<&str>) -> Result<RowReader> {
        let (root, _reading) = (self.root()?, h5::Reading::begin(&self.file));
        match self.place(layer)? {
            Place::X if !self.has_x()? => Err(Error::NoX { path: self.path.clone(), counted: self.counted()? }),
            Place::X => self.reader(&root, "X", Eager::Yes),
            Place::Layer(name) => self.reader(&h5::group(&root, "layers")?, name, Eager::Yes),
            Place::Raw => {
                let (group, x, ..) = read::raw_parts(&root)?.ok_or_else(|| self.no_layer(RAW))?;
                let reader = RowReader::open(&group, x, Eager::Yes)?;
                check_axis("raw/X", reader.n_rows, ("cells", self.n_obs(), "obs"))?;
                check_axis("raw/X", reader.n_cols, ("genes", self.genes(Some(RAW))?.n_rows(), "raw/var"))?;
                Ok(reader)
            }
        }
    }

    /// Annotations of the genes of `X`, of a layer, or of `raw` where no layer is called so.
    ///
    /// # Errors
    /// [`Error::Missing`] with the layers there are; when the genes of `raw` cannot be read.
    pub fn genes(&self, layer: Option<&str>) -> Result<&DataFrame> {
        if !matches!(self.place(layer)?, Place::Raw) {
            return Ok(&self.var);
        }
        if let Some(var) = self.raw_var.get() {
            return Ok(var);
        }
        let (group, _, var, _) = read::raw_parts(&self.root()?)?.ok_or_else(|| self.no_layer(RAW))?;
        let var = read::frame::read(&group, var)?;
        Ok(self.raw_var.get_or_init(|| var))
    }

    /// Where the measurements lie that are asked for.
    fn place<'a>(&self, layer: Option<&'a str>) -> Result<Place<'a>> {
        let Some(layer) = layer else { return Ok(Place::X) };
        if self.layers()?.iter().any(|name| name == layer) {
            return Ok(Place::Layer(layer));
        }
        match layer == RAW && read::raw_parts(&self.root()?)?.is_some() {
            true => Ok(Place::Raw),
            false => Err(self.no_layer(layer)),
        }
    }

    fn no_layer(&self, name: &str) -> Error {
        let mut available = self.layers().unwrap_or_default();
        if self.root().and_then(|root| read::raw_parts(&root)).is_ok_and(|raw| raw.is_some()) {
            available.push(RAW.to_owned());
        }
        Error::Missing { kind: "layer", name: name.to_owned(), available }
    }

    /// Names of the layers whose values look like counts, `raw` among them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn counted(&self) -> Result<Vec<String>> {
        crate::inspect::counted(self)
    }

    /// The same error, with the layers of the file that look like counts where that is what is wrong.
    #[must_use]
    pub fn advise(&self, error: Error) -> Error {
        match error {
            Error::NotCounts { cell_row, gene, value, .. } => {
                let counted = self.counted().unwrap_or_default();
                Error::NotCounts { cell_row, gene, value, counted }
            }
            other => other,
        }
    }

    /// One element of `obsm`.
    ///
    /// # Errors
    /// [`Error::Missing`] with the names there are, or a malformed element.
    pub fn obsm(&self, name: &str) -> Result<Element> {
        self.element("obsm", name)
    }

    /// The value of each row in an awkward array of `obsm`; of records, the fields of these names. None where `obsm` has no such
    /// element.
    ///
    /// # Errors
    /// [`Error::Kind`] for an element of another kind, and what is malformed.
    pub fn nested(&self, name: &str, fields: &[&str]) -> Result<Option<Vec<Nested>>> {
        let (root, _reading) = (self.root()?, h5::Reading::begin(&self.file));
        if !self.names("obsm")?.iter().any(|known| known == name) {
            return Ok(None);
        }
        let group = h5::group(&h5::group(&root, "obsm")?, name).map_err(|_| Error::Kind {
            name: format!("obsm/{name}"),
            found: "a table".to_owned(),
            expected: "an awkward array",
        })?;
        awkward::read(&group, fields).map(Some)
    }

    /// One element of `varm`.
    ///
    /// # Errors
    /// As [`H5adFile::obsm`].
    pub fn varm(&self, name: &str) -> Result<Element> {
        self.element("varm", name)
    }

    /// One element of `uns`.
    ///
    /// # Errors
    /// As [`H5adFile::obsm`].
    pub fn uns(&self, name: &str) -> Result<Element> {
        self.element("uns", name)
    }

    /// Everything.
    ///
    /// # Errors
    /// As [`AnnData::read`].
    pub fn read_all(&self) -> Result<AnnData> {
        read::read(&self.path, &self.at)
    }

    pub(crate) fn root(&self) -> Result<Group> {
        h5::group(&self.file, &self.at)
    }

    fn element(&self, group: &'static str, name: &str) -> Result<Element> {
        let (root, _reading) = (self.root()?, h5::Reading::begin(&self.file));
        if self.names(group)?.iter().any(|known| known == name) {
            return element::read(&h5::group(&root, group)?, name);
        }
        // In the oldest files the whole of obsm is one dataset.
        let mut mapping = read::mapping(&root, group)?;
        let available = mapping.keys().cloned().collect();
        mapping.remove(name).ok_or_else(|| Error::Missing { kind: group, name: name.to_owned(), available })
    }

    fn reader(&self, parent: &Group, name: &str, eager: Eager) -> Result<RowReader> {
        let reader = RowReader::open(parent, name, eager)?;
        let part = format!("{}/{name} of {}", parent.name(), self.path.display());
        let part = part.trim_start_matches('/');
        check_axis(part, reader.n_rows, ("cells", self.n_obs(), "obs"))?;
        check_axis(part, reader.n_cols, ("genes", self.n_vars(), "var"))?;
        Ok(reader)
    }
}

/// Names of the modalities below the root of a file.
fn modalities(root: &Group) -> Result<Vec<String>> {
    if !root.link_exists(MODALITIES) || !h5::is_group(root, MODALITIES)? {
        return Ok(Vec::new());
    }
    h5::names(&h5::group(root, MODALITIES)?)
}

/// What `raw` is called where a layer is asked for.
pub const RAW: &str = "raw";

/// Where measurements lie.
enum Place<'a> {
    X,
    Layer(&'a str),
    Raw,
}

/// Whether a reader is to be used, or only its shape.
#[derive(Clone, Copy, PartialEq)]
enum Eager {
    Yes,
    No,
}

impl RowReader {
    /// A matrix that can be read by rows from the file; nothing for what has to be read whole, such as a matrix by columns,
    /// or what is no matrix of numbers.
    pub(crate) fn streaming(parent: &Group, name: &str) -> Result<Option<Self>> {
        let can = if h5::is_group(parent, name)? {
            matches!(matrix::sparse_header(&h5::group(parent, name)?)?, Some((Layout::Csr, _)))
        } else {
            let dataset = h5::dataset::open(parent, name)?;
            !h5::dataset::is_null(&dataset)?
                && h5::dataset::shape(&dataset)?.len() == 2
                && h5::record::compound(&dataset)?.is_none()
                && h5::dataset::dtype_name(&dataset)? != "str"
        };
        if can { Self::open(parent, name, Eager::Yes).map(Some) } else { Ok(None) }
    }

    fn open(parent: &Group, name: &str, eager: Eager) -> Result<Self> {
        if !h5::is_group(parent, name)? {
            let dataset = h5::dataset::open(parent, name)?;
            let [n_rows, n_cols] = h5::dataset::shape(&dataset)?[..] else {
                return Err(h5::malformed(&dataset, "a matrix has two dimensions"));
            };
            return Ok(Self { n_rows, n_cols, source: Source::Dense(dataset) });
        }
        let group = h5::group(parent, name)?;
        let (layout, shape) = matrix::sparse_header(&group)?
            .ok_or_else(|| h5::malformed(&group, "neither a dense nor a sparse matrix"))?;
        let parts = matrix::sparse_parts(&group, layout, &shape)?;
        let (n_rows, n_cols) = (parts.n_rows, parts.n_cols);
        let source = match (eager, layout) {
            (Eager::No, _) => Source::InMemory(Csr::zeros(0, 0)),
            (Eager::Yes, Layout::Csc) => Source::InMemory(parts.read(&group)?.to_csr()),
            (Eager::Yes, Layout::Csr) => {
                let indptr = parts.read_indptr()?;
                let n_values = h5::dataset::shape(&parts.data)?[0];
                if indptr[0] != 0 || indptr.last() != Some(&n_values) || !indptr.is_sorted() {
                    return Err(h5::malformed(&parts.indptr, format!("does not ascend from 0 to {n_values}")));
                }
                Source::ByRows(ByRows { group, data: parts.data, indices: parts.indices, indptr })
            }
        };
        Ok(Self { n_rows, n_cols, source })
    }

    /// Number of cells.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Number of genes.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Rows at `range`.
    ///
    /// # Errors
    /// When the range is beyond the matrix, or its part of the file is malformed.
    pub fn read(&self, range: Range<usize>) -> Result<Csr> {
        if range.start > range.end || range.end > self.n_rows {
            return Err(Error::Invalid { kind: "row range", detail: format!("{range:?} of {} rows", self.n_rows) });
        }
        let n_rows = range.len();
        if n_rows == 0 {
            return Ok(Csr::zeros(0, self.n_cols));
        }
        match &self.source {
            Source::Dense(dataset) => Csr::from_dense(n_rows, self.n_cols, &h5::dataset::rows(dataset, range)?),
            Source::ByRows(ByRows { group, data, indices, indptr }) => {
                let starts = &indptr[range.start..=range.end];
                let stored = starts[0]..starts[n_rows];
                let values: Vec<f32> = h5::dataset::slice(data, stored.clone())?;
                let columns = matrix::read_indices(indices, stored)?;
                let starts = starts.iter().map(|start| start - starts[0]).collect();
                Csr::new(n_rows, self.n_cols, starts, columns, values)
                    .map_err(|error| h5::malformed(group, error.to_string()))
            }
            Source::InMemory(csr) => Ok(csr.select_rows(&range.collect::<Vec<_>>())),
        }
    }

    /// All rows.
    ///
    /// # Errors
    /// As [`RowReader::read`].
    pub fn read_all(&self) -> Result<Csr> {
        self.read(0..self.n_rows)
    }

    /// Whether the whole matrix was read when the reader was made, as one by columns is.
    pub fn is_held(&self) -> bool {
        matches!(self.source, Source::InMemory(_))
    }

    /// Number of stored values; of a dense matrix, of all.
    pub fn n_stored(&self) -> usize {
        match &self.source {
            Source::Dense(_) => self.n_rows.saturating_mul(self.n_cols),
            Source::ByRows(ByRows { indptr, .. }) => indptr[self.n_rows],
            Source::InMemory(csr) => csr.nnz(),
        }
    }

    /// All rows in order, cut where a piece would take more than some megabytes of memory.
    pub fn pieces(&self) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let mut start = 0;
        while start < self.n_rows {
            let most = (start + PIECE_ROWS).min(self.n_rows);
            let end = match &self.source {
                Source::Dense(_) => start + (PIECE_VALUES / self.n_cols.max(1)).max(1),
                Source::ByRows(ByRows { indptr, .. }) => {
                    indptr.partition_point(|&at| at <= indptr[start] + PIECE_VALUES) - 1
                }
                Source::InMemory(_) => most,
            };
            let end = end.clamp(start + 1, most);
            pieces.push(start..end);
            start = end;
        }
        pieces
    }

    /// Reads pieces of rows in the order in which they are named; while one is used, the next is read on a thread beside.
    ///
    /// # Errors
    /// That of reading (see [`RowReader::read`]) or of using, whichever comes first in the order of the pieces.
    pub fn read_ahead<E: From<Error>>(
        &self,
        pieces: impl IntoIterator<Item = Range<usize>, IntoIter: Send>,
        mut use_piece: impl FnMut(Range<usize>, Csr) -> Result<(), E>,
    ) -> Result<(), E> {
        let pieces = pieces.into_iter();
        thread::scope(|scope| {
            // No room in the channel: one piece is in use and one is waiting, never more.
            let (sender, receiver) = sync_channel(0);
            scope.spawn(move || {
                for range in pieces {
                    // Nobody receives any more where using a piece failed.
                    if sender.send((range.clone(), self.read(range))).is_err() {
                        return;
                    }
                }
            });
            receiver.into_iter().try_for_each(|(range, rows)| use_piece(range, rows?))
        })
    }

    /// All rows in order, at most `n_rows` at a time.
    ///
    /// # Panics
    /// If `n_rows` is zero.
    pub fn chunks(&self, n_rows: usize) -> impl Iterator<Item = Result<Csr>> + '_ {
        assert!(n_rows > 0, "a chunk has at least one row");
        (0..self.n_rows).step_by(n_rows).map(move |start| self.read(start..(start + n_rows).min(self.n_rows)))
    }
}

/// Rows of a piece at most.
const PIECE_ROWS: usize = 8192;
/// Stored values of a piece at most, unless one row has more: 8 MiB with their columns.
const PIECE_VALUES: usize = 1 << 20;
