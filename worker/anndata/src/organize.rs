//! Modalities × data sets laid together: every cell with every modality, and zeros where its data set lacks one.

mod datasets;

use std::collections::{HashMap, HashSet};

use crate::{
    AnnData, Array, Column, Csr, DataFrame, Element, Error, Join, Layout, Matrix, MuData, Result, Sparse,
    concat::{columns, frames, stack},
    names,
};

/// What data sets have of one modality.
#[derive(Debug, Clone)]
pub struct Modality {
    /// Its name.
    pub name: String,
    /// Its measurements in `X` in each data set, nothing where a data set lacks it. All modalities list the same data sets.
    pub of_datasets: Vec<Option<AnnData>>,
}

/// Which features a modality has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// The same in all data sets that have it, in the same order.
    Same,
    /// Those that all data sets have, in the order of the first.
    Shared,
}

/// Cells of several data sets, one below the other, with the same modalities.
#[derive(Debug, Clone, PartialEq)]
pub struct Organized {
    /// What is known of the cells; `group` is the place of a cell's data set, from 0.
    pub obs: DataFrame,
    /// Number of cells of each data set.
    pub n_cells: Vec<usize>,
    /// The modalities in order.
    pub modalities: Vec<Block>,
}

/// A modality of all cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Its name.
    pub name: String,
    /// Its measurements, cells × features.
    pub x: Matrix,
    /// One row per feature.
    pub var: DataFrame,
    /// Whether each data set has it.
    pub present: Vec<bool>,
}

/// The obs column that says which data set a cell is from.
pub const GROUP: &str = "group";
/// The entry of `uns` that says how many columns of `X` each modality has.
pub const MODALITY_LENGTHS: &str = "modality_lengths";

impl Organized {
    /// Lays modalities × data sets together.
    ///
    /// Only `X`, `obs` and `var` are looked at. The modalities of a data set have the same cells, in any order; that of the first
    /// modality is taken. A column of `obs` that several have is the first one's, further ones follow by name.
    ///
    /// # Errors
    /// [`Error::NoCells`] without a data set, [`Error::NoModality`] for a data set without any modality,
    /// [`Error::OtherCells`], [`Error::OtherFeatures`], [`Error::DuplicateCells`] across data sets, [`Error::NoX`].
    pub fn new(table: &[Modality], features: Features) -> Result<Self> {
        let n_datasets = table.first().map_or(0, |first| first.of_datasets.len());
        let mut known = HashSet::new();
        if let Some(twice) = table.iter().find(|modality| !known.insert(&modality.name)) {
            return Err(Error::Invalid { kind: "modalities", detail: format!("`{}` is named twice", twice.name) });
        }
        if let Some(other) = table.iter().find(|modality| modality.of_datasets.len() != n_datasets) {
            let detail = format!("`{}` lists {} data sets, others {n_datasets}", other.name, other.of_datasets.len());
            return Err(Error::Invalid { kind: "modalities", detail });
        }
        if n_datasets == 0 {
            return Err(Error::NoCells);
        }
        let of_datasets = (0..n_datasets).map(|d| annotations(table, d)).collect::<Result<Vec<_>>>()?;
        let obs = frames(&of_datasets, Join::Outer)?;
        let n_cells: Vec<usize> = of_datasets.iter().map(AnnData::n_obs).collect();
        let block = |modality: &Modality| Block::new(modality, &of_datasets, features);
        Ok(Self { obs, modalities: table.iter().map(block).collect::<Result<_>>()?, n_cells })
    }

    /// Adds a column that is the same for all cells of a data set.
    ///
    /// # Errors  none where there is a text for each data set
    pub fn insert(&mut self, column: &str, of_datasets: &[String]) -> Result<()> {
        let texts: Vec<&String> =
            self.n_cells.iter().zip(of_datasets).flat_map(|(&n, text)| std::iter::repeat_n(text, n)).collect();
        self.obs.insert(column, Column::categorical(&texts))
    }

    /// Names of the modalities that each data set has, joined by `-`.
    pub fn present(&self) -> Vec<String> {
        let of_dataset = |d: usize| {
            let present = self.modalities.iter().filter(|block| block.present[d]);
            present.map(|block| block.name.as_str()).collect::<Vec<_>>().join("-")
        };
        (0..self.n_cells.len()).map(of_dataset).collect()
    }

    /// As several modalities of the same cells, each with what is known of them.
    pub fn into_mudata(self) -> MuData {
        let of = |block: Block| {
            let adata = AnnData { x: Some(block.x), obs: self.obs.clone(), var: block.var, ..AnnData::default() };
            (block.name, adata)
        };
        MuData { modalities: self.modalities.into_iter().map(of).collect() }
    }

