//! The one error type of this crate.

use std::path::PathBuf;

use archipelago_common::{ConditionKey, Name, progress::EpochReport};

use crate::formats::pickle::Fault;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between counts and a trained model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value of the common crate broke a rule: a tensor is missing, a key collides, a spec makes no sense.
    #[error(transparent)]
    Common(#[from] archipelago_common::Error),
    /// A matrix could not be built from its parts.
    #[error(transparent)]
    Anndata(#[from] archipelago_anndata::Error),
    /// Numbers about cells could not be computed.
    #[error(transparent)]
    Analysis(#[from] archipelago_analysis::AnalysisError),
    /// libtorch refused an operation that depends on the machine: memory, a device, a file.
    #[error("libtorch failed to {action}")]
    Torch {
        /// What was tried.
        action: &'static str,
        /// libtorch's word on it.
        #[source]
        source: tch::TchError,
    },
    /// The zoo has no such model.
    #[error("there is no model `{name}`; there are: {available}")]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// Names there are.
        available: String,
    },
    /// A model option is unknown, has a wrong type or a value that makes no sense.
    #[error("model options of `{model}` are invalid: {detail}")]
    Config {
        /// The model.
        model: &'static str,
        /// The option, what was found and what is expected.
        detail: String,
    },
    /// Two parts of the data disagree about the number of cells or genes.
    #[error("`{part}` has {found} {axis}, expected {expected}")]
    Shape {
        /// `counts`, `labels`, a covariate's name…
        part: String,
        /// `cells` or `genes`.
        axis: &'static str,
        /// Length found.
        found: usize,
        /// Length expected.
        expected: usize,
    },
    /// There are too few cells to do what was asked for.
    #[error("{what} has {found} cells, at least {expected} are needed")]
    TooFewCells {
        /// A condition, a group, the data set.
        what: String,
        /// Cells found.
        found: usize,
        /// Cells needed.
        expected: usize,
    },
    /// The cells of a condition give a latent library size no prior.
    #[error(
        "the library size is latent, and the {n_cells} cells of `{condition}` have the same total count: their logarithms have no variance \
         for its prior, at least 2 cells of different totals are needed"
    )]
    OneLibrarySize {
        /// The condition.
        condition: String,
        /// Its cells.
        n_cells: usize,
    },
    /// A value of the data that the model cannot take.
    #[error("`{part}` holds {found}, expected {expected}")]
    Value {
        /// Which part of the data.
        part: String,
        /// The value found.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// The model takes a field that the data lack.
    #[error("the model takes `{name}`, which the data lack")]
    MissingField {
        /// Name of the field, or of one of its columns.
        name: String,
    },
    /// A field is of another kind than its name is used for.
    #[error("`{name}` is of the kind {found}, expected {expected}")]
    FieldKind {
        /// Name of the field.
        name: String,
        /// Its kind.
        found: &'static str,
        /// The kind expected.
        expected: &'static str,
    },
    /// Cells and reference share no feature of a matrix.
    #[error("the cells have none of the reference's {field}: found {found}…, expected {expected}…")]
    NoCommonFeatures {
        /// Name of the field.
        field: String,
        /// Some features of the cells.
        found: String,
        /// Some features of the reference.
        expected: String,
    },
    /// The model has no place of this kind for cells.
    #[error("`{model}` has no {place}")]
    NoPlace {
        /// Name of the model.
        model: String,
        /// What was asked for.
        place: &'static str,
    },
    /// A question that the model does not answer.
    #[error("the model does not answer `{question}`")]
    NotAnswered {
        /// The question.
        question: String,
    },
    /// A question was told something that makes no sense.
    #[error("`--{}` is {found}, expected {expected}", name.replace('_', "-"))]
    Argument {
        /// The argument.
        name: &'static str,
        /// What was given.
        found: String,
        /// What is possible.
        expected: String,
    },
    /// The model does not decode its latent states, so there are no results of this kind.
    #[error("`{model}` does not decode its latent states")]
    NotCountModel {
        /// Name of the model.
        model: String,
    },
    /// Something needs the counts of cells that have none left.
    #[error("{what} needs counts, and these cells are minified")]
    Minified {
        /// What was asked for.
        what: &'static str,
    },
    /// A category that the reference does not know where its categories cannot grow.
    #[error("`{covariate}` holds `{category}`, which the reference does not know; it knows {known}")]
    UnknownCategory {
        /// Name of the covariate or of the labels.
        covariate: String,
        /// The category found.
        category: String,
        /// The categories of the reference.
        known: String,
    },
    /// The reference has no columns of a condition.
    #[error("the reference has no condition `{key}`")]
    UnknownCondition {
        /// The condition asked for.
        key: ConditionKey,
    },
    /// The condition is already part of the reference.
    #[error("the reference already has the condition `{key}`")]
    KnownCondition {
        /// The condition asked for.
        key: ConditionKey,
    },
    /// The names of cells on one axis are those of another.
    #[error(
        "{names} are new on axis `{axis}`, and all of them are names of {other}: the columns of keys look mixed up"
    )]
    AxisMixUp {
        /// The axis.
        axis: Name,
        /// The axis that knows them.
        other: String,
        /// The names.
        names: String,
    },
    /// A model of normalised values is asked for what counts have.
    #[error("this reference of `{model}` is one of normalised values with a squared error, which has no {what}")]
    NotOfValues {
        /// The model.
        model: String,
        /// What was asked for.
        what: &'static str,
    },
    /// The package that a model comes from has no surgery of it.
    #[error("`{model}` has no surgery of its package's own")]
    NoUpstreamSurgery {
        /// Name of the model.
        model: String,
    },
    /// Cells with several condition keys cannot be decoded as another condition.
    #[error(
        "cells of this reference have several condition keys, so they cannot be decoded as if they were of `{key}`"
    )]
    SeveralKeys {
        /// The condition.
        key: ConditionKey,
    },
    /// Cells have keys on other axes than the model.
    #[error("the cells have keys on {found}, expected {expected}")]
    OtherAxes {
        /// The axes of the cells.
        found: String,
        /// Those of the model.
        expected: String,
    },
    /// The model gives cells no place in a latent space.
    #[error("`{model}` has no latent space")]
    NotEmbedder {
        /// Its name in the zoo.
        model: String,
    },
    /// The model does not predict labels.
    #[error("model `{model}` does not predict labels")]
    NotLabelModel {
        /// Its name in the zoo.
        model: String,
    },
    /// A pretrained reference cannot start the training asked for.
    #[error("the pretrained reference does not fit: {detail}")]
    Pretrained {
        /// What differs.
        detail: String,
    },
    /// A stored tensor does not have the shape that the model's options ask for.
    #[error("tensor `{name}` is {found}, expected {expected}")]
    TensorShape {
        /// Name of the tensor.
        name: String,
        /// Type and shape found.
        found: String,
        /// Type and shape expected.
        expected: String,
    },
    /// Cells cannot be put into clusters.
    #[error("the cells cannot be put into clusters: {detail}")]
    Clusters {
        /// Why.
        detail: String,
    },
    /// Prototypes that cannot be used with a reference.
    #[error("the prototypes do not fit: {detail}")]
    Prototypes {
        /// What differs.
        detail: String,
    },
    /// The reference's card says that nothing can be trained onto it.
    #[error("surgery is not possible onto this reference: {reason}")]
    NoSurgery {
        /// In the card's words.
        reason: String,
    },
    /// Cells cannot be said to be like a condition of a reference.
    #[error("no condition can be taken over from the reference: {detail}")]
    NoLikeness {
        /// Why not.
        detail: &'static str,
    },
    /// What a site contributed to a version cannot be used with its base.
    #[error("what was contributed with `{key}` does not fit the reference: {detail}")]
    Contributed {
        /// The condition with which it was trained.
        key: Box<ConditionKey>,
        /// What differs.
        detail: String,
    },
    /// Conditions were trained each with tensors that the site keeps, so no one module has them all.
    #[error("these conditions were trained each with tensors of their own; ask for one at a time")]
    SeveralLocal,
    /// Exact surgery cannot be done as asked for.
    #[error("exact surgery is not possible: {detail}")]
    NotExact {
        /// Which rule would be broken.
        detail: String,
    },
    /// Something that must stay frozen has moved. This is a defect of this program, caught before anything is used.
    #[error("frozen tensors changed during surgery")]
    FrozenMoved,
    /// Training left the finite numbers.
    #[error("the loss is {loss} in epoch {epoch}")]
    Diverged {
        /// The epoch, from 1.
        epoch: u32,
        /// The loss, NaN or infinite.
        loss: f64,
    },
    /// Whoever watches the training asked to stop it.
    #[error("training was cancelled after epoch {}", last.epoch)]
    Cancelled {
        /// The last finished epoch.
        last: EpochReport,
    },
    /// A checkpoint belongs to another training run or is damaged.
    #[error("checkpoint does not fit: {detail}")]
    Checkpoint {
        /// What differs.
        detail: String,
    },
    /// A saved model of another package is not what it should be.
    #[error("failed to import `{}`: {detail}", file.display())]
    Import {
        /// The file, or the folder that should hold it.
        file: PathBuf,
        /// What was found and what was expected.
        detail: String,
    },
    /// The table of where a reference's cells lie is damaged, or there is none.
    #[error("the reference's table of where its cells lie does not serve: {detail}")]
    Aggregate {
        /// What was found and what was expected.
        detail: String,
    },
    /// An adaptor does not fit the reference.
    #[error("the adaptor does not fit: {detail}")]
    Adaptor {
        /// What differs.
        detail: String,
    },
    /// scvi-tools has no model of this kind.
    #[error("a `{model}` reference cannot be exported: scvi-tools has no such model")]
    Export {
        /// Its name in the zoo.
        model: String,
    },
    /// The pickle inside a saved model is damaged or asks for something that no saved model needs.
    #[error("failed to read the pickle of `{}`", file.display())]
    Pickle {
        /// The file.
        file: PathBuf,
        /// Opcode or class, and where it stands.
        #[source]
        source: Fault,
    },
}

