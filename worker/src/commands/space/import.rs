//! `space import`: networks that scArches saved.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    path::{Path, PathBuf},
};

use archipelago_anndata::{AnnData, H5adFile};
use archipelago_common::{
    condition::ConditionKey,
    fs,
    id::{Name, SiteId, VersionId},
    reference_dir::ReferenceDir,
};
use archipelago_models::{
    Error as ModelError,
    zoo::space::{
        SagenetConfig, SectionNetworks,
        ensemble::of_networks,
        member::Trained,
        upstream::{DICT, PICKLE, SavedNetwork},
    },
};
use clap::Args;
use serde::Serialize;

use crate::{
    cells::embedding,
    error::{Error, Result},
    existing,
    output::Output,
    results,
};

/// Import networks that scArches saved, as an ensemble.
///
/// Reads a folder of `save_as_folder`: for each network a pickle, in which nothing is executed, and an h5ad file with its graph of genes;
/// or the files of `space export`. A file's name is that of the section and that of the partition. Neither file names genes or says by
/// what penalty and how well the networks were trained: the genes are those of `--cells`, in their order.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker space import saved --cells section.h5ad --out ensemble\n  \
    archipelago-worker space import saved --cells section.h5ad --partition-keys region,leiden_0.1 --out ensemble")]
pub(super) struct ImportArgs {
    /// The folder that scArches saved.
    folder: PathBuf,
    /// The h5ad file of cells that the networks were trained on.
    #[arg(long, value_name = "FILE")]
    cells: PathBuf,
    /// The directory to write the ensemble to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The obs column that will name the section of further cells.
    #[arg(long, default_value = "batch")]
    batch_key: String,
    /// Partitions, in which the names of files end, separated by commas [default: what begins with the last `leiden`]
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    partition_keys: Vec<String>,
    /// First part of the sections' keys: the operator who will publish the ensemble.
    #[arg(long, default_value = "reference")]
    owner: SiteId,
    /// Second part of the sections' keys: the name of the data set.
    #[arg(long, default_value = "atlas")]
    dataset: Name,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    n_genes: usize,
    sections: BTreeMap<ConditionKey, Section>,
}

/// A section that was read.
#[derive(Serialize)]
struct Section {
    /// Pairs of genes that go together.
    n_edges: usize,
    /// Parts that the network of each partition tells apart.
    networks: BTreeMap<String, usize>,
}

/// Runs the command.
///
/// # Errors  [`Error::Models`] saying what is missing, wrong or refused, and in which file; [`Error::Cells`]
pub(super) fn run(args: &ImportArgs, output: &Output) -> Result<()> {
    let cells = H5adFile::open(&args.cells).map_err(|source| Error::Cells { path: args.cells.clone(), source })?;
    let genes = cells.var().index().to_vec();
    let (config, sections) = args.read(genes.len())?;
    let ensemble = of_networks(&config, &genes, &args.batch_key, &sections)?;
    fs::create_dir(&args.out)?;
    existing::begin(&args.out)?;
    let dir = ReferenceDir::write_with_parts(&args.out, &ensemble.base, &ensemble.columns, &ensemble.parts)?;
    let sections = sections.into_iter().map(|(key, section)| Ok((key, Section::of(&section)?)));
    let summary = Summary {
        out: args.out.clone(),
        version: dir.version().id(),
        n_genes: genes.len(),
        sections: sections.collect::<Result<_>>()?,
    };
    results::write_json(&args.out.join(existing::SUMMARY), &summary)?;
    output.show(&summary);
    Ok(())
}

