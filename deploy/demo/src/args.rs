//! What the demonstration can be told.

use std::path::PathBuf;

use clap::Parser;

/// Runs the main job of a consortium on this machine, as real processes: three coordinators, one site per query batch.
///
/// Without --data it generates synthetic counts of several sites. The results are in OUT: summary.json, pictures and
/// index.html.
#[derive(Parser, Clone, Debug)]
#[command(version, after_help = EXAMPLES)]
pub struct Args {
    /// Folder for everything the demonstration makes; an earlier run there is replaced.
    #[arg(long, default_value = "demo-out")]
    pub out: PathBuf,
    /// An h5ad file with raw counts in X (or --layer).
    #[arg(long, requires_all = ["batch_key", "labels_key", "query"])]
    pub data: Option<PathBuf>,
    /// Layer of the file that holds raw counts.
    #[arg(long, requires = "data")]
    pub layer: Option<String>,
    /// Column of obs that names the batch.
    #[arg(long)]
    pub batch_key: Option<String>,
    /// Column of obs that names the cell type; used to judge the mapping, never sent.
    #[arg(long)]
    pub labels_key: Option<String>,
    /// GMT file of gene sets, for a model that takes some; made with the cells where these are generated.
    #[arg(long)]
    pub gene_sets: Option<PathBuf>,
    /// Where a field of the model is, as `NAME=PLACE`; several times for several.
    #[arg(long = "field", value_name = "NAME=PLACE", requires = "data")]
    pub fields: Vec<String>,
    /// Batches that become sites of their own; the others make the reference.
    #[arg(long, value_delimiter = ',')]
    pub query: Vec<String>,
    /// Number of sites of the generated data.
    #[arg(long, default_value_t = 3, conflicts_with = "data", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub sites: u16,
    /// Cells of each generated batch.
    #[arg(long, default_value_t = 600, conflicts_with = "data")]
    pub cells: u32,
    /// Genes of the generated data.
    #[arg(long, default_value_t = 1000, conflicts_with = "data")]
    pub genes: u32,
    /// The model of the zoo that is trained and mapped onto; `treearches`: sites learn a tree of cell types over scVI;
    /// `sagenet`: sites learn networks of their own sections; a model of several modalities takes real cells where `shared/data` has them.
    #[arg(long, default_value = "scvi")]
    pub model: String,
    /// Epochs of reference training.
    #[arg(long, default_value_t = 100)]
    pub reference_epochs: u32,
    /// Epochs of surgery at each site.
    #[arg(long, default_value_t = 50)]
    pub surgery_epochs: u32,
    /// Seed of everything that draws random numbers.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

const EXAMPLES: &str = "Examples:
  archipelago-demo
  archipelago-demo --model trvae
  archipelago-demo --model treearches
  archipelago-demo --model sagenet
  archipelago-demo --model mvtcr
  archipelago-demo --model multigrate
  archipelago-demo --data pbmc.h5ad --batch-key batch --labels-key cell_type --query 10x_5p,10x_pbmc3k";
