//! One reader for each kind of field.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use archipelago_analysis::preprocess::{Annotations, SetOptions, gene_sets};
use archipelago_anndata::{Csr, Element, H5adFile, Table, names};
use archipelago_models::{
    Categorical,
    data::{Features, Field, FieldKind, FieldValues, GeneSets, Values},
};
use ndarray::Array2;

use super::{Source, ValueCheck};
use crate::{
    error::{Error, Result},
    gmt,
};

/// A file from which fields of some cells are read.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// Where the file is.
    pub path: &'a Path,
    /// The part of it that holds gene expression.
    pub file: &'a H5adFile,
    /// The rows that are used.
    pub rows: &'a [usize],
    /// The genes, in the order of the file.
    pub genes: &'a [String],
    /// Which gene sets are taken, and how genes are compared.
    pub sets: SetOptions,
}

impl Reading<'_> {
    /// The values of a field, which is in these places. Labels are for [`Self::texts`]: some cells have none.
    ///
    /// # Errors  [`Error::WrongPlace`], [`Error::Cells`] for what is not there, [`Error::MissingValues`], [`Error::NotNumbers`],
    /// [`Error::NoFeatureNames`], [`Error::LacksCells`]
    pub(crate) fn field(&self, field: &Field, places: &[Source]) -> Result<FieldValues> {
        let wrong = |place: &Source, expected| {
            let (field, place) = (field.name.to_string(), place.to_string());
            Err(Error::WrongPlace { field, place, expected })
        };
        if let FieldKind::Categories | FieldKind::Numbers = field.kind {
            let mut columns = Vec::new();
            for place in places {
                match place {
                    Source::Obs(column) => columns.push(column),
                    other => return wrong(other, "columns of obs, `obs/COLUMN`"),
                }
            }
            return self.columns(&field.kind, &columns);
        }
        if let FieldKind::Receptor { chains, .. } = &field.kind {
            return self.receptors(&field.name, chains, places).map(FieldValues::from);
        }
        if let FieldKind::GeneSets = field.kind {
            return self.gene_sets(field, places).map(FieldValues::from);
        }
        let [place] = places else {
            return wrong(&places[1], "one place for this field");
        };
        Ok(match (&field.kind, place) {
            (FieldKind::Matrix(values), Source::Obsm { key, names }) => {
                self.checked(self.table(key, names.as_deref())?, place, *values)?.into()
            }
            (FieldKind::Matrix(values), Source::Matrix { modality, layer }) => {
                let features = self.matrix(modality.as_deref(), layer.as_deref(), field.partial)?;
                self.checked(features, place, *values)?.into()
            }
            (FieldKind::Matrix(_), other) => {
                return wrong(other, "a matrix: `obsm/KEY`, `mod/MODALITY` or `layers/LAYER`");
            }
            (FieldKind::Category | FieldKind::Axis(_) | FieldKind::Labels { .. }, Source::Obs(column)) => {
                self.names(column)?.into()
            }
            (FieldKind::Number(_), Source::Obs(column)) => self.numbers(column)?.into(),
            (FieldKind::Coordinates, Source::Obsm { key, .. }) => self.coordinates(key)?.into(),
            (FieldKind::Coordinates, other) => return wrong(other, "a table of obsm, `obsm/KEY`"),
            (_, other) => return wrong(other, "a column of obs, `obs/COLUMN`"),
        })
    }

    /// The text of a column for each cell, `None` where it is missing.
    ///
    /// # Errors  [`Error::Cells`] if the file has no such column
    pub(crate) fn texts(&self, column: &str) -> Result<Vec<Option<String>>> {
        let values = self.file.obs().column(column).map_err(|source| self.failed(source))?.to_strings();
        Ok(self.rows.iter().map(|&row| values[row].clone()).collect())
    }

    fn columns(&self, kind: &FieldKind, columns: &[&String]) -> Result<FieldValues> {
        if *kind == FieldKind::Numbers {
            let numbers = columns.iter().map(|&column| Ok((column.clone(), self.numbers(column)?)));
            return Ok(numbers.collect::<Result<BTreeMap<_, _>>>()?.into());
        }
        let names = columns.iter().map(|&column| Ok((column.clone(), self.names(column)?)));
        Ok(names.collect::<Result<BTreeMap<_, _>>>()?.into())
    }

    fn names(&self, column: &str) -> Result<Categorical> {
        Ok(Categorical::from_values(&self.complete_texts(column)?))
    }

    fn complete_texts(&self, column: &str) -> Result<Vec<String>> {
        let texts = self.texts(column)?;
        self.complete(column, texts.iter().filter(|text| text.is_none()).count())?;
        Ok(texts.into_iter().flatten().collect())
    }

    fn numbers(&self, column: &str) -> Result<Vec<f32>> {
        let values = self.file.obs().column(column).map_err(|source| self.failed(source))?.to_f64();
        let not_numbers = || Error::NotNumbers { path: self.path.into(), column: column.to_owned() };
        let values = values.ok_or_else(not_numbers)?;
        let values: Vec<f32> = self.rows.iter().map(|&row| values[row] as f32).collect();
        self.complete(column, values.iter().filter(|value| value.is_nan()).count())?;
        Ok(values)
    }

    fn coordinates(&self, key: &str) -> Result<Array2<f32>> {
        let table = self.obsm(key)?;
        let all = Array2::from_shape_vec((table.n_rows, table.n_cols), table.values);
        Ok(all.expect("a table has a value per row and column").select(ndarray::Axis(0), self.rows))
    }

    fn table(&self, key: &str, names_key: Option<&str>) -> Result<Features> {
        let table = self.obsm(key)?;
        let names = match (names_key, table.columns) {
            (Some(names_key), _) => self.names_in_uns(names_key)?,
            (None, Some(columns)) => columns,
            (None, None) => return Err(Error::NoFeatureNames { path: self.path.into(), key: key.to_owned() }),
        };
        let all = Csr::from_dense(table.n_rows, table.n_cols, &table.values).map_err(|source| self.failed(source))?;
        Ok(Features::new(names, all.select_rows(self.rows))?)
    }

    fn checked(&self, features: Features, place: &Source, values: Values) -> Result<Features> {
        let mut check = ValueCheck::new(self.path, place.to_string(), values, features.names());
        check.piece(features.values(), self.rows)?;
        check.finish()?;
        Ok(features)
    }

    fn obsm(&self, key: &str) -> Result<Table> {
        let table = self.file.obsm(key).and_then(|element| element.to_table(&format!("obsm/{key}")));
        table.map_err(|source| self.failed(source))
    }

    fn names_in_uns(&self, key: &str) -> Result<Vec<String>> {
        names_in_uns(self.file, key).map_err(|source| self.failed(source))
    }

    /// Cells that a modality lacks have zeros there, where they may lack it.
    fn matrix(&self, modality: Option<&str>, layer: Option<&str>, may_lack: bool) -> Result<Features> {
        let Some(name) = modality else {
            let values = self.file.rows(layer).and_then(|rows| rows.read_all()).map_err(|e| self.failed(e))?;
            let names = self.file.genes(layer).map_err(|source| self.failed(source))?.index().to_vec();
            return Ok(Features::new(names, values.select_rows(self.rows))?);
        };
        let modality = H5adFile::open_modality(self.path, name).map_err(|source| self.failed(source))?;
        let rows = self.rows_of(&modality, name, may_lack)?;
        let mut values = modality.rows(layer).and_then(|rows| rows.read_all()).map_err(|e| self.failed(e))?;
        let names = modality.genes(layer).map_err(|source| self.failed(source))?.index().to_vec();
        // A last row of zeros is that of cells that are not there.
        let nothing = values.n_rows();
        if rows.iter().any(Option::is_none) {
            values = Csr::vstack(names.len(), [values, Csr::zeros(1, names.len())]).map_err(|e| self.failed(e))?;
        }
        let rows: Vec<usize> = rows.into_iter().map(|row| row.unwrap_or(nothing)).collect();
        Ok(Features::new(names, values.select_rows(&rows))?)
    }

    /// The rows of the cells in another modality. They are found by name: each modality has its own order. A name that repeats
    /// finds no cell.
    fn rows_of(&self, modality: &H5adFile, name: &str, may_lack: bool) -> Result<Vec<Option<usize>>> {
        for names in [modality.obs().index(), self.file.obs().index()] {
            names::check_unique_cells(names).map_err(|source| self.failed(source))?;
        }
        let position: BTreeMap<&String, usize> = modality.obs().index().iter().zip(0..).collect();
        let names = self.file.obs().index();
        if may_lack {
            let known: BTreeSet<&String> = names.iter().collect();
            let n_beyond = modality.obs().index().iter().filter(|cell| !known.contains(cell)).count();
            if n_beyond > 0 {
                return Err(Error::BeyondCells { path: self.path.into(), name: name.to_owned(), n_beyond });
            }
        }
        let found: Vec<Option<usize>> = self.rows.iter().map(|&row| position.get(&names[row]).copied()).collect();
        let (n_missing, n_cells) = (found.iter().filter(|row| row.is_none()).count(), self.rows.len());
        if n_missing == 0 {
            return Ok(found);
        }
        if !may_lack || n_missing == n_cells {
            return Err(Error::LacksCells { path: self.path.into(), name: name.to_owned(), n_missing, n_cells });
        }
        tracing::warn!("{n_missing} of {n_cells} cells have no `{name}`: they count as cells that lack it");
        Ok(found)
    }

    /// The sets of one or several files, or of a mask.
    fn gene_sets(&self, field: &Field, places: &[Source]) -> Result<GeneSets> {
        if let [Source::Varm { key, names }] = places {
            return self.mask(key, names.as_deref());
        }
        let mut paths = Vec::new();
        for place in places {
            match place {
                Source::File(path) => paths.push(path.as_path()),
                other => {
                    let (field, place) = (field.name.to_string(), other.to_string());
                    return Err(Error::WrongPlace {
                        field,
                        place,
                        expected: "files of gene sets, `file/PATH`, or a mask, `varm/KEY`",
                    });
                }
            }
        }
        sets_of_files(&paths, self.genes, self.sets)
    }

    /// The sets of a matrix of genes and terms, as `preprocess` and scArches write it.
    fn mask(&self, key: &str, names_key: Option<&str>) -> Result<GeneSets> {
        let place = format!("varm/{key}");
        let table = self.file.varm(key).and_then(|element| element.to_table(&place)).map_err(|e| self.failed(e))?;
        let names = match (names_key, table.columns) {
            (Some(names_key), _) => self.names_in_uns(names_key)?,
            (None, Some(columns)) => columns,
            (None, None) => return Err(Error::NoFeatureNames { path: self.path.into(), key: key.to_owned() }),
        };
        let refuse = |found: String, expected| {
            Err(Error::WrongValues { path: self.path.into(), place: place.clone(), found, expected })
        };
        if (table.n_rows, table.n_cols) != (self.genes.len(), names.len()) {
            let found = format!("{} rows and {} columns", table.n_rows, table.n_cols);
            return refuse(found, "a row for each gene and a column for each named set");
        }
        if let Some(wrong) = table.values.iter().find(|value| ![0.0, 1.0].contains(*value)) {
            return refuse(wrong.to_string(), "1 where a gene is in a set, else 0");
        }
        let is_member = |term: usize| {
            (0..table.n_rows).map(move |gene| term + gene * table.n_cols).map(|at| table.values[at] == 1.0)
        };
        let members: Vec<Vec<bool>> = (0..names.len()).map(|term| is_member(term).collect()).collect();
        let kept = |genes: &Vec<bool>| self.sets.keeps(genes.iter().filter(|is| **is).count());
        let (terms, members): (Vec<_>, Vec<_>) =
            names.into_iter().zip(members).filter(|(_, genes)| kept(genes)).unzip();
        sets_on(&Annotations { terms, members }, self.genes.len(), (self.path, self.sets))
    }

    fn complete(&self, column: &str, n_missing: usize) -> Result<()> {
        let (path, column, n_cells) = (self.path.into(), column.to_owned(), self.rows.len());
        match n_missing {
            0 => Ok(()),
            _ => Err(Error::MissingValues { path, column, n_missing, n_cells }),
        }
    }

    pub(super) fn failed(&self, source: archipelago_anndata::Error) -> Error {
        Error::Cells { path: self.path.into(), source }
    }
}

