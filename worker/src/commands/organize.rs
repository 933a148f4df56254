//! `organize`: modalities × data sets as one file.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use archipelago_anndata::{
    AnnData, Csr, DataFrame, H5adFile,
    organize::{Features, Modality, Organized},
};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::file;
use crate::{
    data::{COMPRESSION, RNA_MODALITY},
    error::{Error, Result},
    fields::{Source, names_in_uns},
    lists,
    output::Output,
};

/// Lay modalities of several data sets together: every cell with every modality, and zeros where its data set lacks one.
///
/// Each argument is a modality: its name and its file in each data set, `none` where a data set lacks it. A file stands for its X,
/// or for a place in it: `FILE@layers/counts`, `FILE@obsm/protein_expression`, `FILE@obsm/ADT@uns/names`, `FILE@mod/prot`. A single
/// h5mu file, whose modalities may have different cells, is laid together as it is.
///
/// Written as h5mu, each modality has all cells, and obs says what is known of them and from which data set they are (`group`).
/// Written as h5ad, the modalities stand beside each other in X, with their widths in uns `modality_lengths`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker organize rna=lab1.h5ad,lab2.h5ad adt=lab1.h5ad@obsm/protein_expression,none --out all.h5mu\n  \
    archipelago-worker organize multiome.h5mu --modalities-key Modality --out all.h5mu")]
pub struct OrganizeArgs {
    /// Modalities as `NAME=FILE,FILE,…`, or one h5mu file.
    #[arg(required = true, value_name = "MODALITY")]
    modalities: Vec<Given>,
    /// The file to write: h5mu, or h5ad.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which features a modality has.
    #[arg(long, value_enum, default_value_t = FeaturesArg::Same)]
    features: FeaturesArg,
    /// Write an obs column of this name that says which modalities a cell has, such as `rna-adt`.
    #[arg(long, value_name = "COLUMN")]
    modalities_key: Option<String>,
    /// Write an obs column of this name that says which data set a cell is from.
    #[arg(long, value_name = "COLUMN", requires = "keys")]
    label: Option<String>,
    /// Names of the data sets in that column, separated by commas, or one flag each.
    #[arg(long)]
    keys: Vec<String>,
    /// Append `-` and the data set's key to the name of each cell.
    #[arg(long, requires = "keys")]
    index_unique: bool,
}

/// Which features are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum FeaturesArg {
    /// Those of all data sets that have the modality, which must be the same in the same order.
    Same,
    /// Those that all of them have.
    Shared,
}

/// An argument.
#[derive(Clone, Debug)]
enum Given {
    /// A modality, in each data set.
    Modality { name: String, of_datasets: Vec<Option<Part>> },
    /// A file of modalities.
    File(PathBuf),
}

/// A place in a file.
#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    place: Source,
}

impl FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, files)) = text.split_once('=') else { return Ok(Self::File(text.into())) };
        if name.is_empty() || name.contains('/') {
            return Err(format!("`{name}` is no name of a modality"));
        }
        let part = |text: String| match text.as_str() {
            "none" => Ok(None),
            text => text.parse().map(Some),
        };
        let of_datasets = lists::split(&[files.to_owned()]).into_iter().map(part).collect::<Result<_, String>>()?;
        Ok(Self::Modality { name: name.to_owned(), of_datasets })
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.match_indices('@').find_map(|(at, _)| {
            let place = text[at + 1..].parse::<Source>().ok()?;
            Some((&text[..at], place))
        });
        let (path, place) = split.unwrap_or((text, Source::layer(None)));
        match (path, &place) {
            ("", _) => Err(format!("`{text}` names no file")),
            (path, Source::Matrix { .. } | Source::Obsm { .. }) => Ok(Self { path: path.into(), place }),
            (_, other) => {
                Err(format!("`{other}` is no matrix, expected `X`, `layers/LAYER`, `obsm/KEY` or `mod/MODALITY`"))
            }
        }
    }
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    n_cells: usize,
    modalities: Vec<Line>,
}

