//! All steps of a recipe on a whole file in memory.

use std::{collections::BTreeMap, fmt};

use archipelago_analysis::{
    CsrView, Labels,
    preprocess::{
        CellQuality, GeneBounds, Keep, SetOptions, VariableGenes, clr, filter_genes, gene_quality, gene_sets,
        highly_variable_genes, inverse_frequencies, log1p, median_total, normalize_total, tf_idf,
    },
};
use archipelago_anndata::{AnnData, Array, Csr, Dict, Element, H5adFile, Matrix, RAW, counts};
use ndarray::ArrayView2;
use serde::Serialize;

use super::{FlavorName, GeneSets, HighlyVariable, Proteins, Recipe, Stored, TfIdf};
use crate::{
    cells::{column, view},
    error::{Error, Result},
    gmt,
};

/// What became of the cells and genes.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// Cells before and after.
    pub n_cells: [usize; 2],
    /// Genes before and after.
    pub n_genes: [usize; 2],
    /// Genes that were merged into another of their name.
    pub n_genes_merged: usize,
    /// Genes left out because no table names them.
    pub n_genes_unmapped: usize,
    /// Cells left out by the filter.
    pub n_cells_filtered: usize,
    /// Genes left out by the filter.
    pub n_genes_filtered: usize,
    /// Highly variable genes, where they were looked for.
    pub n_highly_variable: Option<usize>,
    /// Terms of the gene sets, where there are some.
    pub n_terms: Option<usize>,
}

impl Recipe {
    /// Does all steps and writes down that they were done.
    ///
    /// # Errors  [`Error::Anndata`] for a missing layer or column and values that are no counts, [`Error::Analysis`]
    pub fn apply(&self, adata: AnnData) -> Result<(AnnData, Report)> {
        let mut report = Report { n_cells: [adata.n_obs(), 0], n_genes: [adata.n_vars(), 0], ..Report::default() };
        let (adata, layer) = self.with_counts(adata)?;
        let mut adata = self.rename(adata, &mut report)?;
        let counts = adata.matrix(layer)?.to_csr()?;
        counts::check(&counts, adata.var_names()).map_err(|error| advise(error, &adata))?;
        let quality = self.cell_quality(view(&counts)?, adata.var_names())?;
        if self.quality.is_some() {
            self.annotate(&mut adata, &quality, view(&counts)?)?;
        }
        let (mut adata, counts) = self.filter(adata, counts, &quality, &mut report)?;
        self.measure(&mut adata, &counts, &mut report)?;
        if let Some(proteins) = &self.proteins {
            proteins.apply(&mut adata)?;
        }
        let mut kept = vec![true; adata.n_vars()];
        if let Some(sets) = &self.gene_sets {
            let in_a_set = sets.apply(&mut adata, &mut report)?;
            kept.iter_mut().zip(in_a_set).for_each(|(kept, in_a_set)| *kept &= in_a_set || !sets.subset);
        }
        if self.highly_variable.as_ref().is_some_and(|step| step.subset) {
            let chosen = adata.var.column("highly_variable")?.to_f64().unwrap_or_default();
            kept.iter_mut().zip(chosen).for_each(|(kept, chosen)| *kept &= chosen > 0.0);
        }
        if kept.contains(&false) {
            adata = adata.select_vars(&positions(&kept))?;
        }
        report.n_cells[1] = adata.n_obs();
        report.n_genes[1] = adata.n_vars();
        Stored::of(self.clone()).mark(&mut adata);
        Ok((adata, report))
    }

    /// The data set with the genes of its counts, and the layer that they are in. Counts in `raw` have genes of their own: where
    /// these are not the genes of X, what is known of the latter cannot be kept.
    fn with_counts(&self, adata: AnnData) -> Result<(AnnData, Option<&str>)> {
        let layer = self.layer.as_deref();
        let asks_for_raw = layer == Some(RAW) && !adata.layers.contains_key(RAW);
        let Some(raw) = adata.raw.clone().filter(|_| asks_for_raw) else { return Ok((adata, layer)) };
        let mut adata = adata;
        if raw.var.index() != adata.var_names() {
            tracing::warn!("the genes of `raw` are not those of X: layers, varm and varp of the latter are left out");
            (adata.var, adata.varm) = (raw.var, raw.varm);
            adata.layers.clear();
            adata.varp.clear();
            adata.beside = adata.beside.without_genes();
        }
        adata.x = Some(raw.x);
        adata.raw = None;
        Ok((adata, None))
    }

