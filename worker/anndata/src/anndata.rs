//! The whole data set in memory.

use std::{collections::BTreeMap, path::Path};

use crate::{Beside, DataFrame, Dict, Element, Error, Matrix, Result, beside, read, write};

/// Cells × genes with everything known about both, as Python's `AnnData`.
///
/// Fields are public; [`AnnData::check`] says whether they agree, and runs after reading and before writing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AnnData {
    /// Measurements, cells × genes; absent in files that hold annotations only.
    pub x: Option<Matrix>,
    /// One row per cell.
    pub obs: DataFrame,
    /// One row per gene.
    pub var: DataFrame,
    /// Other measurements of the shape of `x`.
    pub layers: BTreeMap<String, Matrix>,
    /// Per cell, any width: embeddings, other modalities.
    pub obsm: Dict,
    /// Per gene, any width: loadings, gene-set masks.
    pub varm: Dict,
    /// Cells × cells.
    pub obsp: BTreeMap<String, Matrix>,
    /// Genes × genes.
    pub varp: BTreeMap<String, Matrix>,
    /// Anything else.
    pub uns: Dict,
    /// Measurements before genes were dropped.
    pub raw: Option<Raw>,
    /// What its file holds beside it.
    pub beside: Beside,
}

/// The same cells with their own set of genes.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// Measurements, cells × `var`.
    pub x: Matrix,
    /// One row per gene of `x`.
    pub var: DataFrame,
    /// Per gene, any width.
    pub varm: Dict,
}

/// How array data is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As it is; fastest.
    #[default]
    None,
    /// gzip at a level from 1 (fast) to 9 (small).
    Gzip(u8),
}

impl AnnData {
    /// A data set of measurements and names.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` is not as large as `obs` × `var`.
    pub fn new(x: impl Into<Matrix>, obs: DataFrame, var: DataFrame) -> Result<Self> {
        let adata = Self { x: Some(x.into()), obs, var, ..Self::default() };
        adata.check()?;
        Ok(adata)
    }