    /// As one matrix, modality beside modality, with `modality_lengths` in `uns`: upstream's form. Names of features that repeat get
    /// a number, columns of `var` that several modalities have the place of theirs.
    ///
    /// # Errors
    /// When a matrix is malformed.
    pub fn into_anndata(self) -> Result<AnnData> {
        let lengths: Vec<usize> = self.modalities.iter().map(|block| block.var.n_rows()).collect();
        let blocks = self.modalities.iter().map(|block| block.x.to_csr()).collect::<Result<Vec<_>>>()?;
        let names = names::unique(self.modalities.iter().flat_map(|block| block.var.index()));
        let mut var = DataFrame::new(names);
        let all: Vec<String> = self.modalities.iter().flat_map(|block| block.var.column_names()).collect();
        for (m, block) in self.modalities.iter().enumerate() {
            for (name, column) in block.var.columns() {
                let is_repeated = all.iter().filter(|other| *other == name).count() > 1;
                let parts: Vec<Option<&Column>> = (0..lengths.len()).map(|of| (of == m).then_some(column)).collect();
                if let Some(column) = columns::concatenated(&parts, &lengths) {
                    var.insert(if is_repeated { format!("{name}_{m}") } else { name.clone() }, column)?;
                }
            }
        }
        let mut adata = AnnData::new(beside_each_other(&blocks)?, self.obs, var)?;
        let lengths: Vec<i64> = lengths.iter().map(|&n| n as i64).collect();
        adata.uns.insert(MODALITY_LENGTHS.to_owned(), Element::Array(Array::vector(lengths)));
        Ok(adata)
    }
}

impl Block {
    fn new(modality: &Modality, datasets: &[AnnData], features: Features) -> Result<Self> {
        let parts: Vec<(usize, &AnnData)> =
            modality.of_datasets.iter().enumerate().filter_map(|(d, part)| Some((d, part.as_ref()?))).collect();
        let &[(_, first), ..] = parts.as_slice() else {
            return Err(Error::NoModality { dataset: None, name: Some(modality.name.clone()) });
        };
        let kept: Vec<usize> = (0..first.n_vars())
            .filter(|&at| {
                let name = &first.var_names()[at];
                features == Features::Same || parts.iter().all(|(_, part)| part.var_names().contains(name))
            })
            .collect();
        let var = first.var.select_rows(&kept);
        let position: HashMap<&String, u32> = var.index().iter().zip(0..).collect();
        let other = |d: usize| Error::OtherFeatures { modality: modality.name.clone(), first: parts[0].0, dataset: d };
        if kept.is_empty() {
            return Err(other(parts.last().map_or(0, |(d, _)| *d)));
        }
        let like = first.matrix(None)?;
        let (mut matrices, mut targets) = (Vec::new(), Vec::new());
        for (d, cells) in datasets.iter().enumerate() {
            let Some(part) = &modality.of_datasets[d] else {
                matrices.push(blank(like, cells.n_obs(), kept.len())?);
                targets.push((0..kept.len() as u32).map(Some).collect());
                continue;
            };
            if features == Features::Same && part.var_names() != first.var_names() {
                return Err(other(d));
            }
            let rows = rows_of(cells, part, (d, &modality.name))?;
            matrices.push(part.matrix(None)?.select_rows(&rows));
            targets.push(part.var_names().iter().map(|name| position.get(name).copied()).collect());
        }
        let x = stack::matrices(&matrices.iter().collect::<Vec<_>>(), &targets, kept.len())?;
        let present = modality.of_datasets.iter().map(Option::is_some).collect();
        Ok(Self { name: modality.name.clone(), x, var, present })
    }
}

/// What the modalities of a data set say of its cells.
fn annotations(table: &[Modality], d: usize) -> Result<AnnData> {
    let mut parts = table.iter().filter_map(|modality| Some((&modality.name, modality.of_datasets[d].as_ref()?)));
    let Some((_, first)) = parts.next() else {
        return Err(Error::NoModality { dataset: Some(d), name: None });
    };
    let mut cells = AnnData { obs: first.obs.clone(), ..AnnData::default() };
    cells.obs.insert(GROUP, vec![d as i64; first.n_obs()])?;
    for (name, part) in parts {
        let rows = rows_of(&cells, part, (d, name))?;
        let mut further: Vec<&(String, Column)> = part.obs.columns().iter().collect();
        further.sort_by(|a, b| a.0.cmp(&b.0));
        for (column, values) in further {
            if !cells.obs.columns().iter().any(|(known, _)| known == column) {
                cells.obs.insert(column.as_str(), values.select_rows(&rows))?;
            }
        }
    }
    Ok(cells)
}

/// The rows of a data set's cells in one of its modalities.
fn rows_of(cells: &AnnData, part: &AnnData, (dataset, modality): (usize, &String)) -> Result<Vec<usize>> {
    if cells.obs_names() == part.obs_names() {
        return Ok((0..part.n_obs()).collect());
    }
    names::check_unique_cells(part.obs_names())?;
    let position: HashMap<&String, usize> = part.obs_names().iter().zip(0..).collect();
    let rows: Vec<usize> = cells.obs_names().iter().filter_map(|name| position.get(name).copied()).collect();
    let (n_missing, n_further) = (cells.n_obs() - rows.len(), part.n_obs() - rows.len().min(part.n_obs()));
    match (n_missing, n_further) {
        (0, 0) => Ok(rows),
        _ => Err(Error::OtherCells { dataset, modality: modality.clone(), n_missing, n_further }),
    }
}

