//! What a file holds, without reading it all.

use std::{fmt, fs, path::Path};

use hdf5::Group;
use serde::Serialize;

use crate::{
    Beside, Column, DataFrame, Error, H5adFile, Layout, Result,
    beside::MODALITIES,
    counts, h5,
    read::{matrix, raw_parts},
    rows::RAW,
};

/// Values looked at to say whether a matrix holds counts.
const N_SAMPLED: usize = 1 << 16;

/// Places in a matrix that samples are taken from.
const N_PLACES: usize = 4;

/// What a file holds; its `Display` is a table for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Size on disk.
    pub file_bytes: u64,
    /// `encoding-version` of the root, absent in files before anndata 0.8.
    pub encoding_version: Option<String>,
    /// Number of cells.
    pub n_obs: usize,
    /// Number of genes.
    pub n_vars: usize,
    /// Measurements, where there are any.
    pub x: Option<MatrixSummary>,
    /// Other measurements.
    pub layers: Vec<(String, MatrixSummary)>,
    /// Columns of `obs`.
    pub obs: Vec<ColumnSummary>,
    /// Columns of `var`.
    pub var: Vec<ColumnSummary>,
    /// First names of cells.
    pub first_cells: Vec<String>,
    /// First names of genes.
    pub first_genes: Vec<String>,
    /// Shape (or kind) of each element of `obsm`, `varm`, `obsp` and `varp`, named `obsm/…`.
    pub mappings: Vec<(String, String)>,
    /// Keys of `uns`.
    pub uns: Vec<String>,
    /// Measurements of `raw`, where there are any.
    pub raw: Option<MatrixSummary>,
    /// What each modality of an h5mu file holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modalities: Vec<(String, Summary)>,
    /// Members of the file that are no part of a data set; every command carries them over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
}

/// A matrix in a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixSummary {
    /// Rows.
    pub n_rows: usize,
    /// Columns.
    pub n_cols: usize,
    /// `dense`, `csr` or `csc`.
    pub encoding: &'static str,
    /// Element type, such as `float32`.
    pub dtype: String,
    /// Share of values that are stored (sparse) or not zero (dense, from a sample).
    pub density: f64,
    /// Whether every sampled value is a whole number of at least zero.
    pub looks_like_counts: bool,
    /// Largest sampled value.
    pub sampled_max: f32,
}

/// A column of a data frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnSummary {
    /// Name of the column.
    pub name: String,
    /// `categorical`, `float32`, `str`…
    pub kind: String,
    /// Number of categories of a categorical.
    pub n_categories: Option<usize>,
    /// The first few categories.
    pub first_categories: Vec<String>,
}

/// Looks into a file: all of `obs` and `var`, samples of the matrices.
///
/// # Errors
/// As [`H5adFile::open`].
pub fn inspect(path: impl AsRef<Path>) -> Result<Summary> {
    let file = H5adFile::open(path)?;
    let mut summary = of_file(&file)?;
    for name in file.modalities() {
        summary.modalities.push((name.clone(), of_file(&H5adFile::open_modality(file.path(), name)?)?));
    }
    summary.beside.retain(|name| name != MODALITIES || file.modalities().is_empty());
    Ok(summary)
}

/// Names of the layers whose values look like counts, `raw` among them.
pub(crate) fn counted(file: &H5adFile) -> Result<Vec<String>> {
    let root = file.root()?;
    let looks_like_counts = |group: &Group, name: &str| summarize(group, name).is_ok_and(|m| m.looks_like_counts);
    let mut counted = Vec::new();
    for name in file.layers()? {
        if looks_like_counts(&h5::group(&root, "layers")?, &name) {
            counted.push(name);
        }
    }
    if raw_parts(&root)?.is_some_and(|(group, x, ..)| looks_like_counts(&group, x)) && !counted.iter().any(|n| n == RAW)
    {
        counted.push(RAW.to_owned());
    }
    Ok(counted)
}