    fn rename(&self, adata: AnnData, report: &mut Report) -> Result<AnnData> {
        let Some(genes) = &self.genes else { return Ok(adata) };
        let names = genes.names(&adata.var)?;
        report.n_genes_unmapped = names.iter().filter(|name| name.is_none()).count();
        let renamed = adata.with_gene_names(&names, genes.duplicates)?;
        report.n_genes_merged = adata.n_vars() - report.n_genes_unmapped - renamed.n_vars();
        Ok(renamed)
    }

    /// Columns under scanpy's names.
    fn annotate(&self, adata: &mut AnnData, cells: &CellQuality, counts: CsrView<'_>) -> Result<()> {
        let quality = self.quality.clone().unwrap_or_default();
        let obs = &mut adata.obs;
        obs.insert("n_genes_by_counts", cells.n_genes.iter().map(|&n| n as i32).collect::<Vec<_>>())?;
        obs.insert("total_counts", cells.total.clone())?;
        for (top, percent) in quality.percent_top.iter().zip(&cells.percent_in_top) {
            obs.insert(format!("pct_counts_in_top_{top}_genes"), percent.clone())?;
        }
        for (at, name) in quality.sets.keys().enumerate() {
            obs.insert(format!("total_counts_{name}"), cells.set_total[at].clone())?;
            obs.insert(format!("pct_counts_{name}"), cells.set_percent[at].clone())?;
        }
        let genes = gene_quality(counts);
        let var = &mut adata.var;
        var.insert("n_cells_by_counts", genes.n_cells.iter().map(|&n| n as i32).collect::<Vec<_>>())?;
        var.insert("mean_counts", genes.mean)?;
        var.insert("pct_dropout_by_counts", genes.percent_dropout)?;
        var.insert("total_counts", genes.total)?;
        Ok(())
    }

    fn filter(
        &self,
        adata: AnnData,
        counts: Csr,
        quality: &CellQuality,
        report: &mut Report,
    ) -> Result<(AnnData, Csr)> {
        let (mut adata, mut counts) = (adata, counts);
        if self.filter_cells.is_some() {
            let kept = positions(&self.good(quality));
            report.n_cells_filtered = adata.n_obs() - kept.len();
            if kept.is_empty() {
                return Err(Error::NothingLeft { what: "cell", n: report.n_cells_filtered, step: "filter_cells" });
            }
            (adata, counts) = (adata.select_obs(&kept)?, counts.select_rows(&kept));
        }
        if let Some(filter) = self.filter_genes {
            let super::GeneFilter { min_counts, max_counts, min_cells, max_cells } = filter;
            let bounds = GeneBounds { min_counts, max_counts, min_cells, max_cells };
            let kept = positions(&filter_genes(view(&counts)?, bounds));
            report.n_genes_filtered = adata.n_vars() - kept.len();
            if kept.is_empty() {
                return Err(Error::NothingLeft { what: "gene", n: report.n_genes_filtered, step: "filter_genes" });
            }
            (adata, counts) = (adata.select_vars(&kept)?, counts.select_cols(&kept)?);
        }
        Ok((adata, counts))
    }

