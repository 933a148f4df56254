//! Reference mapping with scVI and scANVI over several seeds, on one machine, by the worker's own commands: the recipe of the
//! peers' figures, judged by our own tools, and set beside theirs where they are at hand.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use archipelago_analysis::metrics::MappingQuality;
use archipelago_anndata::AnnData;
use archipelago_common::Digest;
use archipelago_processes::process;
use clap::{Parser, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cells::{Embedding, column, distinct},
    comparison::{Comparison, Figures, paired::Paired},
    quality,
    quality_scpoli::Variant,
};

/// Trains references and maps queries with scVI and scANVI, seed by seed, and judges the result.
///
/// For each seed: scVI on the reference batches, surgery of the query batches; scANVI from that scVI, surgery with the query's
/// labels hidden; labels predicted. Writes OUT/summary.json (every figure of every seed) and OUT/table.md, which is printed too.
#[derive(Parser, Clone, Debug)]
#[command(version, after_help = EXAMPLE)]
pub struct QualityArgs {
    /// Folder for everything that is made.
    #[arg(long, default_value = "quality-out")]
    pub out: PathBuf,
    /// An h5ad file with raw counts in X (or --layer).
    #[arg(long)]
    pub data: PathBuf,
    /// Layer of the file that holds raw counts.
    #[arg(long)]
    pub layer: Option<String>,
    /// Column of obs that names the batch.
    #[arg(long, default_value = "batch")]
    pub batch_key: String,
    /// Column of obs that names the cell type; empty for cells without one, of which only mixing is judged.
    #[arg(long, default_value = "cell_type")]
    pub labels_key: String,
    /// Batches of the reference [default: those whose cells are `reference` in obs column `split`]
    #[arg(long, value_delimiter = ',', requires = "query")]
    pub reference: Vec<String>,
    /// Batches that are mapped [default: those whose cells are `query` in obs column `split`]
    #[arg(long, value_delimiter = ',', requires = "reference")]
    pub query: Vec<String>,
    /// Which models, by which recipe.
    #[arg(long, value_enum, default_value_t = Models::Scvi)]
    pub model: Models,
    /// Seeds, one run each.
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    pub seeds: Vec<u64>,
    /// Epochs of the reference [default: scVI and scGen 100; trVAE 70; scPoli 150]
    #[arg(long)]
    pub reference_epochs: Option<u32>,
    /// Epochs of scANVI, from that scVI.
    #[arg(long, default_value_t = 20)]
    pub scanvi_epochs: u32,
    /// Epochs of surgery [default: scVI and scANVI 50; trVAE 175; scPoli 150]
    #[arg(long)]
    pub surgery_epochs: Option<u32>,
    /// Rules of surgery: exact or upstream.
    #[arg(long, default_value = "exact", value_parser = ["exact", "upstream"])]
    pub surgery: String,
    /// GMT file of gene sets, for a model that takes some.
    #[arg(long)]
    pub gene_sets: Option<PathBuf>,
    /// A second file, of dissociated cells to map onto sections [default: those whose cells are `query` in obs column `split`]
    #[arg(long)]
    pub query_data: Option<PathBuf>,
    /// Columns of obs with the parts of sections [default: communities of cells that lie together]
    #[arg(long, value_delimiter = ',')]
    pub partition_keys: Vec<String>,
    /// Column of obs with coarser types, for trees whose first data set knows only these.
    #[arg(long)]
    pub coarse_key: Option<String>,
    /// Which types scPoli is told.
    #[arg(long, value_enum, default_value_t)]
    pub variant: Variant,
    /// The type that the reference is to lack, for `--variant unseen`.
    #[arg(long, value_name = "TYPE", required_if_eq("variant", "unseen"))]
    pub unseen: Option<String>,
    /// Leave no type out of the tree in turn: it takes a tree for each.
    #[arg(long)]
    pub no_left_out: bool,
    /// References of scvi-tools and its surgery of the query: the folder that `surgery_quality.py` wrote. Exact surgery of scVI is set beside it on the
    /// same references, seed by seed.
    #[arg(long, conflicts_with = "peer")]
    pub upstream: Option<PathBuf>,
    /// With `--upstream`: whose scale and shift the decoder's batch norm is to have, see `archipelago-worker import`.
    #[arg(long, requires = "upstream")]
    pub batch_norm_affine: Option<String>,
    /// With `--upstream`: further words for `archipelago-worker map`.
    #[arg(long, requires = "upstream", value_delimiter = ' ', allow_hyphen_values = true)]
    pub map_with: Vec<String>,
    /// Figures of a peer to set beside ours: what `peer_quality.py` wrote.
    #[arg(long)]
    pub peer: Option<PathBuf>,
}

