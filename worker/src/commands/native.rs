//! `import` and `export` for models that scArches has as its own: their folders, and adaptors, which hold one condition's columns.

use std::{fmt, path::Path};

use archipelago_common::{condition::ConditionKey, fs, id::VersionId, reference_dir::ReferenceDir};
use archipelago_models::{
    Reference,
    formats::scarches::{self, SavedFolder, adaptor::Adaptor},
    upstream::{self, Namespace},
    zoo::family::adaptor::{adaptor_of, columns_of, shared_genes},
};
use serde::Serialize;

use super::OpenReference;
use crate::{
    error::{Error, Result},
    existing,
    output::Output,
    results,
};

/// What there is to import.
pub(super) enum Source {
    /// A model.
    Folder(SavedFolder),
    /// The columns of one condition.
    Adaptor(Adaptor),
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: std::path::PathBuf,
    version: VersionId,
    model: String,
    saved_by: &'static str,
    n_genes: usize,
    conditions: Vec<ConditionKey>,
}

/// What was exported.
#[derive(Serialize)]
struct Exported {
    out: std::path::PathBuf,
    version: VersionId,
    class: &'static str,
    n_tensors: usize,
    conditions: Vec<String>,
}

impl Source {
    /// What scArches saved in a folder, if it is one of these.
    pub(super) fn of(folder: &Path) -> Result<Option<Self>> {
        if Adaptor::is_one(folder) {
            return Ok(Some(Self::Adaptor(Adaptor::read(folder)?)));
        }
        let is_one = scarches::is_one(folder)?;
        Ok(if is_one { Some(Self::Folder(SavedFolder::read(folder)?)) } else { None })
    }

    /// The same with names of terms, where some are given.
    pub(super) fn with_terms(self, names: Option<Vec<String>>) -> Result<Self> {
        match (self, names) {
            (source, None) => Ok(source),
            (Self::Folder(saved), Some(names)) => Ok(Self::Folder(upstream::with_terms(saved, names)?)),
            (Self::Adaptor(_), Some(names)) => Err(Error::Setting {
                what: "--terms",
                found: format!("{} names", names.len()),
                expected: "nothing for an adaptor, which takes over what its reference has",
            }),
        }
    }
}

/// Writes the reference that a folder is, or the one that an adaptor's columns make of another.
pub(super) fn import(
    source: &Source,
    onto: Option<&Path>,
    namespace: &Namespace,
    out: &Path,
    output: &Output,
) -> Result<()> {
    let reference = match source {
        Source::Folder(saved) => upstream::folder_to_reference(saved, namespace)?,
        Source::Adaptor(adaptor) => attach(adaptor, onto, namespace, output)?,
    };
    fs::create_dir(out)?;
    existing::begin(out)?;
    let dir = ReferenceDir::write(out, &reference.base, &reference.columns)?;
    let summary = Summary {
        out: out.to_owned(),
        version: dir.version().id(),
        model: reference.base.card.model.clone(),
        saved_by: "scArches",
        n_genes: reference.base.card.genes.len(),
        conditions: reference.columns.keys().cloned().collect(),
    };
    results::write_json(&out.join(existing::SUMMARY), &summary)?;
    output.show(&summary);
    Ok(())
}

fn attach(adaptor: &Adaptor, onto: Option<&Path>, namespace: &Namespace, output: &Output) -> Result<Reference> {
    let Some(onto) = onto else {
        let detail = "it holds the columns of one condition; name the reference they belong to with `--onto`";
        return Err(archipelago_models::Error::Adaptor { detail: detail.to_owned() }.into());
    };
    let OpenReference { reference, .. } = OpenReference::open(onto)?;
    let share = shared_genes(&reference, adaptor);
    if share < 1.0 {
        output.note(format!(
            "note: {:.1} % of the reference's genes stand at their place in the adaptor's model",
            100.0 * share
        ));
    }
    let key = ConditionKey::new(namespace.owner.clone(), namespace.dataset.clone(), adaptor.condition.clone())?;
    Ok(reference.with(key, columns_of(&reference, adaptor)?)?)
}

/// Writes a reference as a folder of scArches, or one of its conditions as an adaptor; whether it is a model of scArches' own.
pub(super) fn export(
    dir: &ReferenceDir,
    reference: &Reference,
    condition: Option<&ConditionKey>,
    out: &Path,
    output: &Output,
) -> Result<bool> {
    let Some((saved, class)) = upstream::reference_to_folder(reference)? else { return Ok(false) };
    let (n_tensors, conditions) = match condition {
        None => {
            saved.write(out)?;
            (saved.tensors.len(), reference.columns.keys().map(ToString::to_string).collect())
        }
        Some(key) => {
            let adaptor = adaptor_of(reference, key)?;
            adaptor.write(out)?;
            (adaptor.columns.len(), vec![key.to_string()])
        }
    };
    output.show(&Exported { out: out.to_owned(), version: dir.version().id(), class, n_tensors, conditions });
    Ok(true)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "reference   {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "model       {}, saved by {}", self.model, self.saved_by)?;
        writeln!(f, "genes       {}", self.n_genes)?;
        writeln!(f, "conditions  {}", self.conditions.len())?;
        self.conditions.iter().try_for_each(|key| writeln!(f, "  {key}"))
    }
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "folder      {}", self.out.display())?;
        writeln!(f, "class       scarches.models.{}, as of scArches 0.6.1", self.class)?;
        writeln!(f, "tensors     {}", self.n_tensors)?;
        write!(f, "conditions  {}", self.conditions.join(", "))
    }
}
