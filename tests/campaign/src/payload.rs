//! The bytes that are moved: random, and a function of seed, owner and task, so that a process that was killed makes the
//! same ones again and the audit knows what to expect.

use std::collections::BTreeMap;

use archipelago_common::{
    Base, BaseCard, Columns, ConditionKey, DType, Digest, Layout, Name, SiteId, StateDict, TaskId, Tensor,
    state_dict::TensorSpec,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};

/// Random numbers for one purpose.
pub fn rng(seed: u64, purpose: &str) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(*Digest::of(format!("{seed} {purpose}").as_bytes()).as_bytes())
}

/// A number below `bound`, which is not 0.
pub fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    rng.next_u64() % bound
}

/// The conditions that a site submits for a task: one to three, each with the columns of a usual model.
pub fn conditions(seed: u64, site: &SiteId, task: TaskId) -> BTreeMap<ConditionKey, Columns> {
    let dataset = Name::parse("data set name", &format!("task-{task}")).expect("a number makes a name");
    let condition = |i: u64| {
        let key = ConditionKey::new(site.clone(), dataset.clone(), format!("batch {i}")).expect("a short batch name");
        (key, columns(&mut rng(seed, &format!("columns {site} {task} {i}"))))
    };
    (0..=task.0 % 3).map(condition).collect()
}

/// Columns of the layout that [`base`] asks for.
pub fn columns(rng: &mut ChaCha8Rng) -> Columns {
    let values: Vec<f32> = (0..COLUMN).map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.5).collect();
    let tensor = |name: &str| (name.to_owned(), Tensor::from_f32(&[COLUMN], &values));
    Columns(StateDict::from_iter([tensor("encoder"), tensor("decoder")]))
}

/// Embeddings, or anything else of this many bytes.
pub fn bytes(seed: u64, purpose: &str, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    rng(seed, purpose).fill_bytes(&mut bytes);
    bytes
}

/// A base whose tensors have about this many bytes.
pub fn base(seed: u64, name: &str, size: u64) -> Base {
    let spec = || TensorSpec { dtype: DType::F32, shape: vec![COLUMN] };
    let card = BaseCard {
        format: BaseCard::PLAIN_FORMAT,
        model: "scvi".to_owned(),
        config: BTreeMap::new(),
        genes: vec!["CD3D".to_owned(), "LYZ".to_owned()],
        batch_key: "batch".to_owned(),
        labels_key: None,
        labels: vec![],
        layout: Layout::plain(BTreeMap::from([("encoder".to_owned(), spec()), ("decoder".to_owned(), spec())])),
        moves_embedding: true,
        training: BTreeMap::new(),
        recipe: None,
    };
    let weights = bytes(seed, &format!("base {name}"), size);
    let weight = Tensor::new("weight", DType::U8, vec![weights.len()], weights).expect("one byte for each element");
    Base { card, tensors: StateDict::from_iter([("weight".to_owned(), weight)]) }
}

/// Numbers in one column: a layer of the usual width.
const COLUMN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_that_starts_again_makes_the_same_columns() {
        let site: SiteId = "north".parse().unwrap();
        let make = |seed, task| conditions(seed, &site, TaskId(task));
        assert_eq!(make(1, 5), make(1, 5));
        assert_ne!(make(1, 5), make(2, 5));
        assert_eq!(make(1, 5).len(), 3);
        assert!(make(1, 5).keys().all(|key| !make(1, 8).contains_key(key)), "tasks do not share keys");
    }
}