impl Error {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Anndata(error) => return error.hint(),
            Self::UnknownModel { .. } => "list the zoo with `archipelago-worker models`".into(),
            Self::MissingField { name } => format!("say where it is: `--field {name}=obs/…`, `obsm/…` or `mod/…`"),
            Self::NoCommonFeatures { field, .. } => {
                format!("rename them as in the reference, or map the cells without them: `--field {field}=none`")
            }
            Self::UnknownCategory { .. } => "rename the category, or leave these cells out".into(),
            Self::UnknownCondition { .. } => "map its cells first, or name a condition of the reference".into(),
            Self::NoSurgery { .. } => {
                "`archipelago-worker results questions REFERENCE` lists what can be asked of cells instead".into()
            }
            Self::Contributed { key, .. } => {
                format!(
                    "whoever operates the consortium can take it out: `archipelago-coordinator withdraw … --site {}`",
                    key.owner()
                )
            }
            Self::NoUpstreamSurgery { .. } => "leave out `--surgery upstream`: `map` has its own way".into(),
            Self::OneLibrarySize { .. } => {
                "leave the condition out or give it more cells, or train a reference whose library sizes are total counts".into()
            }
            Self::Aggregate { .. } => {
                "map without it (`--reference-pull 0`), or train the reference anew: `train` keeps such a table".into()
            }
            Self::Diverged { .. } => "lower the learning rate, and look for cells with extreme counts".into(),
            Self::Pickle { .. } => {
                "if you trust where the file comes from, load and save it again with scvi-tools".into()
            }
            Self::Checkpoint { .. } => "delete the checkpoint to start from the beginning".into(),
            _ => return None,
        })
    }
}