    /// Normalised values and highly variable genes.
    fn measure(&self, adata: &mut AnnData, counts: &Csr, report: &mut Report) -> Result<()> {
        let raw = view(counts)?;
        let variable = self.highly_variable.as_ref();
        if let Some(step) = variable.filter(|step| step.flavor == FlavorName::SeuratV3) {
            step.annotate(adata, raw, report)?;
        }
        if let Some(step) = &self.tf_idf {
            let idf = step.inverse_frequencies(adata.var_names(), raw)?;
            let values = tf_idf(raw, &idf, step.scale);
            adata.var.insert(IDF, idf)?;
            return replace(adata, counts, values);
        }
        let Some(normalize) = self.normalize else { return Ok(()) };
        let target = normalize.target_sum.unwrap_or_else(|| median_total(raw));
        let mut values = normalize_total(raw, target);
        if normalize.log1p {
            log1p(&mut values);
            // As scanpy says that a logarithm was taken; without `base` it is the natural one. A null, which scanpy writes,
            // cannot be opened by anndata before 0.12.
            adata.uns.insert("log1p".to_owned(), Element::Dict(Dict::new()));
        }
        if let Some(step) = variable.filter(|step| step.flavor != FlavorName::SeuratV3) {
            step.annotate(adata, raw.with_data(&values)?, report)?;
        }
        replace(adata, counts, values)
    }
}

/// Puts values in the place of counts, which go to their layer.
fn replace(adata: &mut AnnData, counts: &Csr, values: Vec<f32>) -> Result<()> {
    let values =
        Csr::new(counts.n_rows(), counts.n_cols(), counts.indptr().to_vec(), counts.indices().to_vec(), values)?;
    adata.layers.insert(COUNTS.to_owned(), counts.clone().into());
    adata.x = Some(values.into());
    Ok(())
}

impl TfIdf {
    /// Of each peak: those of another file, or of these cells.
    fn inverse_frequencies(&self, peaks: &[String], counts: CsrView<'_>) -> Result<Vec<f64>> {
        let Some(path) = &self.idf_of else { return Ok(inverse_frequencies(counts)) };
        let cells = |source| Error::Cells { path: path.clone(), source };
        let file = H5adFile::open(path).map_err(cells)?;
        let values = file.var().column(IDF).map_err(cells)?.to_f64().unwrap_or_default();
        let known: BTreeMap<&String, f64> = file.var().index().iter().zip(values).collect();
        let of = |peak: &String| {
            known.get(peak).copied().ok_or_else(|| {
                let (found, expected) = (format!("without `{peak}`"), "every peak of these cells");
                Error::Setting { what: "--idf-of", found: format!("{} {found}", path.display()), expected }
            })
        };
        peaks.iter().map(of).collect()
    }
}

impl HighlyVariable {
    /// Columns under scanpy's names.
    fn annotate(&self, adata: &mut AnnData, x: CsrView<'_>, report: &mut Report) -> Result<()> {
        let batches = self.batch_key.as_deref().map(|key| column(&adata.obs, key)).transpose()?;
        let batches = batches.map(|names| Labels::from_names(&names));
        let keep = self.n_top_genes.map_or(Keep::SEURAT_CUTOFFS, Keep::Top);
        let found = highly_variable_genes(x, batches.as_ref(), self.flavor.into(), keep)?;
        report.n_highly_variable = Some(found.is_chosen.iter().filter(|&&chosen| chosen).count());
        let VariableGenes { is_chosen, mean, spread, normalised_spread, n_batches, rank, left_out } = found;
        if !left_out.is_empty() {
            let batches = left_out.join(", ");
            tracing::warn!(batches, "batches of too few cells have no say in the choice of variable genes");
        }
        let (spread_name, normalised_name) = match self.flavor {
            FlavorName::SeuratV3 => ("variances", "variances_norm"),
            _ => ("dispersions", "dispersions_norm"),
        };
        let var = &mut adata.var;
        var.insert("highly_variable", is_chosen)?;
        var.insert("means", mean)?;
        var.insert(spread_name, spread)?;
        var.insert(normalised_name, normalised_spread)?;
        if batches.is_some() {
            var.insert("highly_variable_nbatches", n_batches.into_iter().map(|n| n as i32).collect::<Vec<_>>())?;
        }
        if !rank.is_empty() {
            var.insert("highly_variable_rank", rank)?;
        }
        let flavor = Element::from(match self.flavor {
            FlavorName::Seurat => "seurat",
            FlavorName::CellRanger => "cell_ranger",
            FlavorName::SeuratV3 => "seurat_v3",
        });
        adata.uns.insert("hvg".to_owned(), Element::Dict(Dict::from([("flavor".to_owned(), flavor)])));
        Ok(())
    }
}