/// A modality of the result.
#[derive(Serialize)]
struct Line {
    name: String,
    n_features: usize,
    /// Cells that have it.
    n_cells: usize,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::Setting`] for what does not make a table
pub fn run(args: &OrganizeArgs, output: &Output) -> Result<()> {
    let mut table = args.table(output)?;
    let keys = lists::split(&args.keys);
    let n_datasets = table[0].of_datasets.len();
    if !args.keys.is_empty() && keys.len() != n_datasets {
        let (found, expected) = (format!("{} names", keys.len()), "one name per data set");
        return Err(Error::Setting { what: "--keys", found, expected });
    }
    if args.index_unique {
        for modality in &mut table {
            for (part, key) in modality.of_datasets.iter_mut().zip(&keys) {
                let Some(part) = part else { continue };
                part.obs.rename_rows(part.obs_names().iter().map(|cell| format!("{cell}-{key}")).collect())?;
            }
        }
    }
    let features = match args.features {
        FeaturesArg::Same => Features::Same,
        FeaturesArg::Shared => Features::Shared,
    };
    let mut all = Organized::new(&table, features)?;
    if let Some(column) = &args.modalities_key {
        all.insert(column, &all.present())?;
    }
    if let Some(column) = &args.label {
        all.insert(column, &keys)?;
    }
    let summary = Summary::of(&all, &args.out);
    if args.out.extension().is_some_and(|extension| extension == "h5mu") {
        let _work = output.waiting(format!("writing {}", args.out.display()));
        let failed = |source| Error::Cells { path: args.out.clone(), source };
        all.into_mudata().write(&args.out, COMPRESSION).map_err(failed)?;
    } else {
        file::write(&args.out, &all.into_anndata()?, output)?;
    }
    output.show(&summary);
    Ok(())
}

impl OrganizeArgs {
    fn table(&self, output: &Output) -> Result<Vec<Modality>> {
        if let [Given::File(path)] = self.modalities.as_slice() {
            let _work = output.waiting(format!("reading {}", path.display()));
            let failed = |source| Error::Cells { path: path.clone(), source };
            if H5adFile::open(path).map_err(failed)?.modalities().is_empty() {
                return Err(self.no_table(path.display().to_string()));
            }
            return Modality::all_of(path, RNA_MODALITY).map_err(failed);
        }
        let modality = |given: &Given| match given {
            Given::File(path) => Err(self.no_table(path.display().to_string())),
            Given::Modality { name, of_datasets } => {
                let read = |part: &Option<Part>| part.as_ref().map(|part| part.read(output)).transpose();
                Ok(Modality { name: name.clone(), of_datasets: of_datasets.iter().map(read).collect::<Result<_>>()? })
            }
        };
        self.modalities.iter().map(modality).collect()
    }

    fn no_table(&self, found: String) -> Error {
        Error::Setting { what: "a modality", found, expected: "`NAME=FILE,FILE,…`, or a single h5mu file" }
    }
}

impl Part {
    fn read(&self, output: &Output) -> Result<AnnData> {
        let _work = output.waiting(format!("reading {}", self.path.display()));
        let read = || match &self.place {
            Source::Matrix { modality, layer } => {
                let file = match modality {
                    Some(name) => H5adFile::open_modality(&self.path, name)?,
                    None => H5adFile::open(&self.path)?,
                };
                let layer = layer.as_deref();
                AnnData::new(file.rows(layer)?.read_all()?, file.obs().clone(), file.genes(layer)?.clone())
            }
            Source::Obsm { key, names } => {
                let file = H5adFile::open(&self.path)?;
                let table = file.obsm(key)?.to_table(&format!("obsm/{key}"))?;
                let named = match (names, table.columns) {
                    (Some(key), _) => Some(names_in_uns(&file, key)?),
                    (None, columns) => columns,
                };
                // Without names, features are called by their places.
                let named = named.unwrap_or_else(|| (0..table.n_cols).map(|at| at.to_string()).collect());
                let x = Csr::from_dense(table.n_rows, table.n_cols, &table.values)?;
                AnnData::new(x, file.obs().clone(), DataFrame::new(named))
            }
            _ => unreachable!("other places are refused when they are read"),
        };
        read().map_err(|source| Error::Cells { path: self.path.clone(), source })
    }
}

impl Summary {
    fn of(all: &Organized, out: &Path) -> Self {
        let modalities = all.modalities.iter().map(|block| {
            let has = block.present.iter().zip(&all.n_cells).filter(|(present, _)| **present);
            Line { name: block.name.clone(), n_features: block.var.n_rows(), n_cells: has.map(|(_, n)| n).sum() }
        });
        Self { out: out.into(), n_cells: all.obs.n_rows(), modalities: modalities.collect() }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        write!(f, "data        {} cells", self.n_cells)?;
        for Line { name, n_features, n_cells } in &self.modalities {
            write!(f, "\n{name:<11} {n_features} features of {n_cells} cells")?;
        }
        Ok(())
    }
}
