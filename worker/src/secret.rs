//! The site's secret, and what it keys: Gaussian noise for columns that leave, drawn anew for no one, ids of batches, and names of sets
//! of cells.
//!
//! A site that submits the same columns twice, after a restart say, must add the same noise twice: whoever saw two draws
//! could average them away. So the noise is a function of the columns, their key and a secret that stays at the site. The same name is
//! called by the same id as long as the secret is the same: it belongs into the backup of the site's folder. Its file is called
//! `noise.key`, from when it keyed nothing else.

use std::{io::ErrorKind, path::Path};

use archipelago_common::{
    condition::{Columns, ConditionKey},
    fs,
    hash::FieldHasher,
};
use rand::{Rng as _, SeedableRng as _, TryRngCore as _, rngs::OsRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::StandardNormal;

use crate::{
    error::{Error, Result},
    ledger::CellSet,
};

/// The site's secret: 32 random bytes.
#[derive(Clone)]
pub struct SiteSecret([u8; 32]);

impl SiteSecret {
    /// The secret of the site with this state directory.
    ///
    /// # Errors  as [`Self::open`]
    pub fn of_site(state_dir: &Path) -> Result<Self> {
        Self::open(&state_dir.join(FILE))
    }

    /// Reads the secret, or makes one on the first call.
    ///
    /// # Errors  [`Error::SiteSecret`] if the file holds something else, [`Error::Common`] if it cannot be read or written
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            let mut key = [0; 32];
            OsRng.try_fill_bytes(&mut key).map_err(|_| Error::SiteSecret {
                path: path.into(),
                detail: "the system gives no random bytes".to_owned(),
            })?;
            make(path, &key)?;
        }
        let bytes = fs::read_bounded(path, KEY_BYTES + 1)?;
        let detail = format!("it has {} bytes, expected {KEY_BYTES}", bytes.len());
        bytes.try_into().map(Self).map_err(|_| Error::SiteSecret { path: path.into(), detail })
    }

    /// A set of cells, by a digest that only who has the secret can make: names of cells can be guessed.
    pub fn cell_set<'a>(&self, names: impl Iterator<Item = &'a str>) -> CellSet {
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        let mut digest = FieldHasher::new("archipelago/cells/1");
        digest.field(&self.0);
        for name in &names {
            digest.field(name.as_bytes());
        }
        CellSet { digest: digest.finish(), n_cells: names.len() as u64 }
    }

    /// What a consortium calls a batch, or a name on a further axis, instead of its name: always the same, and nothing to guess it by
    /// without the secret.
    pub fn id_of(&self, key: &ConditionKey) -> String {
        let mut id = FieldHasher::new("archipelago/batch/1");
        id.field(&self.0).field(key.to_string().as_bytes());
        id.finish().to_string()[..ID_CHARS].to_owned()
    }

    /// A stream of normal numbers of mean 0 for these columns; zeros for a standard deviation of 0.
    pub(crate) fn normal(&self, key: &ConditionKey, columns: &Columns, std: f64) -> Noise {
        let mut seed = FieldHasher::new("archipelago/noise/1");
        seed.field(&self.0).field(key.to_string().as_bytes()).field(columns.0.digest().as_bytes());
        Noise { generator: ChaCha20Rng::from_seed(*seed.finish().as_bytes()), std }
    }
}

// A secret is not shown.
impl std::fmt::Debug for SiteSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SiteSecret")
    }
}

/// A stream of normal numbers.
pub(crate) struct Noise {
    generator: ChaCha20Rng,
    std: f64,
}

impl Noise {
    pub(crate) fn next(&mut self) -> f64 {
        if self.std == 0.0 { 0.0 } else { self.std * self.generator.sample::<f64, _>(StandardNormal) }
    }
}

/// Name of the secret's file in the state directory.
const FILE: &str = "noise.key";
const KEY_BYTES: u64 = 32;
/// Eighty bits: a million batches meet by chance once in a trillion sites.
const ID_CHARS: usize = 20;