/// A list of names in the unstructured part of a file.
///
/// # Errors  [`archipelago_anndata::Error`] for what is not there or something else
pub(crate) fn names_in_uns(file: &H5adFile, key: &str) -> archipelago_anndata::Result<Vec<String>> {
    match file.uns(key)? {
        Element::Array(array) => Ok(array.values().to_strings()),
        Element::Column(column) => Ok(column.to_strings().into_iter().flatten().collect()),
        other => {
            let (name, found) = (format!("uns/{key}"), other.kind().to_owned());
            Err(archipelago_anndata::Error::Kind { name, found, expected: "a list of names" })
        }
    }
}

/// The gene sets of files, of those of these genes.
///
/// # Errors  [`Error::Config`] for a file that is no text, or without a set that is large enough
pub(crate) fn sets_of_files(paths: &[&Path], genes: &[String], options: SetOptions) -> Result<GeneSets> {
    let texts: Vec<String> = paths.iter().map(|path| gmt::read(path, genes.len())).collect::<Result<_>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let found = gene_sets(&texts, genes, options);
    sets_on(&found, genes.len(), (paths[0], options))
}

fn sets_on(found: &Annotations, n_genes: usize, (path, options): (&Path, SetOptions)) -> Result<GeneSets> {
    if found.terms.is_empty() {
        let detail = match options.min_genes {
            0 => "no gene of the data is in any of its sets".to_owned(),
            min => format!("none of its sets has more than {min} genes of the data"),
        };
        return Err(Error::Config { path: path.into(), detail });
    }
    let members = |genes: &Vec<bool>| (0..).zip(genes).filter(|(_, is)| **is).map(|(at, _)| at).collect();
    Ok(GeneSets::new(found.terms.clone(), found.members.iter().map(members).collect(), n_genes)?)
}

