//! `preprocess`: raw counts to cells and genes worth training on, by a recipe.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use archipelago_anndata::AnnData;
use archipelago_common::fs;
use clap::Args;
use serde::Serialize;

use super::file::FileArgs;
use crate::{
    error::{Error, Result},
    lists,
    output::Output,
    recipe::{
        CellFilter, CentreName, FlavorName, GeneFilter, GeneNames, GeneSets, HighlyVariable, Normalize, Proteins,
        Quality, Recipe, Report, Table, TfIdf, Unmapped,
    },
};

/// Filter, normalise and annotate cells by a recipe, as scanpy does.
///
/// The steps come from a recipe file, from flags, or from both (a flag wins over the file). They run in this order: names
/// of genes, figures of quality, filter of cells, filter of genes, highly variable genes, normalisation or TF-IDF, proteins,
/// gene sets. The file that is written says by which recipe it was prepared, and so does a reference that is trained on it:
/// `map` and `serve` then prepare raw cells the same way.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct PreprocessArgs {
    #[command(flatten)]
    file: FileArgs,
    /// A recipe file (TOML).
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Also write the recipe with every flag in it to this file.
    #[arg(long, value_name = "FILE")]
    write_recipe: Option<PathBuf>,
    /// The layer that holds raw counts, or `raw` [default: X]
    #[arg(long)]
    layer: Option<String>,
    #[command(flatten)]
    genes: GeneArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    measure: MeasureArgs,
}

const EXAMPLES: &str = r#"Examples:
  archipelago-worker preprocess raw.h5ad --min-genes 200 --min-cells 3 --max-percent-mt 20 --target-sum 1e4 --out clean.h5ad
  archipelago-worker preprocess raw.h5ad --n-top-genes 2000 --flavor seurat_v3 --batch-key batch --subset --out hvg.h5ad
  archipelago-worker preprocess raw.h5ad --recipe recipe.toml --out clean.h5ad

A complete recipe (every part can be left out):
  layer = "counts"
  [genes]
  column = "gene_ids"                       # a var column instead of the names of the genes
  strip_version = true                      # ENSG00000090382.7 -> ENSG00000090382
  table = "ensembl_to_symbol.tsv"           # identifier and name, two columns
  unmapped = "drop"                         # or "keep"
  duplicates = "sum"                        # or "refuse"
  [quality]
  sets = { mt = ["MT-"], ribo = ["RPS", "RPL"] }
  percent_top = [50]
  [filter_cells]
  min_genes = 200                           # also max_genes, min_counts, max_counts
  max_percent = { mt = 20.0 }
  [filter_genes]
  min_cells = 3                             # also max_cells, min_counts, max_counts
  [normalize]
  target_sum = 10000.0                      # the median without it; counts stay in layers['counts']
  log1p = true
  # [tf_idf]                                # in its place, for peaks
  # scale = 10000.0
  # idf_of = "reference_peaks.h5ad"         # a query is weighed as its reference
  [highly_variable]
  flavor = "seurat_v3"                      # or "seurat", "cell_ranger"
  n_top_genes = 2000
  batch_key = "batch"
  subset = true
  [proteins]
  obsm = "protein_expression"
  clr = "protein"                           # or "cell"
  [gene_sets]
  files = ["reactome.gmt"]
  min_genes = 12"#;

/// Names of genes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Names of genes")]
struct GeneArgs {
    /// Take the names of genes from this var column.
    #[arg(long, value_name = "COLUMN")]
    gene_column: Option<String>,
    /// Look genes up in this file: identifier and name, separated by a tab or a comma. Genes of one name are added up.
    #[arg(long, value_name = "FILE")]
    gene_table: Option<PathBuf>,
    /// What becomes of genes that the table lacks [default: keep]
    #[arg(long, value_enum, requires = "gene_table")]
    unmapped: Option<Unmapped>,
    /// Cut versions off Ensembl identifiers.
    #[arg(long)]
    strip_version: bool,
}