impl ImportArgs {
    /// The networks of each section, and their one kind.
    fn read(&self, n_genes: usize) -> Result<(SagenetConfig, BTreeMap<ConditionKey, SectionNetworks>)> {
        let mut first: Option<(PathBuf, SagenetConfig)> = None;
        let mut sections: BTreeMap<ConditionKey, SectionNetworks> = BTreeMap::new();
        for path in self.files()? {
            let (tag, partition) = self.names(&path)?;
            let saved = SavedNetwork::read(&path)?;
            if saved.n_genes != n_genes {
                let (found, cells) = (saved.n_genes, self.cells.display());
                return Err(refuse(&path, format!("it takes {found} genes, and `{cells}` has {n_genes}")));
            }
            match &first {
                Some((other, config)) if *config != saved.config => {
                    let other = other.display();
                    let detail =
                        format!("its layers differ from those of `{other}`; networks of an ensemble are of one kind");
                    return Err(refuse(&path, detail));
                }
                Some(_) => {}
                None => first = Some((path.clone(), saved.config.clone())),
            }
            let pairs = pairs(&path.with_extension("h5ad"), n_genes)?;
            saved.network(&pairs).map_err(|error| refuse(&path, error.to_string()))?;
            let trained = Trained { tensors: saved.tensors, loss: f64::NAN, accuracy: f64::NAN };
            let key = ConditionKey::new(self.owner.clone(), self.dataset.clone(), tag)?;
            let networks = [(partition, trained)].into();
            match sections.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(SectionNetworks { alpha: f64::NAN, pairs, networks, importance: None });
                }
                Entry::Occupied(entry) if entry.get().pairs != pairs => {
                    let detail = "its genes are joined otherwise than those of the section's other networks".to_owned();
                    return Err(refuse(&path.with_extension("h5ad"), detail));
                }
                Entry::Occupied(mut entry) => entry.get_mut().networks.extend(networks),
            }
        }
        match first {
            Some((_, config)) => Ok((config, sections)),
            None => {
                Err(refuse(&self.folder, format!("it holds no network: no file that ends in `.{PICKLE}` or `.{DICT}`")))
            }
        }
    }

    /// Files of networks, by name.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let failed = |source| Error::File { action: "read", path: self.folder.clone(), source };
        let entries = std::fs::read_dir(&self.folder).map_err(failed)?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
        files.retain(|path| path.extension().is_some_and(|extension| extension == PICKLE || extension == DICT));
        files.sort();
        Ok(files)
    }

    /// The section and the partition of a file.
    fn names(&self, path: &Path) -> Result<(String, String)> {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let split = match self.partition_keys.is_empty() {
            true => stem.rfind("_leiden").map(|at| (&stem[..at], &stem[at + 1..])),
            false => self.partition_keys.iter().filter_map(|key| of_key(stem, key)).max_by_key(|(_, key)| key.len()),
        };
        match split.filter(|(tag, _)| !tag.is_empty()) {
            Some((tag, partition)) => Ok((tag.to_owned(), partition.to_owned())),
            None => {
                let detail = "its name does not end in a partition; name the partitions with `--partition-keys`";
                Err(refuse(path, detail.to_owned()))
            }
        }
    }
}

/// What comes before the name of a partition, and that name.
fn of_key<'a>(stem: &'a str, key: &'a str) -> Option<(&'a str, &'a str)> {
    Some((stem.strip_suffix(key)?.strip_suffix('_')?, key))
}

/// The pairs of genes of an adjacency matrix.
fn pairs(path: &Path, n_genes: usize) -> Result<Vec<(u32, u32)>> {
    let failed = |source| Error::Cells { path: path.into(), source };
    let file = AnnData::read(path).map_err(failed)?;
    let adjacency = embedding(&file, "X").map_err(|error| crate::commands::file::within(path, error))?;
    if adjacency.dim() != (n_genes, n_genes) {
        let (rows, columns) = adjacency.dim();
        return Err(refuse(path, format!("its X is {rows} × {columns}, expected {n_genes} genes × {n_genes} genes")));
    }
    if let Some(((a, b), _)) = adjacency.indexed_iter().find(|((a, b), joined)| **joined != adjacency[[*b, *a]]) {
        return Err(refuse(path, format!("gene {a} is joined to {b} and {b} not to {a}, expected both or neither")));
    }
    let joined = adjacency.indexed_iter().filter(|((a, b), joined)| a < b && **joined != 0.0);
    Ok(joined.map(|((a, b), _)| (a as u32, b as u32)).collect())
}

fn refuse(file: &Path, detail: String) -> Error {
    ModelError::Import { file: file.to_owned(), detail }.into()
}

impl Section {
    fn of(section: &SectionNetworks) -> Result<Self> {
        let network = |(partition, trained): (&String, &Trained)| Ok((partition.clone(), trained.n_classes()?));
        let networks = section.networks.iter().map(network).collect::<Result<_>>()?;
        Ok(Self { n_edges: section.pairs.len(), networks })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "ensemble    {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        write!(f, "genes       {}", self.n_genes)?;
        for (key, Section { n_edges, networks }) in &self.sections {
            write!(f, "\n\n{key}: {n_edges} pairs of genes")?;
            networks.iter().try_for_each(|(partition, n_parts)| write!(f, "\n  {partition:<16} {n_parts:>3} parts"))?;
        }
        Ok(())
    }
}