/// A matrix of zeros of the same kind.
fn blank(like: &Matrix, n_rows: usize, n_cols: usize) -> Result<Matrix> {
    match like {
        Matrix::Dense(array) => Matrix::dense(Array::matrix(n_rows, n_cols, array.values().zeros(n_rows * n_cols))?),
        Matrix::Sparse(sparse) => {
            let nothing = sparse.values().zeros(0);
            Ok(Sparse::new(Layout::Csr, (n_rows, n_cols), vec![0; n_rows + 1], vec![], nothing)?.into())
        }
    }
}

/// Matrices of the same cells as one.
fn beside_each_other(blocks: &[Csr]) -> Result<Csr> {
    let (n_rows, n_cols) = (blocks.first().map_or(0, Csr::n_rows), blocks.iter().map(Csr::n_cols).sum());
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
    for row in 0..n_rows {
        let mut start = 0;
        for block in blocks {
            let (columns, values) = block.row(row);
            indices.extend(columns.iter().map(|column| start + column));
            data.extend_from_slice(values);
            start += block.n_cols() as u32;
        }
        indptr.push(indices.len());
    }
    Csr::new(n_rows, n_cols, indptr, indices, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(cells: &[&str], features: &[&str], values: &[f32]) -> AnnData {
        let x = Csr::from_dense(cells.len(), features.len(), values).unwrap();
        AnnData::new(x, DataFrame::new(cells.to_vec()), DataFrame::new(features.to_vec())).unwrap()
    }

    fn modality(name: &str, of_datasets: Vec<Option<AnnData>>) -> Modality {
        Modality { name: name.to_owned(), of_datasets }
    }

    #[test]
    fn cells_of_another_order_are_found_by_name() {
        let rna = modality("rna", vec![Some(part(&["a", "b"], &["g"], &[1.0, 2.0]))]);
        let adt = modality("adt", vec![Some(part(&["b", "a"], &["p"], &[3.0, 4.0]))]);
        let all = Organized::new(&[rna, adt], Features::Same).unwrap();
        assert_eq!(
            all.into_anndata().unwrap().matrix(None).unwrap().to_csr().unwrap().to_dense(),
            [1.0, 4.0, 2.0, 3.0]
        );
    }

    #[test]
    fn features_that_repeat_and_those_that_are_shared() {
        let first = part(&["a"], &["CD3", "CD4"], &[1.0, 2.0]);
        let second = part(&["b"], &["CD8", "CD3"], &[5.0, 6.0]);
        let table = [
            modality("rna", vec![Some(part(&["a"], &["CD3"], &[9.0])), None]),
            modality("adt", vec![Some(first), Some(second)]),
        ];
        let refused = Organized::new(&table, Features::Same).unwrap_err().to_string();
        assert!(refused.contains("`adt` has other features in data set 2 than in data set 1"), "{refused}");
        let mut all = Organized::new(&table, Features::Shared).unwrap();
        assert_eq!(all.present(), ["rna-adt", "adt"]);
        all.insert("has", &all.present()).unwrap();
        let adata = all.into_anndata().unwrap();
        assert_eq!(adata.var_names(), ["CD3", "CD3-1"]);
        assert_eq!(adata.matrix(None).unwrap().to_csr().unwrap().to_dense(), [9.0, 1.0, 0.0, 6.0]);
        assert_eq!(adata.obs.column("has").unwrap().to_strings(), [Some("rna-adt".into()), Some("adt".into())]);
    }

    #[test]
    fn what_does_not_belong_together_is_refused_in_words() {
        let refused = |table: &[Modality]| Organized::new(table, Features::Same).unwrap_err().to_string();
        let one = |cells: &[&str]| Some(part(cells, &["g"], &vec![1.0; cells.len()]));
        let cells = refused(&[modality("rna", vec![one(&["a", "b"])]), modality("adt", vec![one(&["a", "c", "d"])])]);
        assert!(cells.contains("1 cells of data set 1 are not in `adt`, which has 2 others"), "{cells}");
        let nothing = refused(&[modality("rna", vec![one(&["a"]), None]), modality("adt", vec![one(&["a"]), None])]);
        assert!(nothing.contains("data set 2 has no modality"), "{nothing}");
        let never = refused(&[modality("rna", vec![one(&["a"])]), modality("adt", vec![None])]);
        assert!(never.contains("no data set has the modality `adt`"), "{never}");
        let twice = refused(&[modality("rna", vec![one(&["a"]), one(&["a"])])]);
        assert!(twice.contains("occur more than once, such as `a`"), "{twice}");
        let lists = refused(&[modality("rna", vec![one(&["a"])]), modality("adt", vec![])]);
        assert!(lists.contains("`adt` lists 0 data sets, others 1"), "{lists}");
    }
}
