//! Seeds for every purpose, all derived from one seed and a name.

use archipelago_common::hash::FieldHasher;

/// Derives independent generator seeds: what is drawn depends on the task's seed, the name of what is trained (a condition key) and
/// the purpose, never on what else the process does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seeds {
    seed: u64,
    name: String,
}

impl Seeds {
    /// Seeds for something of this name.
    pub fn new(seed: u64, name: impl Into<String>) -> Self {
        Self { seed, name: name.into() }
    }

    /// The seed for a purpose, such as `order` or `noise`, in one round of it.
    pub fn of(&self, purpose: &str, round: u64) -> [u8; 32] {
        let mut hasher = FieldHasher::new("archipelago/seed/1");
        hasher.field(&self.seed.to_le_bytes()).field(self.name.as_bytes());
        hasher.field(purpose.as_bytes()).field(&round.to_le_bytes());
        *hasher.finish().as_bytes()
    }

    /// A 32-bit seed for numpy's legacy generator.
    pub fn numpy(&self) -> u32 {
        let seed = self.of("split", 0);
        u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]])
    }
}
