//! Flags for gene sets: where they are, and which of them are taken.

use std::path::PathBuf;

use archipelago_analysis::preprocess::SetOptions;
use archipelago_models::data::{GENE_SETS, NEW_GENE_SETS};
use clap::Args;

use crate::{data::DataSpec, fields::Source, lists};

/// The gene sets of a model that takes some. Genes in none of them are left out.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Gene sets")]
pub(super) struct GeneSetArgs {
    /// GMT files of the gene sets, separated by commas; `--field gene_sets=varm/I@uns/terms` takes a mask instead.
    #[arg(long, value_name = "FILES")]
    gene_sets: Vec<String>,
    /// GMT files of sets for new terms beside those, separated by commas.
    #[arg(long, value_name = "FILES")]
    new_gene_sets: Vec<String>,
    /// Take a set if more of its genes than this are among the cells' genes.
    #[arg(long, value_name = "GENES", default_value_t = 0)]
    set_min_genes: usize,
    /// Take a set if fewer of its genes than this are among the cells' genes.
    #[arg(long, value_name = "GENES")]
    set_max_genes: Option<usize>,
    /// Keep the names of sets as they are: with the collection's prefix, and whole.
    #[arg(long)]
    set_full_names: bool,
    /// Tell genes of the sets apart by capitals, as `Cd4` of mice from `CD4` of people; else they are compared in capitals.
    #[arg(long)]
    set_match_case: bool,
}

impl GeneSetArgs {
    /// Adds what is meant to a spec.
    pub(super) fn add_to(&self, spec: &mut DataSpec) {
        for (field, files) in [(GENE_SETS, &self.gene_sets), (NEW_GENE_SETS, &self.new_gene_sets)] {
            let files: Vec<Source> =
                lists::split(files).into_iter().map(|file| Source::File(PathBuf::from(file))).collect();
            if !files.is_empty() {
                spec.fields.set_all(field, files);
            }
        }
        let (min_genes, max_genes) = (self.set_min_genes, self.set_max_genes);
        spec.sets = SetOptions { min_genes, max_genes, clean: !self.set_full_names, upper: !self.set_match_case };
    }
}
