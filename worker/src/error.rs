//! What can go wrong at a site, in words a person there can act on.
//!
//! Messages may name local paths, cells and genes: they are printed at the site and never sent. What the coordinator is
//! told is a [`crate::session::Reason`], which can hold none of that.

mod hint;

use std::{net::SocketAddr, path::PathBuf};

use archipelago_common::{
    condition::ConditionKey,
    hash::Digest,
    id::{Name, SiteId, TaskId, VersionId},
};

use crate::{bounds::Bound, consent::Because};

/// The result of an operation of the worker.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation of the worker that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A common value broke a rule.
    #[error(transparent)]
    Common(#[from] archipelago_common::Error),
    /// An h5ad file or what it holds cannot be used.
    #[error(transparent)]
    Anndata(#[from] archipelago_anndata::Error),
    /// A model or its training failed.
    #[error(transparent)]
    Models(#[from] archipelago_models::Error),
    /// A coordinator could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] archipelago_client::ClientError),
    /// The site's certificate or key cannot be used.
    #[error(transparent)]
    Transport(#[from] archipelago_transport::Error),
    /// A packed reference cannot be used.
    #[error(transparent)]
    Pack(#[from] archipelago_pack::Error),
    /// An invitation cannot be used.
    #[error(transparent)]
    Invite(#[from] archipelago_client::invite::InviteError),
    /// A site cannot come in.
    #[error("{place}: {detail}")]
    Join {
        /// File, flag or site.
        place: String,
        /// What was found, what is expected, what to do.
        detail: String,
    },
    /// A coordinator answered something else than what was asked.
    #[error("a coordinator answered with `{found}`, which does not fit the request")]
    UnexpectedReply {
        /// The answer's kind.
        found: String,
    },
    /// The certificate speaks of someone else than the configuration.
    #[error("the certificate is that of `{found}`, but the configuration says site `{expected}`")]
    WrongIdentity {
        /// The configured site.
        expected: SiteId,
        /// Who the certificate is for.
        found: String,
    },
    /// `doctor` found things that do not work.
    #[error(transparent)]
    Unwell(#[from] archipelago_common::finding::Unwell),
    /// A task names a version that its reference does not have.
    #[error("reference `{reference}` has no version {version}")]
    UnknownVersion {
        /// The version.
        version: VersionId,
        /// The reference.
        reference: Name,
    },
    /// The operating system gave no threads or signals.
    #[error("failed to start the runtime")]
    Runtime {
        /// Its word on it.
        #[source]
        source: std::io::Error,
    },
    /// A metric could not be set up.
    #[error("failed to set up metrics")]
    Metrics(#[from] prometheus::Error),
    /// A file operation failed.
    #[error("failed to {action} `{}`", path.display())]
    File {
        /// `read`, `append to`…
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's word on it.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is not what it must be.
    #[error("configuration `{}` is invalid: {detail}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field, what was found and what is expected.
        detail: String,
    },
    /// The configuration file cannot be read.
    #[error("failed to read the configuration `{}`", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: archipelago_common::Error,
    },
    /// A value on the command line makes no sense.
    #[error("`{what}` is {found}, expected {expected}")]
    Setting {
        /// The flag.
        what: &'static str,
        /// What was given.
        found: String,
        /// What is possible.
        expected: &'static str,
    },
    /// A result is there already.
    #[error("`{}` exists already, and would be replaced", path.display())]
    Exists {
        /// The file or directory.
        path: PathBuf,
    },
    /// A matrix whose columns have no names.
    #[error("`obsm['{key}']` of `{}` has no names of its columns", path.display())]
    NoFeatureNames {
        /// The file.
        path: PathBuf,
        /// The key of the matrix.
        key: String,
    },
    /// Cells of which a modality says nothing.
    #[error("modality `{name}` of `{}` lacks {n_missing} of {n_cells} cells", path.display())]
    LacksCells {
        /// The file.
        path: PathBuf,
        /// The modality.
        name: String,
        /// Cells it lacks.
        n_missing: usize,
        /// Cells used.
        n_cells: usize,
    },
    /// Cells of a modality that have no gene expression, where they would be left out in silence.
    #[error("{n_beyond} cells of modality `{name}` of `{}` are not among those with gene expression", path.display())]
    BeyondCells {
        /// The file.
        path: PathBuf,
        /// The modality.
        name: String,
        /// Cells that only it has.
        n_beyond: usize,
    },
    /// A matrix holds something else than a model takes.
    #[error("`{place}` of `{}` holds {found}, expected {expected}", path.display())]
    WrongValues {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        place: String,
        /// The first value that is wrong, or what all of them are.
        found: String,
        /// What the model takes.
        expected: &'static str,
    },
    /// A field is said to be where no field of its kind can be.
    #[error("`{field}` cannot be read from `{place}`, expected {expected}")]
    WrongPlace {
        /// The field.
        field: String,
        /// The place.
        place: String,
        /// Where such a field can be.
        expected: &'static str,
    },
    /// A model cannot do without a field, and nothing says where it is.
    #[error("`{model}` takes `{name}` ({help}), and nothing says where they are")]
    FieldNotGiven {
        /// The model.
        model: String,
        /// The field.
        name: String,
        /// What it holds.
        help: &'static str,
    },
    /// A field that a model does not take.
    #[error("`{model}` does not take `{name}`; it takes {known}")]
    UnknownField {
        /// The model.
        model: String,
        /// The field.
        name: String,
        /// The fields that it takes.
        known: String,
    },
    /// A batch that was asked for is not in the data.
    #[error("`{batch_key}` of `{}` has no batch `{found}`; there are: {available}", path.display())]
    UnknownBatch {
        /// The file.
        path: PathBuf,
        /// The obs column.
        batch_key: String,
        /// The batch asked for.
        found: String,
        /// The batches there are.
        available: String,
    },
    /// The file lacks one of several condition keys.
    #[error("`{}` has no obs column `{column}`, where the condition key `{axis}` should be", path.display())]
    NoConditionKey {
        /// The file.
        path: PathBuf,
        /// The key.
        axis: String,
        /// The column.
        column: String,
    },
    /// A batch column was named for a model whose condition keys name the batches.
    #[error("`--batch-key` is {found}, expected nothing: the condition keys `{keys}` name the batches of these cells")]
    BatchKeyOfSeveral {
        /// The column.
        found: String,
        /// The keys.
        keys: String,
    },
    /// Different names on several condition keys make one name together.
    #[error("in `{}` cells of `{}` and `{}` would both be called `{name}`", path.display(), both[0], both[1])]
    JointNames {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
        /// The names that it is made of, in either case.
        both: [String; 2],
    },
    /// Cells without a value where every cell needs one.
    #[error("{n_missing} of {n_cells} cells in `{}` have no value in obs column `{column}`", path.display())]
    MissingValues {
        /// The file.
        path: PathBuf,
        /// The obs column.
        column: String,
        /// Cells without a value.
        n_missing: usize,
        /// All cells.
        n_cells: usize,
    },
    /// A group of cells that was asked for is not in the data.
    #[error("obs column `{column}` of `{}` has no value `{found}`; there are: {available}", path.display())]
    UnknownGroup {
        /// The file.
        path: PathBuf,
        /// The obs column.
        column: String,
        /// The value asked for.
        found: String,
        /// The values there are.
        available: String,
    },
    /// Cells without a value where every cell needs one, in a file that the context names.
    #[error("{n_missing} of {n_cells} cells have no value in obs column `{column}`")]
    Unnamed {
        /// The obs column.
        column: String,
        /// Cells without a value.
        n_missing: usize,
        /// All cells.
        n_cells: usize,
    },
    /// A figure or a picture cannot be computed from the given cells.
    #[error(transparent)]
    Analysis(#[from] archipelago_analysis::AnalysisError),
    /// A directory holds a reference of another model than what was asked needs.
    #[error("`{}` holds a reference of `{model}`, expected an ensemble of networks of sections", path.display())]
    NotEnsemble {
        /// The directory.
        path: PathBuf,
        /// Its model.
        model: String,
    },
    /// Cells that lack genes without which networks say nothing of them.
    #[error("`{}` lacks {n_missing} of the {n_panel} genes that the networks take, `{gene}` among them", path.display())]
    LacksGenes {
        /// The file.
        path: PathBuf,
        /// Genes it lacks.
        n_missing: usize,
        /// Genes of the networks.
        n_panel: usize,
        /// The first that is missing.
        gene: String,
    },
    /// A table of all pairs of cells would not fit into memory.
    #[error("distances between {n_cells} cells are asked for, at most {most} have room")]
    TooManyCells {
        /// Cells.
        n_cells: usize,
        /// Cells that have room.
        most: usize,
    },
    /// A file of cells that no ensemble mapped.
    #[error("the cells of `{}` were not mapped by an ensemble: obs has no column `confidence`", path.display())]
    NotMapped {
        /// The file.
        path: PathBuf,
    },
    /// A directory of an ensemble without the cells that it was trained on.
    #[error("`{}` holds no sections to draw: they stay where the ensemble was trained", path.display())]
    NoSections {
        /// The directory.
        path: PathBuf,
    },
    /// A recipe, or a file that it names, is not what it must be.
    #[error("recipe `{}` is invalid: {detail}", path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// The field, what was found and what is expected.
        detail: String,
    },
    /// A reference carries a recipe that this build cannot follow.
    #[error("the recipe of the reference cannot be followed: {detail}")]
    CardRecipe {
        /// What is wrong with it.
        detail: String,
    },
    /// Cells were prepared by another recipe than the reference asks for.
    #[error("`{}` was prepared by recipe {found}, the reference asks for {expected}", path.display())]
    OtherRecipe {
        /// The file.
        path: PathBuf,
        /// Digest of the file's recipe.
        found: String,
        /// Digest of the reference's recipe.
        expected: String,
    },
    /// A value that no cell has.
    #[error("obs column `{column}` has no value `{found}`; there are: {available}")]
    UnknownValue {
        /// The obs column.
        column: String,
        /// The value asked for.
        found: String,
        /// The values there are.
        available: String,
    },
    /// A column that would be lost.
    #[error("there is an obs column `{column}` already")]
    ColumnExists {
        /// Its name.
        column: String,
    },
    /// A table as text that does not say what it should.
    #[error("`{}` is not usable as a table: {detail}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Found, and expected.
        detail: String,
    },
    /// A feature that was asked for is none of those that the reference decodes.
    #[error("the reference decodes no feature `{name}`, of {n_known} in all")]
    UnknownFeature {
        /// What was asked for.
        name: String,
        /// Features that it decodes, genes and others.
        n_known: usize,
    },
    /// A column of numbers holds something else.
    #[error("obs column `{column}` of `{}` holds text, expected numbers", path.display())]
    NotNumbers {
        /// The file.
        path: PathBuf,
        /// The obs column.
        column: String,
    },
    /// A gene that the file does not have.
    #[error("the file has no gene `{gene}`{}", others(*n_missing))]
    NoGene {
        /// The first gene that is missing.
        gene: String,
        /// How many of the genes asked for are missing.
        n_missing: usize,
    },
    /// A command was not told which embedding to take, and the file has none of the usual ones.
    #[error("the file has neither `X_archipelago` nor `X_pca` in obsm; there are: {}", if available.is_empty() { "none" } else { available })]
    NoEmbedding {
        /// The elements of `obsm`.
        available: String,
    },
    /// A name that is neither a column of obs or of a table in obsm nor a gene.
    #[error("`{name}` is neither a column nor a gene; columns are: {columns}")]
    NothingToShow {
        /// The name.
        name: String,
        /// The columns there are.
        columns: String,
    },
    /// Cells that another network placed.
    #[error("the cells of `{}` were placed by the network {found}, those of the other file by {expected}", path.display())]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// Beginning of the digest of the base by which its cells were placed.
        found: String,
        /// That of the other file.
        expected: String,
    },
    /// Two files whose embeddings cannot be of one model.
    #[error("`{rep}` of `{}` has {found} dimensions, that of the other file {expected}", path.display())]
    OtherSpace {
        /// The file.
        path: PathBuf,
        /// The embedding.
        rep: String,
        /// Its dimensions.
        found: usize,
        /// Those of the other file.
        expected: usize,
    },
    /// A tree of cell types that cannot be read.
    #[error("failed to read the tree `{}`: {detail}", path.display())]
    Tree {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        detail: String,
    },
    /// A step left no cell, gene or set.
    #[error("`{step}` leaves none of {n} {what}s")]
    NothingLeft {
        /// `cell`, `gene`, `gene set`.
        what: &'static str,
        /// How many there were.
        n: usize,
        /// The step.
        step: &'static str,
    },
    /// A file of cells cannot be used, for the reason that follows.
    #[error("failed to use `{}`", path.display())]
    Cells {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: archipelago_anndata::Error,
    },
    /// A reference directory cannot be used, for the reason that follows.
    #[error("failed to open the reference `{}`", path.display())]
    Reference {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: archipelago_common::Error,
    },
    /// A checkpoint of a training run cannot be taken up.
    #[error("failed to go on from the checkpoint `{}`", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<archipelago_models::Error>,
    },
    /// Cells of a batch that the reference has no condition for.
    #[error("the reference has no condition for batch `{batch}`; it has {available}")]
    NoCondition {
        /// The batch.
        batch: String,
        /// The conditions there are.
        available: String,
    },
    /// A batch name that several conditions of the reference share.
    #[error("batch `{batch}` may be any of the conditions {candidates}")]
    AmbiguousBatch {
        /// The batch.
        batch: String,
        /// The conditions that end in its name.
        candidates: String,
    },
    /// Training changed more than the columns it was handed. A defect of this program, caught at the gate.
    #[error("training of `{key}` changed the frozen part: its digest {change}")]
    FrozenMoved {
        /// The condition.
        key: Box<ConditionKey>,
        /// Both digests, in words.
        change: String,
    },
    /// Trained columns hold a number that is none.
    #[error("the columns of `{key}` hold NaN or infinite values")]
    Diverged {
        /// The condition.
        key: ConditionKey,
    },
    /// The site's policy keeps a condition at home.
    #[error("`{key}` stays at home: {reason}")]
    Withheld {
        /// The condition.
        key: Box<ConditionKey>,
        /// Which rule, with found and expected.
        reason: String,
    },
    /// The audit log, or the ledger, does not hold together.
    #[error("the log `{}` is broken at line {line}: {detail}", path.display())]
    AuditBroken {
        /// The log.
        path: PathBuf,
        /// The first line that does not hold, from 1.
        line: usize,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// A task is more than the site's policy allows.
    #[error("the task is declined, {bound}: {detail}")]
    Declined {
        /// Which bound, in the words that a coordinator is told.
        bound: Bound,
        /// What was found and what the policy allows, for the site.
        detail: String,
    },
    /// A person at the site said no to a task.
    #[error("the task was declined by a person at this site: {because}")]
    NotWanted {
        /// The word that goes to the coordinators.
        because: Because,
    },
    /// Nobody at the site has said yet whether a task may be done.
    #[error("task {task} waits for the consent of a person at this site")]
    AwaitsConsent {
        /// The task.
        task: TaskId,
    },
    /// What was shown of a task is not what there is now.
    #[error("task {task} is not what was shown: its offer was {shown} and is {found}")]
    OfferChanged {
        /// The task.
        task: TaskId,
        /// Digest of what was shown.
        shown: Digest,
        /// Digest of what there is.
        found: Digest,
    },
    /// A yes would change nothing.
    #[error("task {task} cannot be approved: {reason}")]
    CannotApprove {
        /// The task.
        task: TaskId,
        /// Why the worker passes it over.
        reason: String,
    },
    /// There is no such task for this site.
    #[error("no task {task} is open for this site")]
    NoTask {
        /// What was named.
        task: TaskId,
    },
    /// A coordinator says something else of a reference than its card does.
    #[error("the card of reference `{reference}` is not what the coordinators say of it")]
    OtherCard {
        /// The reference.
        reference: Name,
    },
    /// A reference's card names a place in the site's file that the site does not let it read.
    #[error("the reference takes `{field}` from `{place}`, which this site does not let a reference read")]
    MayNotRead {
        /// The field.
        field: String,
        /// The place.
        place: String,
    },
    /// The audit log lacks an entry that was noted elsewhere.
    #[error("the audit log `{}` does not contain the head {head}", path.display())]
    AuditShortened {
        /// The log.
        path: PathBuf,
        /// The head that was noted.
        head: Digest,
    },
    /// The audit log is not what the coordinators have on record of it.
    #[error("the audit log `{}` differs from what was anchored, first in entry {record} (act {act} of the record): {detail}", path.display())]
    AuditDiffers {
        /// The log.
        path: PathBuf,
        /// The first entry that differs, from 1.
        record: u64,
        /// The act that anchored it.
        act: u64,
        /// How.
        detail: String,
    },
    /// The secret that keys noise and ids is damaged.
    #[error("the site's secret `{}` cannot be used: {detail}", path.display())]
    SiteSecret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A key that stands for nothing here.
    #[error("`{key}` is no key of this site's batches")]
    NoName {
        /// The key.
        key: Box<ConditionKey>,
    },
    /// Two batches whose ids are the same.
    #[error("the batch `{name}` would be called `{key}`, as another batch is")]
    SameId {
        /// The key of both.
        key: Box<ConditionKey>,
        /// The later one.
        name: String,
    },
    /// A defect of this program, met in one task.
    #[error("the work ended unexpectedly: {detail}")]
    Panicked {
        /// What the program said.
        detail: String,
    },
    /// The ops port cannot be opened.
    #[error("failed to listen on `{address}`")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The operating system's word on it.
        #[source]
        source: std::io::Error,
    },
}

fn others(n_missing: usize) -> String {
    if n_missing > 1 { format!(" and lacks {} others of the list", n_missing - 1) } else { String::new() }
}
