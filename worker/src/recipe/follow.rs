//! Following a reference's recipe while a file is read: what matters to a model, and nothing else.
//!
//! A model of counts takes them raw. So genes are called as the recipe calls them and cells that are not good enough are left
//! out; which genes were chosen is the reference's panel, and normalised values reach only a model that takes such values.

use archipelago_anndata::{Csr, H5adFile, Renaming, counts};
use archipelago_models::data::Values;

use super::{Recipe, Stored, UNS_KEY, apply::COUNTS};
use crate::{
    cells::view,
    data::{DataSpec, at_row_of_file},
    error::{Error, Result},
};

/// How a file was prepared, and what is left to do when it is read.
#[derive(Clone, Debug, Default)]
pub struct Preparation {
    prepared_by: Option<Stored>,
    to_follow: Option<Recipe>,
    renaming: Option<Renaming>,
    layer: Option<String>,
    /// The genes of the counts, as the file names them.
    genes: Vec<String>,
}

impl Preparation {
    /// Compares what the file says with what the reference asks for. A file that was prepared by the reference's recipe is
    /// left as it is; one that says nothing is prepared while it is read.
    ///
    /// # Errors  [`Error::OtherRecipe`], [`Error::Cells`] for genes that cannot be renamed
    pub fn of(file: &H5adFile, spec: &DataSpec) -> Result<Self> {
        let cells = |source| Error::Cells { path: spec.path.clone(), source };
        let is_marked = file.names("uns").map_err(cells)?.iter().any(|name| name == UNS_KEY);
        let prepared_by = match is_marked {
            true => Some(Stored::in_uns(&file.uns(UNS_KEY).map_err(cells)?, &spec.path)?),
            false => None,
        };
        let to_follow = match (&prepared_by, &spec.recipe) {
            (Some(found), Some(expected)) if found.digest != expected.digest => {
                let (found, expected) = (found.digest.short(), expected.digest.short());
                return Err(Error::OtherRecipe { path: spec.path.clone(), found, expected });
            }
            (None, Some(recipe)) => Some(recipe.recipe.clone()),
            _ => None,
        };
        let moves = |recipe: &Recipe| recipe.normalize.is_some() || recipe.tf_idf.is_some();
        let moved = prepared_by.as_ref().is_some_and(|stored| moves(&stored.recipe));
        // What was moved are the counts; a model of logarithms takes what is in their place.
        let is_moved = moved && spec.values() == Values::Counts;
        let layer = spec.fields.rna_layer().map(str::to_owned).or_else(|| is_moved.then(|| COUNTS.to_owned()));
        let var = file.genes(layer.as_deref()).map_err(cells)?;
        let renaming = match to_follow.as_ref().and_then(|recipe| recipe.genes.as_ref()) {
            Some(genes) => {
                let names = genes.names(var)?;
                Some(Renaming::new(&names, genes.duplicates).map_err(cells)?)
            }
            None => None,
        };
        Ok(Self { prepared_by, to_follow, renaming, layer, genes: var.index().to_vec() })
    }

    /// The recipe that the file was prepared by.
    pub fn prepared_by(&self) -> Option<&Stored> {
        self.prepared_by.as_ref()
    }

    /// The layer with counts: as asked for, else where the recipe put them.
    pub fn layer(&self) -> Option<&str> {
        self.layer.as_deref()
    }

    /// The names of the genes, in the order of the file, as the recipe calls them where one is followed.
    pub fn genes(&self) -> &[String] {
        self.renaming.as_ref().map_or(&self.genes, Renaming::names)
    }

    /// Whether cells may be left out.
    pub fn filters_cells(&self) -> bool {
        self.to_follow.as_ref().is_some_and(|recipe| recipe.filter_cells.is_some())
    }

    /// Some rows of the file under the new names.
    ///
    /// # Errors  when the rows have not the file's genes
    pub fn rename(&self, rows: Csr) -> archipelago_anndata::Result<Csr> {
        match &self.renaming {
            Some(renaming) => renaming.apply(&rows),
            None => Ok(rows),
        }
    }

    /// Those of the rows that are good enough by all genes of the file, read a chunk at a time.
    ///
    /// # Errors  [`Error::Cells`] for values that are no counts
    pub fn good_rows(&self, file: &H5adFile, rows: &[usize], n_chunk: usize) -> Result<Vec<usize>> {
        let Some(recipe) = &self.to_follow else { return Ok(rows.to_vec()) };
        let cells = |source| Error::Cells { path: file.path().to_owned(), source };
        let reader = file.rows(self.layer()).map_err(cells)?;
        let mut good = Vec::with_capacity(rows.len());
        let mut later = rows;
        for start in (0..reader.n_rows()).step_by(n_chunk) {
            let end = (start + n_chunk).min(reader.n_rows());
            let (here, rest) = later.split_at(later.partition_point(|&row| row < end));
            later = rest;
            if here.is_empty() {
                continue;
            }
            let chunk = reader.read(start..end).map_err(cells)?;
            let chosen = chunk.select_rows(&here.iter().map(|row| row - start).collect::<Vec<_>>());
            let checked = counts::check(&chosen, &self.genes).map_err(|error| file.advise(at_row_of_file(error, here)));
            checked.map_err(cells)?;
            let kept = recipe.keeps(view(&self.rename(chosen).map_err(cells)?)?, self.genes())?;
            good.extend(here.iter().zip(kept).filter(|(_, kept)| *kept).map(|(&row, _)| row));
        }
        let (n_left_out, n_kept) = (rows.len() - good.len(), good.len());
        if n_kept == 0 && n_left_out > 0 {
            return Err(Error::NothingLeft { what: "cell", n: n_left_out, step: "filter_cells" });
        }
        if n_left_out > 0 {
            tracing::warn!(n_left_out, n_kept, "the reference's recipe leaves cells out");
        }
        Ok(good)
    }
}