/// Models that are judged, each by the recipe of its peers' figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Models {
    /// scVI, and scANVI from it.
    Scvi,
    /// trVAE, by its tutorial: the KL term rises over 200 epochs. It ends after as many as upstream's runs on blood did.
    Trvae,
    /// scPoli, by its tutorial: four fifths of the epochs without prototypes, and as many steps as there. That is 150 epochs on blood, 400 on the
    /// smaller pancreas.
    Scpoli,
    /// scGen: batches removed, and a query with cell types laid onto the reference.
    Scgen,
    /// scGen: the answer to a perturbation, from control cells (`--reference`) to stimulated ones (`--query`), predicted for each
    /// cell type by a model that has not seen its stimulated cells.
    Perturbation,
    /// expiMap, by its tutorial: a reference of control cells (`--reference`), stimulated ones (`--query`) as a new condition, and which
    /// terms tell them apart (`--gene-sets` of Reactome).
    Expimap,
    /// treeArches on scVI, by its tutorial: a tree of the reference's data sets, the query placed in it and joined to it. Without obs
    /// column `split` and batches named, data sets are three random parts of the cells.
    Treearches,
    /// SageNet, by its tutorial: a fifth of each section's cells is kept out and mapped, then the query by all sections. Sections are named by
    /// obs column `section`, places are in obsm `spatial`.
    Sagenet,
    /// mvTCR, by its tutorial: a mixture of experts of expression and both chains; donors (`--reference`) and those held out (`--query`).
    Mvtcr,
    /// Multigrate, by its tutorial: paired cells and cells of one modality, mapped in one latent space, and what they lack imputed. The samples are
    /// random parts of the cells; a tenth of those trained on validates, and training stops by it.
    Multigrate,
}

impl Models {
    /// What the peer's files call it.
    fn of_peer(self) -> &'static str {
        match self {
            Self::Scvi => "scvi",
            Self::Trvae => "trvae",
            Self::Scpoli => "scpoli",
            Self::Scgen | Self::Perturbation => "scgen",
            Self::Expimap => "expimap",
            Self::Treearches => "treearches",
            Self::Sagenet => "sagenet",
            Self::Mvtcr => "mvtcr",
            Self::Multigrate => "multigrate",
        }
    }
}

const EXAMPLE: &str = "Example:
  archipelago-quality --data cells.h5ad --reference a,b --query c,d --seeds 0,1,2 --peer figures.json";

/// Everything that is measured.
#[derive(Serialize, Debug)]
struct Summary<'a> {
    data: String,
    reference: &'a [String],
    query: &'a [String],
    seeds: &'a [u64],
    epochs: [u32; 3],
    surgery: &'a str,
    /// Figures by model, one per seed.
    runs: BTreeMap<&'static str, Vec<Figures>>,
    comparisons: Vec<Comparison>,
}

/// Runs every seed.
pub fn run(args: &QualityArgs) -> Result<()> {
    let args = &args.clone().with_batches()?;
    let worker = process::program("archipelago-worker")?;
    if let Some(upstream) = &args.upstream {
        return run_paired(args, &worker, upstream);
    }
    let mut runs: BTreeMap<&'static str, Vec<Figures>> = BTreeMap::new();
    for &seed in &args.seeds {
        let seed_run = SeedRun::new(args, &worker, seed)?;
        match args.model {
            Models::Scvi => {
                runs.entry("scvi").or_default().push(seed_run.scvi()?);
                runs.entry("scanvi").or_default().push(seed_run.scanvi()?);
            }
            Models::Trvae => runs.entry("trvae").or_default().push(seed_run.trvae()?),
            Models::Scgen => runs.entry("scgen").or_default().push(seed_run.scgen()?),
            Models::Perturbation => runs.entry("scgen").or_default().push(seed_run.perturbation()?),
            Models::Expimap => runs.entry("expimap").or_default().push(seed_run.expimap()?),
            Models::Scpoli => runs.entry(args.variant.of_model()).or_default().push(seed_run.scpoli()?),
            Models::Treearches => runs.entry("treearches").or_default().push(seed_run.trees()?),
            Models::Sagenet => runs.entry("sagenet").or_default().push(seed_run.sections()?),
            Models::Mvtcr => runs.entry("mvtcr").or_default().push(seed_run.tcells()?),
            Models::Multigrate => runs.entry("multigrate").or_default().push(seed_run.multigrate()?),
        }
    }
    let data = args.data.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let peer = args.peer.as_deref().map(read_json).transpose()?.map(|peer| of_data(peer, args.model, &data));
    let comparisons: Vec<Comparison> =
        runs.iter().map(|(model, figures)| Comparison::new(model, figures, peer.as_ref())).collect();
    let table = comparisons.iter().map(Comparison::table).collect::<Vec<_>>().join("\n");
    let summary = Summary {
        data,
        reference: &args.reference,
        query: &args.query,
        seeds: &args.seeds,
        epochs: [args.reference_epochs(), args.scanvi_epochs, args.surgery_epochs()],
        surgery: &args.surgery,
        runs,
        comparisons,
    };
    write(&args.out.join("summary.json"), &(serde_json::to_string_pretty(&summary)? + "\n"))?;
    write(&args.out.join("table.md"), &table)?;
    crate::printer::print(&table);
    Ok(())
}