#[cfg(test)]
mod tests {
    use archipelago_anndata::{AnnData, Array, Column, Compression, DataFrame, MuData};
    use archipelago_models::data::Need;

    use super::*;

    fn frame(cells: &[&str]) -> DataFrame {
        let mut obs = DataFrame::new(cells.iter().copied());
        obs.insert("batch", Column::categorical(&vec!["a"; cells.len()])).unwrap();
        obs
    }

    fn rna(cells: &[&str]) -> AnnData {
        let counts = Csr::from_dense(cells.len(), 1, &vec![1.0; cells.len()]).unwrap();
        AnnData::new(counts, frame(cells), DataFrame::new(["g"])).unwrap()
    }

    fn read(path: &Path, kind: FieldKind, place: &str) -> Result<FieldValues> {
        let file = H5adFile::open(path).unwrap();
        let file = if file.modalities().is_empty() { file } else { H5adFile::open_modality(path, "rna").unwrap() };
        let (rows, genes) = ((0..file.n_obs()).collect::<Vec<_>>(), file.var().index().to_vec());
        let reading = Reading { path, file: &file, rows: &rows, genes: &genes, sets: SetOptions::default() };
        reading.field(&Field::new("field", kind, Need::Optional, ""), &[place.parse().unwrap()])
    }