fn of_file(file: &H5adFile) -> Result<Summary> {
    let (path, root) = (file.path(), file.root()?);
    let mut mappings = Vec::new();
    for group in ["obsm", "varm", "obsp", "varp"] {
        for name in file.names(group)? {
            let shape = describe(&h5::group(&root, group)?, &name)?;
            mappings.push((format!("{group}/{name}"), shape));
        }
    }
    let mut layers = Vec::new();
    for name in file.layers()? {
        let group = h5::group(&root, "layers")?;
        match h5::is_readable(&group, &name)? {
            true => layers.push((name.clone(), summarize(&group, &name)?)),
            false => mappings.push((format!("layers/{name}"), describe(&group, &name)?)),
        }
    }
    let raw = raw_parts(&root)?.map(|(group, x, ..)| summarize(&group, x)).transpose()?;
    let size = fs::metadata(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    let first = |frame: &DataFrame| frame.index().iter().take(3).cloned().collect();
    Ok(Summary {
        file_bytes: size.len(),
        encoding_version: h5::attribute::text(&root, "encoding-version")?,
        n_obs: file.n_obs(),
        n_vars: file.n_vars(),
        x: if file.has_x()? { Some(summarize(&root, "X")?) } else { None },
        layers,
        obs: columns(file.obs()),
        var: columns(file.var()),
        first_cells: first(file.obs()),
        first_genes: first(file.var()),
        mappings,
        uns: file.names("uns")?,
        raw,
        modalities: Vec::new(),
        beside: Beside::of(&root)?.members().to_vec(),
    })
}

fn columns(frame: &DataFrame) -> Vec<ColumnSummary> {
    let summary = |(name, column): &(String, Column)| {
        let categories = match column {
            Column::Categorical(categorical) => Some(categorical.categories()),
            _ => None,
        };
        ColumnSummary {
            name: name.clone(),
            kind: column.kind(),
            n_categories: categories.map(crate::Values::len),
            first_categories: categories.map_or_else(Vec::new, |c| c.to_strings().into_iter().take(8).collect()),
        }
    };
    frame.columns().iter().map(summary).collect()
}

/// Shape or kind of an element, from its attributes and extents alone.
fn describe(parent: &Group, name: &str) -> Result<String> {
    if !h5::is_group(parent, name)? {
        let Ok(dataset) = parent.dataset(name) else { return Ok("type".to_owned()) };
        let shape = h5::dataset::shape(&dataset)?;
        return Ok(shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × "));
    }
    let group = h5::group(parent, name)?;
    if let Some((_, shape)) = matrix::sparse_header(&group)? {
        return Ok(shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × ") + " sparse");
    }
    let kind = h5::attribute::text(&group, "encoding-type")?.unwrap_or_else(|| "group".into());
    Ok(match h5::attribute::texts(&group, "column-order")? {
        Some(columns) => format!("{} columns ({kind})", columns.len()),
        None => kind,
    })
}

fn summarize(parent: &Group, name: &str) -> Result<MatrixSummary> {
    let (encoding, shape, dtype, stored, sample) = if h5::is_group(parent, name)? {
        let group = h5::group(parent, name)?;
        let (layout, shape) =
            matrix::sparse_header(&group)?.ok_or_else(|| h5::malformed(&group, "expected a matrix"))?;
        let parts = matrix::sparse_parts(&group, layout, &shape)?;
        let stored = h5::dataset::shape(&parts.data)?[0];
        let sample = sample(stored, N_SAMPLED, |range| h5::dataset::slice(&parts.data, range))?;
        let encoding = if layout == Layout::Csr { "csr" } else { "csc" };
        (encoding, shape, h5::dataset::dtype_name(&parts.data)?, Some(stored), sample)
    } else {
        let dataset = h5::dataset::open(parent, name)?;
        let shape = h5::dataset::shape(&dataset)?;
        let [n_rows, n_cols] = shape[..] else {
            return Err(h5::malformed(&dataset, format!("shape {shape:?}, expected a matrix")));
        };
        let sample =
            sample(n_rows, (N_SAMPLED / n_cols.max(1)).max(N_PLACES), |range| h5::dataset::rows(&dataset, range))?;
        ("dense", shape, h5::dataset::dtype_name(&dataset)?, None, sample)
    };
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let (n_rows, n_cols) = (shape[0], shape[1]);
    let density = match stored {
        Some(stored) => share(stored, n_rows.saturating_mul(n_cols)),
        None => share(sample.iter().filter(|&&value| value != 0.0).count(), sample.len()),
    };
    Ok(MatrixSummary {
        n_rows,
        n_cols,
        encoding,
        dtype,
        density,
        looks_like_counts: !sample.is_empty() && sample.iter().all(|&value| counts::is_count(value)),
        sampled_max: sample.iter().copied().fold(0.0, f32::max),
    })
}

/// About `wanted` of `n` items, read in runs from places spread over all of them.
fn sample(n: usize, wanted: usize, read: impl Fn(std::ops::Range<usize>) -> Result<Vec<f32>>) -> Result<Vec<f32>> {
    if n <= wanted {
        return if n == 0 { Ok(Vec::new()) } else { read(0..n) };
    }
    let run = wanted / N_PLACES;
    let mut values = Vec::new();
    for place in 0..N_PLACES {
        let start = (n - run) / (N_PLACES - 1) * place;
        values.extend(read(start..start + run)?);
    }
    Ok(values)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.encoding_version.as_deref().unwrap_or("older than 0.8");
        writeln!(f, "{} cells × {} genes, {}, encoding {version}", self.n_obs, self.n_vars, bytes(self.file_bytes))?;
        match &self.x {
            Some(x) => writeln!(f, "{:<10}{x}", "X")?,
            None => writeln!(f, "{:<10}none", "X")?,
        }
        for (name, layer) in &self.layers {
            writeln!(f, "{:<10}{name}: {layer}", "layer")?;
        }
        if let Some(raw) = &self.raw {
            writeln!(f, "{:<10}{} genes, {raw}", "raw", raw.n_cols)?;
        }
        for (title, names, columns) in [("obs", &self.first_cells, &self.obs), ("var", &self.first_genes, &self.var)] {
            writeln!(f, "{title:<10}{}", or_none(&names.join(", ")))?;
            let width = columns.iter().map(|column| column.name.chars().count()).max().unwrap_or(0);
            for column in columns {
                writeln!(f, "  {:<width$}  {column}", column.name)?;
            }
        }
        for (name, shape) in &self.mappings {
            writeln!(f, "{name}  {shape}")?;
        }
        writeln!(f, "{:<10}{}", "uns", or_none(&self.uns.join(", ")))?;
        if !self.beside.is_empty() {
            writeln!(f, "{:<10}{}", "beside", self.beside.join(", "))?;
        }
        self.modalities.iter().try_for_each(|(name, summary)| write!(f, "\nmodality {name}\n{summary}"))
    }
}

impl fmt::Display for MatrixSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.looks_like_counts { "looks like counts" } else { "not counts" };
        let (encoding, dtype, percent, max) = (self.encoding, &self.dtype, 100.0 * self.density, self.sampled_max);
        write!(f, "{encoding} {dtype}, {percent:.1} % non-zero, {verdict} (up to {max})")
    }
}

impl fmt::Display for ColumnSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(n) = self.n_categories else { return f.write_str(&self.kind) };
        let more = if n > self.first_categories.len() { ", …" } else { "" };
        let noun = if n == 1 { "category" } else { "categories" };
        write!(f, "{n} {noun}: {}{more}", self.first_categories.join(", "))
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", n as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", n as f64 / 1_073_741_824.0),
    }
}
