//! How cells are prepared, written down once: a recipe file names the steps, and every site takes the same ones.
//!
//! Steps run in the order of the fields of [`Recipe`]. A recipe travels with the reference that was trained on cells prepared
//! by it ([`Stored`]); a site that maps raw cells onto such a reference has the steps that matter to a model (the names of
//! genes, which cells are good enough) applied while its file is read. [`apply`](Recipe::apply) does all of them.

mod apply;
mod cells;
mod follow;
mod genes;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use archipelago_analysis::preprocess::{CP10K, Centre, Flavor};
use archipelago_anndata::{AnnData, Array, Dict, Element};
use archipelago_common::{fs, hash::Digest};
use serde::{Deserialize, Serialize};

pub use apply::Report;
pub use cells::{CellFilter, Quality};
pub use follow::Preparation;
pub use genes::{GeneNames, Table, Unmapped};

use crate::error::{Error, Result};

/// The steps, and how each is done. A step that is left out is not done.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// The layer that holds raw counts, or `raw`; `X` if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// Other names for genes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genes: Option<GeneNames>,
    /// Figures of quality, written to `obs` and `var`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Which cells are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_cells: Option<CellFilter>,
    /// Which genes are kept, judged on the cells that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_genes: Option<GeneFilter>,
    /// Library size and logarithm; the counts move to `layers['counts']`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// What peaks are weighed by instead; the counts move to `layers['counts']`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tf_idf: Option<TfIdf>,
    /// Highly variable genes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highly_variable: Option<HighlyVariable>,
    /// Centred log-ratio of proteins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proteins: Option<Proteins>,
    /// Gene sets as a mask of genes and terms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gene_sets: Option<GeneSets>,
}

/// Bounds that a gene must respect, both ends included.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneFilter {
    /// Least sum of counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_counts: Option<f64>,
    /// Largest sum of counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_counts: Option<f64>,
    /// Least number of cells with a count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cells: Option<u32>,
    /// Largest number of cells with a count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cells: Option<u32>,
}

/// Library size and logarithm.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Normalize {
    /// What the counts of a cell shall sum to; the median of the sums if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_sum: Option<f64>,
    /// Whether ln(1 + x) is taken.
    pub log1p: bool,
}

impl Default for Normalize {
    fn default() -> Self {
        Self { target_sum: None, log1p: true }
    }
}

/// Term frequency and inverse document frequency of peaks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TfIdf {
    /// What the counts of a cell are scaled to before the logarithm.
    pub scale: f64,
    /// The file whose inverse frequencies are taken, from `var['idf']`: a query is weighed as its reference was. Those of the cells
    /// themselves if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idf_of: Option<PathBuf>,
}

impl Default for TfIdf {
    fn default() -> Self {
        Self { scale: CP10K, idf_of: None }
    }
}

/// Which genes vary more than their mean explains.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HighlyVariable {
    /// How variability is measured.
    pub flavor: FlavorName,
    /// How many genes are chosen; by the cutoffs of Seurat's tutorial if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_top_genes: Option<usize>,
    /// The obs column of the batch within which genes are judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_key: Option<String>,
    /// Whether only the chosen genes are kept.
    pub subset: bool,
}

/// A flavor by scanpy's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum FlavorName {
    /// Log dispersion within bins of the mean; log-normalised values.
    #[default]
    Seurat,
    /// Dispersion against the median of bins; log-normalised values.
    CellRanger,
    /// Variance against a trend; raw counts.
    SeuratV3,
}

impl From<FlavorName> for Flavor {
    fn from(name: FlavorName) -> Self {
        match name {
            FlavorName::Seurat => Self::Seurat,
            FlavorName::CellRanger => Self::CellRanger,
            FlavorName::SeuratV3 => Self::SeuratV3,
        }
    }
}

/// Centred log-ratio of protein counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proteins {
    /// The element of `obsm` with the counts; the ratios are written to `<obsm>_clr`.
    pub obsm: String,
    /// Along which direction counts are centred.
    pub clr: CentreName,
}

/// A direction of centring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CentreName {
    /// Each protein over the cells, as muon does.
    #[default]
    Protein,
    /// Each cell over its proteins.
    Cell,
}

impl From<CentreName> for Centre {
    fn from(name: CentreName) -> Self {
        match name {
            CentreName::Protein => Self::EachProtein,
            CentreName::Cell => Self::EachCell,
        }
    }
}