/// Runs every seed on the references of scvi-tools.
fn run_paired(args: &QualityArgs, worker: &Path, upstream: &Path) -> Result<()> {
    let of_seed = |&seed: &u64| SeedRun::new(args, worker, seed)?.paired(upstream);
    let mapped = args.seeds.iter().map(of_seed).collect::<Result<Vec<_>>>()?;
    let paired = Paired::new(&mapped);
    let summary =
        serde_json::json!({ "seeds": args.seeds, "map_with": args.map_with, "runs": mapped, "paired": paired });
    write(&args.out.join("summary.json"), &(serde_json::to_string_pretty(&summary)? + "\n"))?;
    write(&args.out.join("table.md"), &paired.table())?;
    crate::printer::print(&paired.table());
    Ok(())
}

impl QualityArgs {
    pub(crate) fn reference_epochs(&self) -> u32 {
        self.reference_epochs.unwrap_or(match self.model {
            // scGen's stop early.
            Models::Scvi | Models::Scgen | Models::Perturbation => 100,
            Models::Trvae => 70,
            Models::Treearches => 80,
            Models::Expimap => 400,
            Models::Scpoli => 150,
            Models::Sagenet => 15,
            // They stop early, as the peer's.
            Models::Mvtcr => 200,
            // They stop early.
            Models::Multigrate => 200,
        })
    }

    pub(crate) fn surgery_epochs(&self) -> u32 {
        self.surgery_epochs.unwrap_or(match self.model {
            Models::Scvi | Models::Treearches => 50,
            Models::Trvae => 175,
            Models::Expimap => 400,
            Models::Scgen | Models::Perturbation | Models::Sagenet => 0,
            Models::Scpoli => 150,
            Models::Mvtcr => 200,
            Models::Multigrate => 200,
        })
    }

    /// The same, with batches from the data where none were named.
    fn with_batches(mut self) -> Result<Self> {
        if self.model == Models::Multigrate {
            return Ok(self);
        }
        if self.reference.is_empty() && self.model != Models::Sagenet {
            let adata = AnnData::read(&self.data)?;
            if self.model == Models::Treearches && adata.obs.column("split").is_err() {
                return Ok(self);
            }
            let (batches, splits) = (column(&adata, &self.batch_key)?, column(&adata, "split")?);
            let of = |part: &str| {
                let chosen: Vec<String> =
                    batches.iter().zip(&splits).filter(|(_, split)| *split == part).map(|(b, _)| b.clone()).collect();
                distinct(&chosen)
            };
            (self.reference, self.query) = (of("reference"), of("query"));
            ensure!(
                !self.reference.is_empty() && !self.query.is_empty(),
                "obs column `split` of `{}` names no `reference` or no `query`; name batches with --reference and --query",
                self.data.display()
            );
        }
        Ok(self)
    }
}

/// One seed's models and figures.
pub(crate) struct SeedRun<'a> {
    pub(crate) args: &'a QualityArgs,
    worker: &'a Path,
    seed: u64,
    dir: PathBuf,
}