/// Which cells and genes are kept.
#[derive(Args, Debug)]
#[command(next_help_heading = "Filters")]
struct FilterArgs {
    /// Keep cells with at least so many genes.
    #[arg(long)]
    min_genes: Option<u32>,
    /// Keep cells with at most so many genes.
    #[arg(long)]
    max_genes: Option<u32>,
    /// Keep cells with at least so many counts.
    #[arg(long)]
    min_counts: Option<f64>,
    /// Keep cells with at most so many counts.
    #[arg(long)]
    max_counts: Option<f64>,
    /// Keep cells with at most this percentage of mitochondrial counts (genes that start with MT-).
    #[arg(long, value_name = "PERCENT")]
    max_percent_mt: Option<f64>,
    /// Keep genes that are seen in at least so many cells.
    #[arg(long)]
    min_cells: Option<u32>,
}

/// Normalisation and what is measured.
#[derive(Args, Debug)]
#[command(next_help_heading = "Normalisation and features")]
struct MeasureArgs {
    /// Normalise each cell to this sum and take ln(1 + x); counts stay in layers['counts'].
    #[arg(long)]
    target_sum: Option<f64>,
    /// Normalise each cell to the median sum and take ln(1 + x).
    #[arg(long, conflicts_with = "target_sum")]
    normalize: bool,
    /// Weigh peaks by term frequency and inverse document frequency; counts stay in layers['counts'], the latter in var['idf'].
    #[arg(long, conflicts_with_all = ["target_sum", "normalize"])]
    tf_idf: bool,
    /// Weigh peaks as in this file, which `--tf-idf` has written: a query as its reference.
    #[arg(long, value_name = "FILE", requires = "tf_idf")]
    idf_of: Option<PathBuf>,
    /// Choose so many highly variable genes.
    #[arg(long)]
    n_top_genes: Option<usize>,
    /// How variability is measured [default: seurat]
    #[arg(long, value_enum)]
    flavor: Option<FlavorName>,
    /// Judge variability within the batches of this obs column.
    #[arg(long)]
    batch_key: Option<String>,
    /// Keep only the highly variable genes.
    #[arg(long)]
    subset: bool,
    /// Write the centred log-ratio of this element of obsm.
    #[arg(long, value_name = "OBSM")]
    clr: Option<String>,
    /// Write the mask of the gene sets in these GMT files, separated by commas.
    #[arg(long, value_name = "FILE")]
    gene_sets: Vec<String>,
    /// Keep gene sets with more than so many genes [default: 0]
    #[arg(long, requires = "gene_sets")]
    min_genes_of_set: Option<usize>,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    #[serde(flatten)]
    report: Report,
    recipe: Recipe,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Recipe`], [`crate::Error::Cells`], [`crate::Error::Analysis`]
pub fn run(args: &PreprocessArgs, output: &Output) -> Result<()> {
    let recipe = args.recipe()?;
    let adata = args.file.read(output)?;
    args.check_batch_key(&recipe, &adata)?;
    let work = output.waiting("preprocessing".to_owned());
    let (adata, report) = recipe.apply(adata).map_err(|error| args.file.within(error))?;
    drop(work);
    let out = args.file.write(&adata, output)?;
    if let Some(path) = &args.write_recipe {
        fs::write_atomic(path, recipe.to_toml().as_bytes())?;
    }
    output.show(&Summary { out, report, recipe });
    Ok(())
}

impl PreprocessArgs {
    /// Refuses a column that would not be looked at.
    fn check_batch_key(&self, recipe: &Recipe, adata: &AnnData) -> Result<()> {
        let Some(key) = &self.measure.batch_key else { return Ok(()) };
        if recipe.highly_variable.is_none() {
            let (found, expected) =
                (format!("`{key}`"), "nothing without a choice of variable genes, such as `--n-top-genes`");
            return Err(Error::Setting { what: "--batch-key", found, expected });
        }
        adata.obs.column(key).map(drop).map_err(|error| self.file.within(error.into()))
    }

    fn recipe(&self) -> Result<Recipe> {
        let mut recipe = self.recipe.as_deref().map(Recipe::read).transpose()?.unwrap_or_default();
        if self.layer.is_some() {
            recipe.layer.clone_from(&self.layer);
        }
        self.genes.add_to(&mut recipe)?;
        self.filter.add_to(&mut recipe);
        self.measure.add_to(&mut recipe);
        if self.recipe.is_none() {
            // As scanpy's tutorials begin; a recipe file says itself whether it wants them.
            recipe.quality.get_or_insert_with(Quality::default);
        }
        recipe.check(self.recipe.as_deref().unwrap_or("the command line".as_ref()))?;
        Ok(recipe)
    }
}

impl GeneArgs {
    fn add_to(&self, recipe: &mut Recipe) -> Result<()> {
        if self.gene_column.is_none() && self.gene_table.is_none() && !self.strip_version {
            return Ok(());
        }
        let genes = recipe.genes.get_or_insert_with(GeneNames::default);
        if self.gene_column.is_some() {
            genes.column.clone_from(&self.gene_column);
        }
        if let Some(path) = &self.gene_table {
            genes.table = Table::File(path.clone());
        }
        genes.unmapped = self.unmapped.unwrap_or(genes.unmapped);
        genes.strip_version |= self.strip_version;
        genes.read_table("".as_ref())
    }
}

impl FilterArgs {
    fn add_to(&self, recipe: &mut Recipe) {
        let Self { min_genes, max_genes, min_counts, max_counts, max_percent_mt, min_cells } = *self;
        if min_genes.is_some() || max_genes.is_some() || min_counts.is_some() || max_counts.is_some() {
            let filter = recipe.filter_cells.get_or_insert_with(CellFilter::default);
            filter.min_genes = min_genes.or(filter.min_genes);
            filter.max_genes = max_genes.or(filter.max_genes);
            filter.min_counts = min_counts.or(filter.min_counts);
            filter.max_counts = max_counts.or(filter.max_counts);
        }
        if let Some(most) = max_percent_mt {
            let sets = &mut recipe.quality.get_or_insert_with(Quality::default).sets;
            sets.entry(MT.to_owned()).or_insert_with(|| vec!["MT-".to_owned()]);
            let filter = recipe.filter_cells.get_or_insert_with(CellFilter::default);
            filter.max_percent.extend(BTreeMap::from([(MT.to_owned(), most)]));
        }
        if min_cells.is_some() {
            recipe.filter_genes.get_or_insert_with(GeneFilter::default).min_cells = min_cells;
        }
    }
}

impl MeasureArgs {
    fn add_to(&self, recipe: &mut Recipe) {
        if self.normalize || self.target_sum.is_some() {
            recipe.normalize = Some(Normalize { target_sum: self.target_sum, log1p: true });
        }
        if self.tf_idf {
            let step = recipe.tf_idf.get_or_insert_with(TfIdf::default);
            step.idf_of = self.idf_of.clone().or(step.idf_of.take());
        }
        if self.n_top_genes.is_some() || self.flavor.is_some() || self.subset {
            let step = recipe.highly_variable.get_or_insert_with(HighlyVariable::default);
            step.n_top_genes = self.n_top_genes.or(step.n_top_genes);
            step.flavor = self.flavor.unwrap_or(step.flavor);
            step.subset |= self.subset;
        }
        if let (Some(key), Some(step)) = (&self.batch_key, &mut recipe.highly_variable) {
            step.batch_key = Some(key.clone());
        }
        if let Some(obsm) = &self.clr {
            recipe.proteins = Some(Proteins { obsm: obsm.clone(), clr: CentreName::default() });
        }
        if !self.gene_sets.is_empty() {
            let min_genes = self.min_genes_of_set.unwrap_or(0);
            let files = lists::among(&self.gene_sets, |path| Path::new(path).exists().then(|| path.to_owned()));
            let files = files.into_iter().map(PathBuf::from).collect();
            recipe.gene_sets = Some(GeneSets { files, min_genes, max_genes: None, clean: true, subset: false });
        }
    }
}

const MT: &str = "mt";

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "prepared    {}", self.out.display())?;
        write!(f, "{}", self.report)
    }
}