/// Gene sets from GMT files; the mask goes to `varm['I']`, the names of the terms to `uns['terms']`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneSets {
    /// The files; relative paths start at the recipe's folder.
    pub files: Vec<PathBuf>,
    /// A set is kept if more of its genes than this are present.
    #[serde(default)]
    pub min_genes: usize,
    /// A set is kept if fewer of its genes than this are present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_genes: Option<usize>,
    /// Drop the collection's prefix of a term's name and cut it to 30 letters.
    #[serde(default = "yes")]
    pub clean: bool,
    /// Drop genes that are in no set.
    #[serde(default)]
    pub subset: bool,
}

fn yes() -> bool {
    true
}

impl Recipe {
    /// Reads a recipe file and what it refers to.
    ///
    /// # Errors  [`Error::ConfigFile`], [`Error::Recipe`]
    pub fn read(path: &Path) -> Result<Self> {
        let bytes =
            fs::read_bounded(path, RECIPE_BYTES).map_err(|source| Error::ConfigFile { path: path.into(), source })?;
        let text = String::from_utf8(bytes).map_err(|_| invalid(path, "it is not UTF-8 text"))?;
        let mut recipe: Self = toml::from_str(&text).map_err(|error| invalid(path, error.to_string().trim_end()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some(genes) = &mut recipe.genes {
            genes.read_table(folder)?;
        }
        let of_sets = recipe.gene_sets.iter_mut().flat_map(|sets| &mut sets.files);
        for file in of_sets.chain(recipe.tf_idf.iter_mut().flat_map(|step| &mut step.idf_of)) {
            *file = folder.join(&*file);
        }
        recipe.check(path)?;
        Ok(recipe)
    }

    /// Whether the steps fit together; `path` is where they stand.
    ///
    /// # Errors  [`Error::Recipe`]
    pub fn check(&self, path: &Path) -> Result<()> {
        if let Some(filter) = &self.filter_cells {
            let sets = self.sets();
            if let Some(name) = filter.max_percent.keys().find(|name| !sets.contains_key(*name)) {
                let known = sets.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                let detail = format!("`filter_cells.max_percent` names the set `{name}`, `quality.sets` has {known}");
                return Err(invalid(path, &detail));
            }
        }
        if self.normalize.is_some() && self.tf_idf.is_some() {
            return Err(invalid(
                path,
                "`normalize` and `tf_idf` both say what becomes of the counts, expected one of them",
            ));
        }
        let Some(variable) = &self.highly_variable else { return Ok(()) };
        match (variable.flavor, &self.normalize, variable.n_top_genes) {
            (FlavorName::SeuratV3, _, None) => {
                Err(invalid(path, "`highly_variable.flavor = \"seurat_v3\"` needs `n_top_genes`"))
            }
            (FlavorName::Seurat | FlavorName::CellRanger, None | Some(Normalize { log1p: false, .. }), _) => {
                Err(invalid(path, "`highly_variable` needs `[normalize]` with `log1p`, or `flavor = \"seurat_v3\"`"))
            }
            (_, _, Some(0)) => Err(invalid(path, "`highly_variable.n_top_genes` is 0, expected at least 1")),
            _ => Ok(()),
        }
    }

    /// As TOML text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe is TOML")
    }

    /// The gene sets whose share of counts is a figure of quality, by name.
    fn sets(&self) -> BTreeMap<String, Vec<String>> {
        self.quality.clone().unwrap_or_default().sets
    }

    fn digest(&self) -> Digest {
        Digest::of(self.to_toml().as_bytes())
    }
}

/// A recipe as it stands in a file of cells or in a reference, with the digest of the whole of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// Digest of the recipe as it was applied.
    pub digest: Digest,
    /// The recipe; in a reference, its table of genes holds only what leads to a gene of the panel.
    pub recipe: Recipe,
}

impl Stored {
    /// Of a recipe that is about to be applied.
    pub fn of(recipe: Recipe) -> Self {
        Self { digest: recipe.digest(), recipe }
    }

    /// What a file of cells says about its preparation.
    ///
    /// # Errors  [`Error::Recipe`] for a statement that is none
    pub fn in_uns(uns: &Element, path: &Path) -> Result<Self> {
        let text = |name: &str| match uns {
            Element::Dict(dict) => match dict.get(name) {
                Some(Element::Array(array)) => array.as_text(),
                _ => None,
            },
            _ => None,
        };
        let (Some(digest), Some(recipe)) = (text("digest"), text("recipe")) else {
            return Err(invalid(path, &format!("`uns['{UNS_KEY}']` lacks `digest` and `recipe`")));
        };
        let recipe = toml::from_str(recipe).map_err(|error| invalid(path, error.to_string().trim_end()))?;
        let digest = digest.parse().map_err(|_| invalid(path, "its digest is malformed"))?;
        Ok(Self { digest, recipe })
    }

