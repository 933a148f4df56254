//! Results that are there already: they are replaced with `--overwrite` only, and that is known before any work.
//!
//! A file is a result. A directory is one when a run in it has finished ([`SUMMARY`] is written last), or when it holds a whole
//! reference that no run left on its way; what an interrupted run left is taken up by the same command.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::Path,
};

use archipelago_common::reference_dir::VERSION_FILE;

use crate::{
    error::{Error, Result},
    local, tree_dir,
};

/// What a run in a directory writes last.
pub const SUMMARY: &str = "summary.json";
/// The state of a training on its way, in the directory of its result.
pub const TRAINING: &str = "training.checkpoint";
/// Conditions of a mapping on its way, in the directory of its result.
pub const CHECKPOINTS: &str = "checkpoints";

/// What becomes of results that are there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Existing {
    /// They are an error.
    #[default]
    Refuse,
    /// They are replaced when the new ones are whole.
    Replace,
}

impl Existing {
    /// Whether a directory of results may be written: nothing finished is there, or it may be replaced.
    ///
    /// # Errors  [`Error::Exists`]
    pub fn check_dir(self, path: &Path) -> Result<()> {
        match self == Self::Refuse && is_finished(path) {
            true => Err(Error::Exists { path: path.into() }),
            false => Ok(()),
        }
    }

    /// Whether a file may be written: none is there, or it may be replaced, and its folder takes files.
    ///
    /// # Errors  [`Error::Exists`], [`Error::File`] for a folder that is not there or cannot be written to
    pub fn check_file(self, path: &Path) -> Result<()> {
        self.check_dir(path)?;
        check_folder(path)
    }
}

/// Declares a directory unfinished, just before its results are replaced: a run that is killed then is taken up.
///
/// # Errors  [`Error::File`]
pub fn begin(dir: &Path) -> Result<()> {
    [SUMMARY, VERSION_FILE, local::FILE].iter().try_for_each(|name| remove(&dir.join(name)))
}

/// Removes what a run left on its way, after its results are safe.
pub fn end(dir: &Path) {
    // What stays behind is taken up or refused by a later run, which says so.
    let _ = fs::remove_file(dir.join(TRAINING));
    let _ = fs::remove_dir_all(dir.join(CHECKPOINTS));
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::File { action: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

fn is_finished(path: &Path) -> bool {
    if !path.is_dir() {
        return path.symlink_metadata().is_ok();
    }
    let has = |name: &str| path.join(name).exists();
    let is_on_its_way = has(TRAINING) || has(CHECKPOINTS);
    let is_whole = has(SUMMARY) || has(tree_dir::TREE) || MODELS.iter().any(|name| has(name));
    is_whole || (has(VERSION_FILE) && !is_on_its_way)
}

/// Makes a file beside the result, as writing it will, and removes it.
fn check_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let probe = folder.join(format!(".archipelago-{}.probe", std::process::id()));
    let made = File::options().write(true).create_new(true).open(&probe);
    made.map_err(|source| Error::File { action: "write", path: path.into(), source })?;
    fs::remove_file(&probe).map_err(|source| Error::File { action: "remove", path: probe, source })
}

/// Files of exported models and adaptors: those of scvi-tools, and those of scArches' own.
const MODELS: [&str; 3] = ["model.pt", "model_params.pt", "adapt_params.pkl"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_finished_is_refused_and_what_is_on_its_way_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| matches!(Existing::Refuse.check_dir(path), Err(Error::Exists { .. }));
        let (file, out) = (dir.path().join("a.h5ad"), dir.path().join("out"));
        assert!(!refused(&file) && !refused(&out));
        fs::write(&file, "").unwrap();
        assert!(refused(&file));
        assert!(matches!(Existing::Refuse.check_file(&file), Err(Error::Exists { .. })));
        Existing::Replace.check_file(&file).unwrap();

        fs::create_dir(&out).unwrap();
        fs::write(out.join("notes.txt"), "").unwrap();
        assert!(!refused(&out), "a user's own folder is no result");
        fs::write(out.join(TRAINING), "").unwrap();
        fs::write(out.join(VERSION_FILE), "").unwrap();
        assert!(!refused(&out));
        fs::write(out.join(SUMMARY), "").unwrap();
        assert!(refused(&out));
        fs::remove_file(out.join(SUMMARY)).unwrap();
        fs::remove_file(out.join(TRAINING)).unwrap();
        assert!(refused(&out), "a reference that was fetched");
        fs::write(out.join(SUMMARY), "").unwrap();
        begin(&out).unwrap();
        assert!(!refused(&out), "one that is being replaced");
        fs::write(out.join(TRAINING), "").unwrap();
        end(&out);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "the user's own file");
    }

    #[test]
    fn a_folder_that_is_not_there_is_known_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Existing::Refuse.check_file(&dir.path().join("nowhere/a.csv")).unwrap_err();
        assert!(matches!(refused, Error::File { .. }), "{refused:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