impl<'a> SeedRun<'a> {
    fn new(args: &'a QualityArgs, worker: &'a Path, seed: u64) -> Result<Self> {
        let dir = args.out.join(format!("seed-{seed}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("failed to make `{}`", dir.display()))?;
        Ok(Self { args, worker, seed, dir })
    }
}

impl SeedRun<'_> {
    fn scvi(&self) -> Result<Figures> {
        let trained = self.train("scvi", &[], self.args.reference_epochs())?;
        let mapped = self.map("scvi", &[], self.args.surgery_epochs())?;
        self.judge_with_fit("scvi", &trained, &mapped)
    }

    /// As many epochs as upstream's runs had, and no stopping of our own: its rule looks at a mean over batches of which the last may be
    /// one cell, so that noise decides when it stops. The last state is kept, as upstream keeps it whatever it is asked.
    fn trvae(&self) -> Result<Figures> {
        let rise = ["--n-epochs-kl-warmup", TRVAE_WARMUP];
        let fixed = ["--model", "trvae", "--early-stopping-patience", "0"];
        let trained = self.train("trvae", &[&fixed[..], &rise].concat(), self.args.reference_epochs())?;
        let mapped = self.map("trvae", &rise, self.args.surgery_epochs())?;
        self.judge_with_fit("trvae", &trained, &mapped)
    }

    /// The tutorial's, hard mask: what upstream's script calls `hard`. The last state is kept, as upstream keeps it.
    fn expimap(&self) -> Result<Figures> {
        let sets =
            self.args.gene_sets.as_ref().context("expiMap takes gene sets: --gene-sets FILE")?.display().to_string();
        let (rise, wide) =
            (["--n-epochs-kl-warmup", "100"], ["--hidden-layer-sizes", "256,256,256", "--weight-decay", "0"]);
        let taken = ["--model", "expimap", "--gene-sets", &sets, "--set-min-genes", "12", "--keep-last-state"];
        let weights = ["--alpha", "0.7", "--alpha-kl", "0.5", "--early-stopping-patience", "50"];
        let words = [&taken[..], &wide, &weights, &rise].concat();
        let trained = self.train("expimap", &words, self.args.reference_epochs())?;
        let mapped = self.map("expimap", &[&["--alpha-kl", "0.1"][..], &rise].concat(), self.args.surgery_epochs())?;
        let mut figures = self.judge_with_fit("expimap", &trained, &mapped)?;
        self.terms(&mut figures)?;
        Ok(figures)
    }

    /// How many terms are active, and where those of the interferon response stand among all by their Bayes factors.
    fn terms(&self, figures: &mut Figures) -> Result<()> {
        let (mapped, data) = (self.path("expimap-mapped"), self.args.data.display().to_string());
        let (terms, factors) = (self.path("terms.csv"), self.path("factors.csv"));
        let plain = |words: &[&str]| process::run(self.worker, &[words, &["--overwrite"]].concat());
        plain(&["results", "terms", &mapped, "--out", &terms])?;
        let seed = self.seed.to_string();
        let groups = ["--groups", &self.args.batch_key, "--comparison", &self.args.reference.join(",")];
        let of_cells = ["results", "enrich", &mapped, &data, "--batch-key", &self.args.batch_key, "--seed", &seed];
        plain(&[&of_cells[..], &groups, &["--out", &factors]].concat())?;
        let active = read_table(Path::new(&terms))?.iter().filter(|(_, active)| *active == 1.0).count();
        figures.insert("active_terms", active as f64);
        let mut ranked = read_table(Path::new(&factors))?;
        ranked.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
        let best = ranked.iter().position(|(term, _)| INTERFERON.contains(&term.as_str()));
        let best = best.context("no set of the interferon response is among the terms")? + 1;
        figures.insert("rank_of_interferon_sets", best as f64);
        figures.insert("largest_bayes_factor", ranked[0].1.abs());
        Ok(())
    }

    /// How well types that a mapped reference predicts are met.
    fn predicted(&self, name: &str, figures: &mut Figures) -> Result<()> {
        let out = format!("{name}-predicted.csv");
        let query = (self.args.data.as_path(), &*self.args.query);
        let predicted = self.known("predict", &format!("{name}-mapped"), query, &out)?;
        for (name, figure) in [
            ("predict_accuracy", "accuracy"),
            ("predict_macro_f1", "macro_f1"),
            ("predict_balanced_accuracy", "balanced_accuracy"),
        ] {
            figures.insert(name, number(&predicted["accuracy"], figure)?);
        }
        Ok(())
    }

    fn judge_with_fit(&self, name: &str, trained: &Value, mapped: &Value) -> Result<Figures> {
        self.judge_with_fit_of(&self.args.data, name, trained, mapped)
    }

    /// The same where the reference's cells are in a file of their own.
    pub(crate) fn judge_with_fit_of(&self, own: &Path, name: &str, trained: &Value, mapped: &Value) -> Result<Figures> {
        let mut figures = self.judge(own, name)?;
        figures.insert("elbo_reference", number(trained, "elbo")?);
        figures.insert("reconstruction_reference", number(trained, "reconstruction")?);
        figures.insert("elbo_query", over_cells(mapped, "elbo")?);
        figures.insert("reconstruction_query", over_cells(mapped, "reconstruction")?);
        Ok(figures)
    }

    fn scanvi(&self) -> Result<Figures> {
        let pretrained = self.path("scvi");
        let labelled = ["--model", "scanvi", "--labels-key", &self.args.labels_key, "--from-reference", &pretrained];
        let few = ["--n-samples-per-label", "100"];
        let trained = self.train("scanvi", &[&labelled[..], &few].concat(), self.args.scanvi_epochs)?;
        self.map("scanvi", &["--ignore-labels"], self.args.surgery_epochs())?;
        let mut figures = self.judge(&self.args.data, "scanvi")?;
        self.predicted("scanvi", &mut figures)?;
        figures.insert("predict_reference", number(&trained, "accuracy")?);
        Ok(figures)
    }

    fn train(&self, name: &str, more: &[&str], epochs: u32) -> Result<Value> {
        self.train_on(&self.args.data, name, more, epochs)
    }

    /// A reference of the cells of a file.
    pub(crate) fn train_on(&self, file: &Path, name: &str, more: &[&str], epochs: u32) -> Result<Value> {
        let (out, epochs) = (self.path(name), epochs.to_string());
        let data = file.display().to_string();
        let batches = self.args.reference.join(",");
        let mut words = vec!["train", &data, "--batches", &batches, "--epochs", &epochs, "--out", &out];
        words.extend(more);
        self.command(&words)
    }

    fn map(&self, name: &str, more: &[&str], epochs: u32) -> Result<Value> {
        let by = ["--surgery", &self.args.surgery];
        let still: &[&str] = if self.args.surgery == "upstream" { &["--weight-decay", "0"] } else { &[] };
        self.map_from(&self.args.data, name, &[&by[..], still, more].concat(), epochs)
    }

    /// The query's batches of a file, mapped.
    pub(crate) fn map_from(&self, file: &Path, name: &str, more: &[&str], epochs: u32) -> Result<Value> {
        let (reference, out) = (self.path(name), self.path(&format!("{name}-mapped")));
        let (data, batches, epochs) = (file.display().to_string(), self.args.query.join(","), epochs.to_string());
        let words = ["map", &reference, &data, "--batches", &batches, "--epochs", &epochs, "--out", &out];
        self.command(&[&words[..], more].concat())
    }

    /// A command on cells whose batches the reference knows.
    pub(crate) fn known(
        &self,
        verb: &str,
        reference: &str,
        (file, batches): (&Path, &[String]),
        out: &str,
    ) -> Result<Value> {
        let (reference, out) = (self.path(reference), self.path(out));
        let (data, batches) = (file.display().to_string(), batches.join(","));
        let mut words = vec![verb, &reference, &data, "--batches", &batches, "--out", &out];
        if verb == "predict" {
            words.extend(["--labels-key", &self.args.labels_key]);
        }
        self.unseeded(&words)
    }

    fn judge(&self, own: &Path, name: &str) -> Result<Figures> {
        let file = reference_file(name);
        self.known("latent", name, (own, &self.args.reference), &file)?;
        self.judge_files(&file, &mapped_file(name))
    }

    /// Judges the positions of the reference's cells and the query's, in two files.
    pub(crate) fn judge_files(&self, reference: &str, query: &str) -> Result<Figures> {
        let (reference, query) = self.embeddings(reference, query)?;
        self.judged(quality::judge(&reference, &query, 0)?)
    }

    /// Figures by name, without those that ask for cell types where there are none.
    pub(crate) fn judged(&self, judged: MappingQuality) -> Result<Figures> {
        let Value::Object(figures) = serde_json::to_value(judged)? else { anyhow::bail!("figures are an object") };
        let is_judged = |name: &str| !self.args.labels_key.is_empty() || WITHOUT_LABELS.contains(&name);
        let figures = figures.into_iter().filter(|(name, _)| is_judged(name));
        Ok(Figures::from_iter(figures.filter_map(|(name, value)| Some((name, value.as_f64()?)))))
    }

    /// The positions of both.
    pub(crate) fn embeddings(&self, reference: &str, query: &str) -> Result<(Embedding, Embedding)> {
        let read = |file: &str| {
            Embedding::read(&self.dir.join(file), "X_archipelago", &self.args.batch_key, &self.args.labels_key)
        };
        Ok((read(reference)?, read(query)?))
    }

    pub(crate) fn command(&self, words: &[&str]) -> Result<Value> {
        let seed = self.seed.to_string();
        self.unseeded(&[words, &["--seed", &seed]].concat())
    }

    fn unseeded(&self, words: &[&str]) -> Result<Value> {
        let mut words = words.to_vec();
        words.extend(["--batch-key", &self.args.batch_key, "--device", "cpu", "--format", "json", "--overwrite"]);
        if let Some(layer) = &self.args.layer {
            words.extend(["--layer", layer]);
        }
        Ok(serde_json::from_str(&process::run(self.worker, &words)?)?)
    }

    /// A command that names its own columns.
    pub(crate) fn seeded(&self, words: &[&str]) -> Result<Value> {
        let seed = self.seed.to_string();
        self.plain(&[words, &["--seed", &seed, "--device", "cpu"]].concat())
    }

    /// Cells in a random order, the same everywhere: by a hash of seed and cell.
    pub(crate) fn shuffled(&self, n_cells: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n_cells).collect();
        order.sort_by_key(|cell| Digest::of(format!("{}/{cell}", self.seed).as_bytes()).to_string());
        order
    }

