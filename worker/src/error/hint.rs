//! What a person can do about an error, and what the process ends with.

use std::path::Path;

use archipelago_anndata::H5adFile;
use archipelago_common::Error as CommonError;
use archipelago_models::data::Values;

use super::Error;
use crate::fields::flag_of;

impl Error {
    /// What the user can do about it, the best first: a command gives the first that it can follow itself.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Anndata(source) | Self::Cells { source, .. } => anndata_hints(source),
            Self::WrongValues { path, place, found, expected } if *expected == Values::Counts.expected() => {
                hints_of_counts(path, place, found)
            }
            other => other.hint().into_iter().collect(),
        }
    }

    /// What the user can do about it, where there is something.
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Exists { .. } => "add `--overwrite` to replace it, or write to another path".into(),
            Self::Models(archipelago_models::Error::KnownCondition { .. }) => {
                "choose another `--owner` or `--dataset` for the new condition".into()
            }
            Self::FieldNotGiven { name, .. } | Self::Models(archipelago_models::Error::MissingField { name }) => {
                match flag_of(name) {
                    Some(flag) => format!("say where with `{flag}`, or with `--field {name}=PLACE`"),
                    None => format!("say where with `--field {name}=PLACE`"),
                }
            }
            Self::Models(archipelago_models::Error::NotAnswered { .. }) => "`archipelago-worker results questions REFERENCE` lists what it answers".into(),
            Self::UnknownField { .. } => "`archipelago-worker models NAME` says what a model takes".into(),
            Self::WrongValues { expected, .. } if *expected == Values::LogNormalised.expected() => {
                "normalise the counts and take logarithms with `archipelago-worker preprocess`, or choose the layer that \
                 holds such values with `--layer`"
                    .into()
            }
            Self::LacksGenes { .. } => "train an ensemble on the genes that sections and query both have".into(),
            Self::TooManyCells { .. } => "add `--no-distances`".into(),
            Self::NotMapped { .. } => "map them first: `archipelago-worker space map ENSEMBLE FILE --out MAPPED`".into(),
            Self::WrongValues { .. } => {
                "choose the place that holds such values with `--field NAME=PLACE`, or a loss that takes these".into()
            }
            Self::Models(source) => return source.hint(),
            Self::Analysis(source) => return source.hint().map(str::to_owned),
            Self::Unnamed { .. } | Self::MissingValues { .. } => {
                "fill the column, or keep the cells that have a value: `archipelago-worker subset FILE --obs COLUMN=VALUES --out COPY`"
                    .into()
            }
            Self::Recipe { .. } => "`archipelago-worker preprocess --help` shows a complete recipe".into(),
            Self::CardRecipe { .. } => "update this program, or ask the reference's publisher for its recipe".into(),
            Self::OtherRecipe { .. } => {
                "name the file as it was before it was prepared: the reference's recipe is applied while it is read"
                    .into()
            }
            Self::UnknownValue { .. } => "write values exactly as `archipelago-worker inspect FILE` lists them".into(),
            Self::NoGene { .. } => "gene names are compared letter by letter; `inspect` shows the first ones".into(),
            Self::NoEmbedding { .. } => {
                "name one with `--use-rep`, or make one: `archipelago-worker pca` or `latent`".into()
            }
            Self::NothingToShow { .. } => "`archipelago-worker inspect FILE` lists columns and genes".into(),
            Self::OtherSpace { .. } | Self::OtherNetwork { .. } => {
                "place both with the same reference: `archipelago-worker latent` and `map`".into()
            }
            Self::Tree { .. } => {
                "a tree is a directory that `tree learn` wrote, or a file such as `((CD4,CD8)T,B)root` (`.nwk`, `.json`)".into()
            }
            Self::NothingLeft { .. } => "loosen the bounds, and look at the figures of quality first".into(),
            Self::Invite(source) => source.hint().to_owned(),
            Self::Pack(source) => source.hint()?.to_owned(),
            Self::Client(source) => return source.hint().map(str::to_owned),
            Self::Transport(source) => return source.hint().map(str::to_owned),
            Self::Config { .. } | Self::ConfigFile { .. } => {
                "`archipelago-worker serve --help` shows a complete configuration".into()
            }
            Self::WrongIdentity { .. } => {
                "set `site` to the name in the certificate, or use the right certificate".into()
            }
            Self::NoConditionKey { axis, .. } => format!(
                "say where it is with `--field {axis}=obs/COLUMN`, a site with `{axis} = \"obs/COLUMN\"` under `[data.fields]`"
            ),
            Self::JointNames { .. } => "rename a category so that names stay apart when they are joined".into(),
            Self::UnknownBatch { .. } => "name batches as `archipelago-worker inspect FILE` lists them".into(),
            Self::UnknownFeature { .. } => "they are named as in the data that the reference was trained on".into(),
            Self::NotNumbers { .. } => "name a column of numbers, or make it a categorical covariate".into(),
            Self::Reference { source: archipelago_common::Error::DigestMismatch { .. }, .. } => {
                "the reference was changed or damaged: fetch it again, or train it anew".into()
            }
            Self::Reference { .. } => "name a directory that `archipelago-worker train` or `map` wrote".into(),
            Self::Checkpoint { path, .. } => {
                format!(
                    "repeat the command with the settings of that run, or delete `{}` to start anew",
                    path.display()
                )
            }
            Self::NoFeatureNames { key, .. } => {
                format!(
                    "name the key of uns that holds them: `obsm/{key}@uns/NAMES` as the place, or `--protein-names-uns-key NAMES`"
                )
            },
            Self::BeyondCells { path, .. } => {
                format!("lay the modalities together: `archipelago-worker organize {} --out ORGANIZED.h5mu`", path.display())
            }
            Self::LacksCells { .. } => "use the cells that both modalities have".into(),
            Self::NoCondition { .. } => "map the batch first: `archipelago-worker map`".into(),
            Self::AmbiguousBatch { .. } => "choose with `--owner` and `--dataset`".into(),
            Self::FrozenMoved { .. } => "nothing was sent; please report this with the version of the worker".into(),
            Self::Diverged { .. } => "lower the learning rate, and look for cells with extreme counts".into(),
            Self::Withheld { .. } => "the site's policy file decides this".into(),
            Self::Declined { .. } => "`[tasks]` and `[budget]` of the site's policy file decide this: docs/policy.md".into(),
            Self::AwaitsConsent { task } => format!(
                "look at `archipelago-worker tasks --config site.toml`, then `archipelago-worker approve {task} --config site.toml`, or decline it"
            ),
            Self::OfferChanged { .. } | Self::NoTask { .. } | Self::CannotApprove { .. } => {
                "`archipelago-worker tasks --config site.toml` shows what there is now".into()
            }
            Self::MayNotRead { field, place } => format!(
                "say where it is with `{field} = \"{place}\"` under `[data.fields]` of site.toml, or list it in `may_read` of the policy"
            ),
            Self::AuditBroken { .. } | Self::AuditShortened { .. } | Self::AuditDiffers { .. } => {
                "keep the file as evidence, find out who changed it, and start a new log under another path".into()
            }
            Self::SiteSecret { .. } => {
                "restore the file from a backup; with a new secret repeated releases can be averaged, and batches get other ids".into()
            }
            Self::NoName { .. } => "`archipelago-worker names --config site.toml` shows all; a key of another secret cannot be read".into(),
            Self::SameId { .. } => "give one of them another name in the file".into(),
            Self::Bind { .. } => "choose another address, or port 0 for any free one".into(),
            _ => return None,
        })
    }

    /// What the process ends with: 2 for usage and configuration, 1 for work that failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. }
            | Self::ConfigFile { .. }
            | Self::Setting { .. }
            | Self::UnknownField { .. }
            | Self::FieldNotGiven { .. }
            | Self::NoConditionKey { .. }
            | Self::BatchKeyOfSeveral { .. }
            | Self::JointNames { .. }
            | Self::WrongPlace { .. }
            | Self::Recipe { .. }
            | Self::Exists { .. }
            | Self::Analysis(archipelago_analysis::AnalysisError::Option { .. })
            | Self::Bind { .. }
            | Self::Transport(_)
            | Self::WrongIdentity { .. }
            | Self::Common(CommonError::InvalidName { .. } | CommonError::InvalidValue { .. }) => 2,
            Self::Models(source) if is_setting(source) => 2,
            _ => 1,
        }
    }
}

