//! The bytes that are moved: random, and a function of seed, owner and task, so that a process that was killed makes the
//! same ones again and the audit knows what to expect.

use std::collections::BTreeMap;

use archipelago_common::{
    Base, BaseCard, Columns, ConditionKey, DType, Digest, Layout, Name, Section, SiteId, StateDict, TaskId, Tensor,
    TensorKind,
    layout::{Axis, Owned, Rule},
    part::Member,
    pool::{Pool, TableSpec, TableSpecs},
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

/// The files that a site submits for a task: one to three conditions, each with the columns of a usual model and with what its
/// cells add to a pool.
pub fn files(seed: u64, site: &SiteId, task: TaskId) -> BTreeMap<ConditionKey, Vec<u8>> {
    let dataset = Name::parse("data set name", &format!("task-{task}")).expect("a number makes a name");
    let condition = |i: u64| {
        let key = ConditionKey::new(site.clone(), dataset.clone(), format!("batch {i}")).expect("a short batch name");
        let mut rng = rng(seed, &format!("columns {site} {task} {i}"));
        let (columns, member) = (columns(&mut rng).to_bytes(), member(&mut rng).to_bytes());
        [(key.clone().in_section(counts()), member), (key, columns)]
    };
    (0..=task.0 % 3).flat_map(condition).collect()
}

/// Columns of the layout that [`base`] asks for.
pub fn columns(rng: &mut ChaCha8Rng) -> Columns {
    let values: Vec<f32> = (0..COLUMN).map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.5).collect();
    let tensor = |name: &str| (name.to_owned(), Tensor::from_f32(&[COLUMN], &values));
    let facts: Vec<f32> = values.iter().map(|value| if *value > 0.0 { 1.0 } else { 0.0 }).collect();
    let seen = ("seen".to_owned(), Tensor::from_f32(&[COLUMN], &facts));
    Columns(StateDict::from_iter([tensor("encoder"), tensor("decoder"), seen]))
}

/// What the cells of a condition add to the pool.
fn member(rng: &mut ChaCha8Rng) -> Member {
    let mut pool = Pool::new(tables());
    for label in ["B cell", "T cell"] {
        pool.add(label, "n", 0, f64::from(rng.next_u32() % 1_000)).expect("a small number fits");
        pool.add(label, "sum", 0, f64::from(rng.next_u32()) / 7.0).expect("a small number fits");
    }
    Member::Sums(pool)
}

fn tables() -> TableSpecs {
    BTreeMap::from([("n".to_owned(), TableSpec::counts(&[])), ("sum".to_owned(), TableSpec::sums(&[1]))])
}

/// Trained columns, facts, and a pool.
fn layout() -> Layout {
    let owned = |kind| Owned { spec: TensorSpec { dtype: DType::F32, shape: vec![COLUMN] }, kind };
    let kinds = [("encoder", TensorKind::Trained), ("decoder", TensorKind::Trained), ("seen", TensorKind::Fact)];
    let tensors = kinds.map(|(name, kind)| (name.to_owned(), owned(kind))).into();
    let mut layout = Layout::of_axes(vec![Axis::new(Section::Condition, tensors)]);
    if let Section::Part(part) = counts() {
        layout.parts.insert(part, Rule::Pool { tables: tables() });
    }
    layout
}

fn counts() -> Section {
    Section::Part("counts".parse().expect("a sound name"))
}

/// Embeddings, or anything else of this many bytes.
pub fn bytes(seed: u64, purpose: &str, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    rng(seed, purpose).fill_bytes(&mut bytes);
    bytes
}

/// A base whose tensors have about this many bytes.
pub fn base(seed: u64, name: &str, size: u64) -> Base {
    let layout = layout();
    let card = BaseCard {
        format: layout.card_format(),
        model: "scvi".to_owned(),
        config: BTreeMap::new(),
        genes: vec!["CD3D".to_owned(), "LYZ".to_owned()],
        batch_key: "batch".to_owned(),
        labels_key: None,
        labels: vec![],
        layout,
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
    fn a_site_that_starts_again_makes_the_same_files() {
        let site: SiteId = "north".parse().unwrap();
        let make = |seed, task| files(seed, &site, TaskId(task));
        assert_eq!(make(1, 5), make(1, 5));
        assert_ne!(make(1, 5), make(2, 5));
        assert_eq!(make(1, 5).len(), 6);
        assert!(make(1, 5).keys().all(|key| !make(1, 8).contains_key(key)), "tasks do not share keys");
    }
}