    /// The seed.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// A command on a file of cells, which no model and no seed has a part in.
    pub(crate) fn plain(&self, words: &[&str]) -> Result<Value> {
        let words = [words, &["--format", "json", "--overwrite"]].concat();
        Ok(serde_json::from_str(&process::run(self.worker, &words)?)?)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// The file with the reference's cells where a model puts them.
pub(crate) fn reference_file(name: &str) -> String {
    format!("{name}-reference.h5ad")
}

/// The file with the query's cells where they are mapped to.
pub(crate) fn mapped_file(name: &str) -> String {
    format!("{name}-mapped/mapped.h5ad")
}

/// Names of the rows and the first column of a table without quotes.
fn read_table(path: &Path) -> Result<Vec<(String, f64)>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    let row = |line: &str| -> Result<(String, f64)> {
        let mut fields = line.split(',');
        let (name, number) = (fields.next().unwrap_or_default(), fields.next().context("a row has one column")?);
        Ok((name.to_owned(), number.parse()?))
    };
    text.lines().skip(1).map(row).collect()
}

/// The sets that expiMap's advanced tutorial takes for the interferon response.
const INTERFERON: [&str; 4] = [
    "INTERFERON_ALPHA_BETA_SIGNALIN",
    "INTERFERON_SIGNALING",
    "CYTOKINE_SIGNALING_IN_IMMUNE_S",
    "ANTIVIRAL_MECHANISM_BY_IFN_STI",
];
/// Figures that ask for no cell types.
const WITHOUT_LABELS: [&str; 2] = ["other_batch_share", "asw_batch"];
/// Epochs over which the KL term of trVAE rises.
const TRVAE_WARMUP: &str = "200";

/// A peer's figures on these data, where a file holds those of several models and data sets.
fn of_data(peer: Value, model: Models, data: &str) -> Value {
    let is_of = |set: &&Value| {
        set["model"] == model.of_peer() && set["input"][0] == data && set["settings"]["drop_type"].is_null()
    };
    let named = peer.get(format!("{}/{data}", model.of_peer()));
    let found = || peer.as_object()?.values().find(is_of);
    named.or_else(found).cloned().unwrap_or(peer)
}

pub(crate) fn number(value: &Value, name: &str) -> Result<f64> {
    value[name].as_f64().with_context(|| format!("the worker's answer has no number `{name}`"))
}

/// A figure of the conditions, as a mean over all cells.
pub(crate) fn over_cells(mapped: &Value, name: &str) -> Result<f64> {
    let conditions = mapped["conditions"].as_object().context("the worker's answer has no conditions")?;
    let (mut sum, mut n) = (0.0, 0.0);
    for condition in conditions.values() {
        let n_cells = number(condition, "n_cells")?;
        sum += number(condition, name)? * n_cells;
        n += n_cells;
    }
    Ok(sum / n)
}

pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("`{}` is not JSON", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("failed to write `{}`", path.display()))
}