/// What to do about a matrix that holds no counts.
fn hints_of_counts(path: &Path, place: &str, found: &str) -> Vec<String> {
    let elsewhere = match places_of_counts(path, place) {
        places if places.is_empty() => "choose the layer that holds raw counts, such as `--layer counts`".to_owned(),
        places => format!("raw counts are needed; these look like some: {}", places.join(", ")),
    };
    let corrected = format!(
        "{elsewhere}; counts without their ambient RNA, which are no whole numbers any more, are taken with `--fractional-counts`"
    );
    let is_corrected = is_fraction(found) && is_of_genes(place);
    is_corrected.then_some(corrected).into_iter().chain([elsewhere]).collect()
}

/// Whether what was found begins with a number above 0 that is not whole.
fn is_fraction(found: &str) -> bool {
    let number = found.split(' ').next().and_then(|word| word.parse::<f32>().ok());
    number.is_some_and(|number| number > 0.0 && number.is_finite() && number.fract() != 0.0)
}

/// Whether a place holds the expression of genes: what `--layer` says.
fn is_of_genes(place: &str) -> bool {
    place == "X" || place == "raw" || place.starts_with("layers/")
}

/// Where a file has values that look like counts, beside the place that has none: as flags, or as places of its modality.
fn places_of_counts(path: &Path, place: &str) -> Vec<String> {
    let modality = place.strip_prefix("mod/").and_then(|rest| rest.split('/').next());
    let file = match modality {
        Some(name) => H5adFile::open_modality(path, name),
        None => H5adFile::open(path),
    };
    let counted = file.and_then(|file| file.counted()).unwrap_or_default();
    let named = |layer: String| match modality {
        Some(name) => format!("`mod/{name}/layers/{layer}`"),
        None => format!("`--layer {layer}`"),
    };
    counted.into_iter().map(named).collect()
}

