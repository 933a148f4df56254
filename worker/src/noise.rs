//! The site's secret, and what it keys: Gaussian noise for columns that leave, drawn anew for no one, and names of sets of cells.
//!
//! A site that submits the same columns twice, after a restart say, must add the same noise twice: whoever saw two draws
//! could average them away. So the noise is a function of the columns, their key and a secret that stays at the site.

use std::path::Path;

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
pub struct NoiseKey([u8; 32]);

impl NoiseKey {
    /// Reads the secret, or makes one on the first call.
    ///
    /// # Errors  [`Error::NoiseKey`] if the file holds something else, [`Error::Common`] if it cannot be read or written
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            let mut key = [0; 32];
            OsRng.try_fill_bytes(&mut key).map_err(|_| Error::NoiseKey {
                path: path.into(),
                detail: "the system gives no random bytes".to_owned(),
            })?;
            fs::write_atomic(path, &key)?;
            restrict(path)?;
        }
        let bytes = fs::read_bounded(path, KEY_BYTES + 1)?;
        let detail = format!("it has {} bytes, expected {KEY_BYTES}", bytes.len());
        bytes.try_into().map(Self).map_err(|_| Error::NoiseKey { path: path.into(), detail })
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

    /// A stream of normal numbers of mean 0 for these columns; zeros for a standard deviation of 0.
    pub(crate) fn normal(&self, key: &ConditionKey, columns: &Columns, std: f64) -> Noise {
        let mut seed = FieldHasher::new("archipelago/noise/1");
        seed.field(&self.0).field(key.to_string().as_bytes()).field(columns.0.digest().as_bytes());
        Noise { generator: ChaCha20Rng::from_seed(*seed.finish().as_bytes()), std }
    }
}

// A secret is not shown.
impl std::fmt::Debug for NoiseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NoiseKey")
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

const KEY_BYTES: u64 = 32;

#[cfg(unix)]
fn restrict(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|source| Error::File {
        action: "restrict",
        path: path.into(),
        source,
    })
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use archipelago_common::state_dict::{StateDict, Tensor};

    use super::*;

    fn columns(values: &[f32]) -> Columns {
        Columns(StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[values.len()], values))]))
    }

    fn draw(key: &NoiseKey, condition: &str, values: &[f32]) -> Vec<f64> {
        let mut noise = key.normal(&condition.parse().unwrap(), &columns(values), 2.0);
        (0..1000).map(|_| noise.next()).collect()
    }

    #[test]
    fn the_same_columns_get_the_same_noise_and_no_others_do() {
        let key = NoiseKey([7; 32]);
        let first = draw(&key, "s/d/a", &[1.0]);
        assert_eq!(first, draw(&key, "s/d/a", &[1.0]));
        assert_ne!(first, draw(&key, "s/d/b", &[1.0]));
        assert_ne!(first, draw(&key, "s/d/a", &[1.5]));
        assert_ne!(first, draw(&NoiseKey([8; 32]), "s/d/a", &[1.0]));
    }

    #[test]
    fn a_set_of_cells_is_the_same_in_any_order_and_under_one_secret_only() {
        let set = |key: u8, names: &[&str]| NoiseKey([key; 32]).cell_set(names.iter().copied());
        assert_eq!(set(7, &["a", "b"]), set(7, &["b", "a"]));
        assert_ne!(set(7, &["a", "b"]).digest, set(7, &["ab"]).digest);
        assert_ne!(set(7, &["a", "b"]).digest, set(8, &["a", "b"]).digest);
    }

    #[test]
    fn noise_has_the_standard_deviation_asked_for() {
        let draws = draw(&NoiseKey([7; 32]), "s/d/a", &[1.0]);
        let mean = draws.iter().sum::<f64>() / 1000.0;
        let std = (draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1000.0).sqrt();
        assert!(mean.abs() < 0.2 && (std - 2.0).abs() < 0.15, "mean {mean}, std {std}");
    }

    #[test]
    fn a_key_is_made_once_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("noise.key");
        let made = NoiseKey::open(&path).unwrap();
        assert_eq!(made.0, NoiseKey::open(&path).unwrap().0);
        std::fs::write(&path, [0; 31]).unwrap();
        assert!(matches!(NoiseKey::open(&path), Err(Error::NoiseKey { .. })));
    }
}