impl Proteins {
    fn apply(&self, adata: &mut AnnData) -> Result<()> {
        let table = adata.obsm(&self.obsm)?.to_table(&self.obsm)?;
        if table.values.iter().any(|&value| value.is_nan() || value < 0.0) {
            let (name, found) = (self.obsm.clone(), "negative or missing values".to_owned());
            return Err(archipelago_anndata::Error::Kind { name, found, expected: "protein counts" }.into());
        }
        let shape = (table.n_rows, table.n_cols);
        let values = ArrayView2::from_shape(shape, &table.values).expect("a table has a value per row and column");
        let ratios = clr(values, self.clr.into());
        let name = format!("{}_clr", self.obsm);
        let element = match table.columns {
            None => Element::Array(Array::matrix(shape.0, shape.1, ratios.iter().copied().collect::<Vec<_>>())?),
            Some(columns) => {
                let mut frame = archipelago_anndata::DataFrame::new(adata.obs_names().to_vec());
                for (column, values) in columns.into_iter().zip(ratios.columns()) {
                    frame.insert(column, values.to_vec())?;
                }
                Element::Frame(frame)
            }
        };
        adata.obsm.insert(name, element);
        Ok(())
    }
}

impl GeneSets {
    /// Writes the mask and the terms; whether each gene is in a set.
    fn apply(&self, adata: &mut AnnData, report: &mut Report) -> Result<Vec<bool>> {
        let mut texts = Vec::new();
        for path in &self.files {
            texts.push(gmt::read(path, adata.n_vars())?);
        }
        let options =
            SetOptions { min_genes: self.min_genes, max_genes: self.max_genes, clean: self.clean, upper: true };
        let files: Vec<&str> = texts.iter().map(String::as_str).collect();
        let found = gene_sets(&files, adata.var_names(), options);
        if found.terms.is_empty() {
            let n = texts.iter().map(|text| text.lines().count()).sum();
            return Err(Error::NothingLeft { what: "gene set", n, step: "gene_sets" });
        }
        report.n_terms = Some(found.terms.len());
        let genes = 0..adata.n_vars();
        let mask: Vec<f32> = genes
            .clone()
            .flat_map(|gene| found.members.iter().map(move |members| f32::from(u8::from(members[gene]))))
            .collect();
        let mask = Array::matrix(adata.n_vars(), found.terms.len(), mask)?;
        adata.varm.insert("I".to_owned(), Element::Array(mask));
        let in_a_set = genes.map(|gene| found.members.iter().any(|members| members[gene])).collect();
        adata.uns.insert("terms".to_owned(), Element::Array(Array::vector(found.terms)));
        Ok(in_a_set)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [cells, cells_left] = self.n_cells;
        let [genes, genes_left] = self.n_genes;
        writeln!(f, "cells       {cells_left} of {cells}")?;
        write!(f, "genes       {genes_left} of {genes}")?;
        for (n, what) in [
            (self.n_genes_merged, "merged into another of their name"),
            (self.n_genes_unmapped, "in no table"),
            (self.n_genes_filtered, "filtered"),
        ] {
            if n > 0 {
                write!(f, ", {n} {what}")?;
            }
        }
        if let Some(n) = self.n_highly_variable {
            write!(f, "\nvariable    {n} genes")?;
        }
        if let Some(n) = self.n_terms {
            write!(f, "\nterms       {n}")?;
        }
        Ok(())
    }
}

/// Says which layers look like counts, where X does not.
fn advise(error: archipelago_anndata::Error, adata: &AnnData) -> archipelago_anndata::Error {
    let archipelago_anndata::Error::NotCounts { cell_row, gene, value, .. } = error else { return error };
    let holds_counts =
        |matrix: &Matrix| matrix.to_csr().is_ok_and(|csr| csr.data().iter().all(|&x| counts::is_count(x)));
    let layers = adata.layers.iter().filter(|(_, layer)| holds_counts(layer)).map(|(name, _)| name.clone());
    let raw = adata.raw.iter().filter(|raw| holds_counts(&raw.x)).map(|_| RAW.to_owned());
    archipelago_anndata::Error::NotCounts { cell_row, gene, value, counted: layers.chain(raw).collect() }
}