/// Keeps a new secret, unless another process has made one meanwhile: then that one counts.
fn make(path: &Path, key: &[u8; 32]) -> Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    fs::write_atomic(&new, key)?;
    let linked = std::fs::hard_link(&new, path);
    // What is left of it is untidy, and private.
    let _ = std::fs::remove_file(&new);
    match linked {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => {
            Err(Error::File { action: "create", path: path.into(), source })
        }
        _ => Ok(fs::sync_dir(path.parent().unwrap_or(Path::new(".")))?),
    }
}

#[cfg(test)]
mod tests {
    use archipelago_common::state_dict::{StateDict, Tensor};

    use super::*;

    fn columns(values: &[f32]) -> Columns {
        Columns(StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[values.len()], values))]))
    }

    fn draw(key: &SiteSecret, condition: &str, values: &[f32]) -> Vec<f64> {
        let mut noise = key.normal(&condition.parse().unwrap(), &columns(values), 2.0);
        (0..1000).map(|_| noise.next()).collect()
    }

    #[test]
    fn the_same_columns_get_the_same_noise_and_no_others_do() {
        let key = SiteSecret([7; 32]);
        let first = draw(&key, "s/d/a", &[1.0]);
        assert_eq!(first, draw(&key, "s/d/a", &[1.0]));
        assert_ne!(first, draw(&key, "s/d/b", &[1.0]));
        assert_ne!(first, draw(&key, "s/d/a", &[1.5]));
        assert_ne!(first, draw(&SiteSecret([8; 32]), "s/d/a", &[1.0]));
    }

    #[test]
    fn a_set_of_cells_is_the_same_in_any_order_and_under_one_secret_only() {
        let set = |key: u8, names: &[&str]| SiteSecret([key; 32]).cell_set(names.iter().copied());
        assert_eq!(set(7, &["a", "b"]), set(7, &["b", "a"]));
        assert_ne!(set(7, &["a", "b"]).digest, set(7, &["ab"]).digest);
        assert_ne!(set(7, &["a", "b"]).digest, set(8, &["a", "b"]).digest);
    }

    #[test]
    fn a_batch_has_one_id_under_one_secret_and_another_in_another_place() {
        let id = |key: u8, name: &str| SiteSecret([key; 32]).id_of(&name.parse().unwrap());
        assert_eq!(id(7, "s/d/mary smith"), id(7, "s/d/mary smith"));
        assert_eq!(id(7, "s/d/mary smith").len(), ID_CHARS);
        for (secret, other) in
            [(8, "s/d/mary smith"), (7, "s/d/m. smith"), (7, "s/e/mary smith"), (7, "s/d@donor/mary smith")]
        {
            assert_ne!(id(7, "s/d/mary smith"), id(secret, other));
        }
    }

    #[test]
    fn two_who_make_it_at_once_have_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("noise.key");
        make(&path, &[1; 32]).unwrap();
        make(&path, &[2; 32]).unwrap();
        assert_eq!(SiteSecret::open(&path).unwrap().0, [1; 32]);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!((mode & 0o777, std::fs::read_dir(dir.path()).unwrap().count()), (0o600, 1));
    }

    #[test]
    fn noise_has_the_standard_deviation_asked_for() {
        let draws = draw(&SiteSecret([7; 32]), "s/d/a", &[1.0]);
        let mean = draws.iter().sum::<f64>() / 1000.0;
        let std = (draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1000.0).sqrt();
        assert!(mean.abs() < 0.2 && (std - 2.0).abs() < 0.15, "mean {mean}, std {std}");
    }

    #[test]
    fn a_key_is_made_once_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("noise.key");
        let made = SiteSecret::open(&path).unwrap();
        assert_eq!(made.0, SiteSecret::open(&path).unwrap().0);
        std::fs::write(&path, [0; 31]).unwrap();
        assert!(matches!(SiteSecret::open(&path), Err(Error::SiteSecret { .. })));
    }
}