    /// Writes it into a file of cells.
    pub fn mark(&self, adata: &mut AnnData) {
        let text = |text: String| Element::Array(Array::text(text));
        let digest = ("digest".to_owned(), text(self.digest.to_string()));
        let recipe = ("recipe".to_owned(), text(self.recipe.to_toml()));
        adata.uns.insert(UNS_KEY.to_owned(), Element::Dict(Dict::from([digest, recipe])));
    }

    /// For a reference's card.
    pub fn for_panel(mut self, panel: &[String]) -> serde_json::Value {
        if let Some(genes) = &mut self.recipe.genes {
            genes.keep_targets(panel);
        }
        serde_json::to_value(self).expect("a recipe is JSON")
    }

    /// From a reference's card.
    ///
    /// # Errors  [`Error::CardRecipe`] for a recipe of another build
    pub fn in_card(card: &archipelago_common::BaseCard) -> Result<Option<Self>> {
        let Some(value) = card.recipe.clone() else { return Ok(None) };
        serde_json::from_value(value).map(Some).map_err(|error| Error::CardRecipe { detail: error.to_string() })
    }
}

fn invalid(path: &Path, detail: &str) -> Error {
    Error::Recipe { path: path.into(), detail: detail.to_owned() }
}

/// Where a file of cells says how it was prepared.
pub const UNS_KEY: &str = "archipelago_recipe";
/// A recipe with a table of every gene of a genome in it is a few megabytes.
const RECIPE_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
        [quality]
        sets = { mt = ["MT-"] }
        [filter_cells]
        min_genes = 200
        max_percent = { mt = 20.0 }
        [normalize]
        target_sum = 1e4
        [highly_variable]
        flavor = "cell_ranger"
        n_top_genes = 2000
        batch_key = "batch"
    "#;

    fn check(text: &str) -> Result<Recipe> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        Recipe::read(&path)
    }

    #[test]
    fn a_recipe_survives_its_own_text() {
        let recipe = check(EXAMPLE).unwrap();
        assert_eq!(recipe.normalize, Some(Normalize { target_sum: Some(1e4), log1p: true }));
        assert_eq!(toml::from_str::<Recipe>(&recipe.to_toml()).unwrap(), recipe);
        let stored = Stored::of(recipe);
        assert_eq!(serde_json::from_value::<Stored>(stored.clone().for_panel(&[])).unwrap(), stored);
    }

    #[test]
    fn a_file_of_cells_keeps_its_recipe() {
        let stored = Stored::of(check(EXAMPLE).unwrap());
        let mut adata = AnnData::default();
        stored.mark(&mut adata);
        assert_eq!(Stored::in_uns(&adata.uns[UNS_KEY], Path::new("x.h5ad")).unwrap(), stored);
    }

    #[test]
    fn steps_that_do_not_fit_are_named() {
        let refused = |text: &str| check(text).unwrap_err().to_string();
        assert!(refused("[highly_variable]\nn_top_genes = 5").contains("needs `[normalize]`"));
        assert!(refused("[highly_variable]\nflavor = \"seurat_v3\"").contains("needs `n_top_genes`"));
        assert!(refused("[filter_cells]\nmax_percent = { ribo = 5.0 }").contains("the set `ribo`"));
        assert!(refused("[filter_cell]\nmin_genes = 3").contains("unknown field `filter_cell`"));
    }

    #[test]
    fn a_table_is_read_beside_the_recipe() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ids.tsv"), "gene_id\tgene_name\nE1\tLYZ\nE2\tCD3D\n").unwrap();
        std::fs::write(dir.path().join("recipe.toml"), "[genes]\ntable = \"ids.tsv\"\n").unwrap();
        let recipe = Recipe::read(&dir.path().join("recipe.toml")).unwrap();
        assert_eq!(toml::from_str::<Recipe>(&recipe.to_toml()).unwrap(), recipe);
        let stored = Stored::of(recipe.clone());
        let card: Stored = serde_json::from_value(stored.clone().for_panel(&["LYZ".to_owned()])).unwrap();
        assert_eq!(card.digest, stored.digest);
        assert_ne!(card.recipe, recipe, "only what leads to the panel is kept");
    }
}