fn positions(kept: &[bool]) -> Vec<usize> {
    (0..kept.len()).filter(|&at| kept[at]).collect()
}

/// The var column of inverse frequencies.
const IDF: &str = "idf";
/// The layer that raw counts move to.
pub(crate) const COUNTS: &str = "counts";

#[cfg(test)]
mod tests {
    use archipelago_anndata::{Column, DataFrame};

    use super::*;
    use crate::recipe::{CellFilter, GeneNames, Normalize, UNS_KEY};

    fn adata() -> AnnData {
        let x = Csr::from_dense(3, 3, &[1.0, 3.0, 0.0, 0.0, 5.0, 5.0, 0.0, 1.0, 0.0]).unwrap();
        let mut adata = AnnData::new(x, DataFrame::new(["a", "b", "c"]), DataFrame::new(["E1", "E2", "E3"])).unwrap();
        adata.var.insert("symbol", Column::text(["LYZ", "CD3D", "LYZ"])).unwrap();
        adata
    }

    #[test]
    fn steps_run_in_order_and_are_written_down() {
        let recipe = Recipe {
            genes: Some(GeneNames { column: Some("symbol".into()), ..GeneNames::default() }),
            quality: Some(Default::default()),
            filter_cells: Some(CellFilter { min_counts: Some(2.0), ..CellFilter::default() }),
            normalize: Some(Normalize { target_sum: Some(8.0), log1p: false }),
            ..Recipe::default()
        };
        let (done, report) = recipe.apply(adata()).unwrap();
        assert_eq!(done.var_names(), ["LYZ", "CD3D"]);
        assert_eq!(done.matrix(None).unwrap().to_csr().unwrap().to_dense(), [2.0, 6.0, 4.0, 4.0]);
        assert_eq!(done.layers[COUNTS].to_csr().unwrap().to_dense(), [1.0, 3.0, 5.0, 5.0]);
        assert_eq!(done.obs.column("total_counts").unwrap().to_f64().unwrap(), [4.0, 10.0]);
        assert_eq!((report.n_cells, report.n_genes, report.n_genes_merged), ([3, 2], [3, 2], 1));
        assert!(done.uns.contains_key(UNS_KEY));
    }

    #[test]
    fn values_that_are_no_counts_and_filters_that_leave_nothing_are_refused() {
        let filter = Some(CellFilter { min_counts: Some(1e6), ..CellFilter::default() });
        let recipe = Recipe { filter_cells: filter, ..Recipe::default() };
        assert!(matches!(recipe.apply(adata()), Err(Error::NothingLeft { what: "cell", n: 3, .. })));
        let mut fractions = adata();
        fractions.x = Some(Csr::from_dense(3, 3, &[0.5; 9]).unwrap().into());
        assert!(matches!(recipe.apply(fractions), Err(Error::Anndata(_))));
    }

    #[test]
    fn proteins_are_centred_beside_their_counts() {
        let mut cells = adata();
        cells.obsm.insert("protein".into(), Array::matrix(3, 1, vec![0.0_f32, 3.0, 8.0]).unwrap().into());
        let proteins = Proteins { obsm: "protein".into(), clr: Default::default() };
        let recipe = Recipe { proteins: Some(proteins), ..Recipe::default() };
        let (done, _) = recipe.apply(cells).unwrap();
        let ratios = done.obsm["protein_clr"].to_table("protein_clr").unwrap().values;
        let centre = ((1f64.ln() + 4f64.ln() + 9f64.ln()) / 3.0).exp();
        assert!((f64::from(ratios[1]) - (3.0 / centre).ln_1p()).abs() < 1e-6, "{ratios:?}");
    }
}