/// Whether a model refuses what it was told to do, before any work.
fn is_setting(error: &archipelago_models::Error) -> bool {
    use archipelago_models::Error;
    matches!(
        error,
        Error::Config { .. }
            | Error::Argument { .. }
            | Error::UnknownModel { .. }
            | Error::Common(CommonError::InvalidName { .. } | CommonError::InvalidValue { .. })
    )
}

fn anndata_hints(source: &archipelago_anndata::Error) -> Vec<String> {
    use archipelago_anndata::Error;
    let hints: &[&str] = match source {
        Error::NotFound { .. } => &["check the path; relative paths start in the current directory"],
        Error::Missing { kind: "column", .. } => &[
            "choose a column with `--batch-key` or `--labels-key`; where all cells are one batch, `archipelago-worker obs FILE --set \
             batch=NAME --out COPY` says so",
            "choose a column with `--labels-key`",
            "choose a column with `--groupby`",
            "choose columns as `archipelago-worker inspect FILE` lists them",
        ],
        Error::Missing { kind: "layer", .. } => &[
            "choose a layer with `--layer`, or leave it out for X",
            "`archipelago-worker inspect FILE` lists the layers",
        ],
        Error::Missing { kind: "obsm", .. } => {
            &["choose one with `--use-rep`", "`archipelago-worker inspect FILE` lists what obsm holds"]
        }
        Error::DuplicateGenes { .. } => &[
            "add their counts with `--duplicate-genes sum`, or make names unique: `adata.var_names_make_unique()`",
            "make names unique: `adata.var_names_make_unique()`",
        ],
        Error::DuplicateCells { .. } => &[
            "append the name of its part to each cell (`--index-unique`)",
            "make names unique: `adata.obs_names_make_unique()`",
        ],
        Error::Scratch { .. } => &[
            "name a directory on a disk with room with `--scratch`, or allow more with `--memory`",
            "name a directory on a disk with room (`scratch` in site.toml), or allow more `memory`",
        ],
        other => {
            let without_flags = "choose a file with raw counts in X, or in a layer that a recipe names";
            let is_of_counts = matches!(other, Error::NoX { .. } | Error::NotCounts { .. });
            let further = is_of_counts.then(|| without_flags.to_owned());
            return other.hint().into_iter().chain(further).collect();
        }
    };
    hints.iter().map(|&hint| hint.to_owned()).collect()
}