    /// Reads a whole h5ad file, in any encoding since 2017.
    ///
    /// # Errors
    /// When the file is absent, broken, leaves itself through a link, or contradicts itself.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        read::read(path.as_ref(), "/")
    }

    /// Writes an h5ad file in the encodings of anndata 0.8 and later, with what stood beside the data set in its file; the file
    /// appears whole or not at all.
    ///
    /// # Errors
    /// When parts disagree, a name cannot be a key, or the disk refuses; [`Error::Modalities`] when modalities beside it would not
    /// fit any more.
    pub fn write(&self, path: impl AsRef<Path>, compression: Compression) -> Result<()> {
        self.check()?;
        self.beside.check(self.obs_names(), self.var_names())?;
        write::write(self, path.as_ref(), compression)
    }

    /// Number of cells.
    pub fn n_obs(&self) -> usize {
        self.obs.n_rows()
    }

    /// Number of genes.
    pub fn n_vars(&self) -> usize {
        self.var.n_rows()
    }

    /// Names of the cells.
    pub fn obs_names(&self) -> &[String] {
        self.obs.index()
    }

    /// Names of the genes.
    pub fn var_names(&self) -> &[String] {
        self.var.index()
    }

    /// `X`, or the named layer.
    ///
    /// # Errors
    /// [`Error::Missing`] with the names there are.
    pub fn matrix(&self, layer: Option<&str>) -> Result<&Matrix> {
        let missing = |kind, name: &str| Error::Missing {
            kind,
            name: name.to_owned(),
            available: self.layers.keys().cloned().collect(),
        };
        match layer {
            Some(name) => self.layers.get(name).ok_or_else(|| missing("layer", name)),
            None => self.x.as_ref().ok_or_else(|| missing("matrix", "X")),
        }
    }

    /// The named element of `obsm`.
    ///
    /// # Errors
    /// [`Error::Missing`] with the names there are.
    pub fn obsm(&self, name: &str) -> Result<&Element> {
        self.obsm.get(name).ok_or_else(|| Error::Missing {
            kind: "obsm",
            name: name.to_owned(),
            available: self.obsm.keys().cloned().collect(),
        })
    }

    /// The cells at `rows`, in that order, with everything that belongs to them; `uns`, `varm` and `varp` stay whole. What has
    /// no rows that are known is left out, with a warning.
    ///
    /// # Errors
    /// [`Error::Modalities`] when modalities stand beside it that would not fit any more.
    ///
    /// # Panics
    /// If a row is out of range.
    pub fn select_obs(&self, rows: &[usize]) -> Result<Self> {
        self.beside.check_choice(rows, self.n_obs())?;
        Ok(self.rows(rows))
    }

    /// The same, whatever becomes of modalities.
    pub(crate) fn rows(&self, rows: &[usize]) -> Self {
        Self {
            x: self.x.as_ref().map(|x| x.select_rows(rows)),
            obs: self.obs.select_rows(rows),
            layers: each(&self.layers, |layer| layer.select_rows(rows)),
            obsm: select_each("obsm", &self.obsm, rows),
            obsp: each(&self.obsp, |pairs| pairs.select_rows(rows).select_cols(rows)),
            raw: self.raw.as_ref().map(|raw| Raw { x: raw.x.select_rows(rows), ..raw.clone() }),
            var: self.var.clone(),
            varm: self.varm.clone(),
            varp: self.varp.clone(),
            uns: self.uns.clone(),
            beside: self.beside.select_obs(rows, self.n_obs()),
        }
    }

    /// The genes at `cols`, in that order, with everything that belongs to them; `raw` keeps all of its genes. What has no rows
    /// that are known is left out, with a warning.
    ///
    /// # Errors
    /// [`Error::Modalities`] when modalities stand beside it that would not fit any more.
    ///
    /// # Panics
    /// If a column is out of range.
    pub fn select_vars(&self, cols: &[usize]) -> Result<Self> {
        self.beside.check_choice(cols, self.n_vars())?;
        Ok(Self {
            x: self.x.as_ref().map(|x| x.select_cols(cols)),
            var: self.var.select_rows(cols),
            layers: each(&self.layers, |layer| layer.select_cols(cols)),
            varm: select_each("varm", &self.varm, cols),
            varp: each(&self.varp, |pairs| pairs.select_rows(cols).select_cols(cols)),
            obs: self.obs.clone(),
            obsm: self.obsm.clone(),
            obsp: self.obsp.clone(),
            uns: self.uns.clone(),
            raw: self.raw.clone(),
            beside: self.beside.select_vars(cols, self.n_vars()),
        })
    }

    /// Whether all parts agree about the numbers of cells and genes.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the first part that does not.
    pub fn check(&self) -> Result<()> {
        let (n_obs, n_vars) = (self.n_obs(), self.n_vars());
        if let Some(x) = &self.x {
            check_matrix("X", x, ("cells", n_obs, "obs"), ("genes", n_vars, "var"))?;
        }
        for (name, layer) in &self.layers {
            check_matrix(&format!("layers/{name}"), layer, ("cells", n_obs, "obs"), ("genes", n_vars, "var"))?;
        }
        for (name, pairs) in &self.obsp {
            check_matrix(&format!("obsp/{name}"), pairs, ("cells", n_obs, "obs"), ("cells", n_obs, "obs"))?;
        }
        for (name, pairs) in &self.varp {
            check_matrix(&format!("varp/{name}"), pairs, ("genes", n_vars, "var"), ("genes", n_vars, "var"))?;
        }
        check_rows("obsm", &self.obsm, ("cells", n_obs, "obs"))?;
        check_rows("varm", &self.varm, ("genes", n_vars, "var"))?;
        if let Some(raw) = &self.raw {
            check_matrix("raw/X", &raw.x, ("cells", n_obs, "obs"), ("genes", raw.var.n_rows(), "raw/var"))?;
            check_rows("raw/varm", &raw.varm, ("genes", raw.var.n_rows(), "raw/var"))?;
        }
        Ok(())
    }
}

fn each(matrices: &BTreeMap<String, Matrix>, select: impl Fn(&Matrix) -> Matrix) -> BTreeMap<String, Matrix> {
    matrices.iter().map(|(name, matrix)| (name.clone(), select(matrix))).collect()
}

fn select_each(group: &str, elements: &Dict, rows: &[usize]) -> Dict {
    let select = |(name, element): (&String, &Element)| {
        let selected = element.select_rows(rows);
        if selected.is_none() {
            beside::left_out(group, name);
        }
        Some((name.clone(), selected?))
    };
    elements.iter().filter_map(select).collect()
}

/// What an axis counts, how many there must be, and which part says so.
type Axis = (&'static str, usize, &'static str);

fn check_matrix(part: &str, matrix: &Matrix, rows: Axis, cols: Axis) -> Result<()> {
    let (n_rows, n_cols) = matrix.shape();
    check_axis(part, n_rows, rows)?;
    check_axis(part, n_cols, cols)
}

fn check_rows(group: &str, elements: &Dict, rows: Axis) -> Result<()> {
    for (name, element) in elements {
        // What has no rows that are known is kept as it is.
        if let Some(n_rows) = element.n_rows() {
            check_axis(&format!("{group}/{name}"), n_rows, rows)?;
        }
    }
    Ok(())
}

pub(crate) fn check_axis(part: &str, found: usize, (axis, expected, against): Axis) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Shape { part: part.to_owned(), axis, found, expected, against })
}