    fn check(adata: &AnnData, kind: FieldKind, place: &str) -> Result<FieldValues> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cells.h5ad");
        adata.write(&path, Compression::None).unwrap();
        read(&path, kind, place)
    }

    const COUNTS: FieldKind = FieldKind::Matrix(Values::Counts);

    fn names(found: FieldValues) -> Vec<String> {
        match found {
            FieldValues::Matrix(features) => features.names().to_vec(),
            other => panic!("expected a matrix, found {}", other.kind()),
        }
    }

    #[test]
    fn names_of_features_come_from_the_frame_or_from_uns() {
        let mut adata = rna(&["c1", "c2"]);
        let mut proteins = DataFrame::new(["c1", "c2"]);
        proteins.insert("CD3", vec![3.0_f32, 4.0]).unwrap();
        adata.obsm.insert("adt".to_owned(), proteins.into());
        assert_eq!(names(check(&adata, COUNTS, "obsm/adt").unwrap()), ["CD3"]);

        adata.obsm.insert("adt".to_owned(), Array::matrix(2, 1, vec![3.0_f32, 4.0]).unwrap().into());
        let refused = check(&adata, COUNTS, "obsm/adt").unwrap_err().to_string();
        assert!(refused.contains("obsm['adt']") && refused.contains("no names"), "{refused}");
        adata.uns.insert("names".to_owned(), Array::vector(vec!["CD4"]).into());
        assert_eq!(names(check(&adata, COUNTS, "obsm/adt@uns/names").unwrap()), ["CD4"]);
        assert!(check(&adata, COUNTS, "obsm/adt@uns/other").is_err());
        assert!(check(&rna(&["c1"]), COUNTS, "obsm/adt").unwrap_err().to_string().contains("cells.h5ad"));
        let places = check(&adata, FieldKind::Coordinates, "obsm/adt").unwrap();
        assert_eq!(places, ndarray::array![[3.0], [4.0]].into());
    }

    #[test]
    fn values_that_a_model_cannot_take_are_refused() {
        let mut adata = rna(&["c1"]);
        let mut proteins = DataFrame::new(["c1"]);
        proteins.insert("CD3", vec![-1.0_f32]).unwrap();
        adata.obsm.insert("adt".to_owned(), proteins.into());
        let refused = check(&adata, COUNTS, "obsm/adt").unwrap_err().to_string();
        assert!(refused.contains("`obsm/adt`") && refused.contains("-1 for `CD3` in row 0"), "{refused}");
    }

    #[test]
    fn a_place_that_cannot_hold_a_field_is_refused() {
        for (kind, place, expected) in [
            (COUNTS, "obs/batch", "a matrix"),
            (FieldKind::Category, "obsm/x", "a column of obs"),
            (FieldKind::Coordinates, "obs/batch", "a table of obsm"),
            (FieldKind::GeneSets, "obs/batch", "files of gene sets"),
            (FieldKind::Numbers, "X", "columns of obs"),
        ] {
            let refused = check(&rna(&["c1"]), kind, place).unwrap_err().to_string();
            assert!(refused.contains(place) && refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn gene_sets_are_read_against_the_genes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sets.gmt");
        std::fs::write(&path, "SET_one\turl\tG\tother\nSET_two\turl\tmissing\n").unwrap();
        let place = format!("file/{}", path.display());
        let FieldValues::GeneSets(sets) = check(&rna(&["c1"]), FieldKind::GeneSets, &place).unwrap() else {
            panic!("expected gene sets")
        };
        assert_eq!(sets.members(), [vec![0]], "a set without a gene of the data is left out");
        std::fs::write(&path, "SET_two\turl\tmissing\n").unwrap();
        assert!(check(&rna(&["c1"]), FieldKind::GeneSets, &place).unwrap_err().to_string().contains("no gene"));
    }

    #[test]
    fn a_mask_is_read_with_the_names_of_its_terms() {
        let place = "varm/I@uns/terms";
        let read = |values: &[f32], n_columns: usize| {
            let mut adata = rna(&["c1"]);
            adata.varm.insert("I".to_owned(), Array::matrix(1, n_columns, values.to_vec()).unwrap().into());
            adata.uns.insert("terms".to_owned(), Array::vector(vec!["one", "two"]).into());
            check(&adata, FieldKind::GeneSets, place).map_err(|error| error.to_string())
        };
        let FieldValues::GeneSets(sets) = read(&[1.0, 0.0], 2).unwrap() else { panic!("expected gene sets") };
        assert_eq!((sets.terms(), sets.members()), (&["one".to_owned()][..], &[vec![0]][..]));
        assert!(read(&[1.0], 1).unwrap_err().contains("1 rows and 1 columns"));
        assert!(read(&[0.5, 1.0], 2).unwrap_err().contains("0.5"));
    }

    #[test]
    fn a_modality_is_read_cell_by_cell_whatever_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cells.h5mu");
        let write = |cells: &[&str]| {
            let counts = Csr::from_dense(cells.len(), 2, &(0..2 * cells.len()).map(|i| i as f32).collect::<Vec<_>>());
            let proteins = AnnData::new(counts.unwrap(), frame(cells), DataFrame::new(["CD3", "CD4"])).unwrap();
            let modalities = [("rna".to_owned(), rna(&["c1", "c2"])), ("prot".to_owned(), proteins)];
            MuData { modalities: modalities.into() }.write(&path, Compression::None).unwrap();
        };
        write(&["c2", "c1"]);
        let FieldValues::Matrix(found) = read(&path, COUNTS, "mod/prot").unwrap() else { panic!("expected a matrix") };
        assert_eq!(found.to_dense(), ndarray::array![[2.0, 3.0], [0.0, 1.0]]);
        write(&["c2"]);
        let refused = read(&path, COUNTS, "mod/prot").unwrap_err().to_string();
        assert!(refused.contains("1 of 2 cells"), "{refused}");
    }
}
