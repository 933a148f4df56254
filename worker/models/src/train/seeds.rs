//! Seeds for every purpose, all derived from one seed and a name.

use archipelago_common::hash::FieldHasher;

/// Derives independent generator seeds: what is drawn depends on the task's seed, the name of what is trained (a condition key) and
/// the purpose, never on what else the process does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seeds {
    seed: u64,
    name: String,
    numpy: u32,
}

impl Seeds {
    /// Seeds for something of this name.
    pub fn new(seed: u64, name: impl Into<String>) -> Self {
        let mut seeds = Self { seed, name: name.into(), numpy: 0 };
        let split = seeds.of("split", 0);
        seeds.numpy = u32::from_le_bytes([split[0], split[1], split[2], split[3]]);
        seeds
    }

    /// The same seeds, but numpy's and PyTorch's generators get the seed itself, as when a user seeds scvi-tools: the same
    /// cells are held out and training starts from the same weights.
    #[must_use]
    pub fn as_upstream(self) -> Self {
        Self { numpy: self.seed as u32, ..self }
    }

    /// The seed for a purpose, such as `order` or `noise`, in one round of it.
    pub fn of(&self, purpose: &str, round: u64) -> [u8; 32] {
        let mut hasher = FieldHasher::new("archipelago/seed/1");
        hasher.field(&self.seed.to_le_bytes()).field(self.name.as_bytes());
        hasher.field(purpose.as_bytes()).field(&round.to_le_bytes());
        *hasher.finish().as_bytes()
    }

    /// A 32-bit seed for numpy's legacy generator and for PyTorch's.
    pub fn numpy(&self) -> u32 {
        self.numpy
    }
}
