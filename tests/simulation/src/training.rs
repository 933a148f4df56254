//! Training without training: a base, and columns and contributions that are a pure function of base, key and seed.

use std::{collections::BTreeMap, sync::Arc};

use archipelago_common::{
    Base, BaseCard, BlobRef, Columns, ConditionKey, DType, Digest, Layout, Name, Section, StateDict, Tensor,
    TensorKind,
    hash::FieldHasher,
    layout::{Axis, Derivation, Owned, Rule},
    part::{self, Member},
    pool::{Pool, TableSpec, TableSpecs},
    state_dict::TensorSpec,
    tree,
};

/// The base that the operator publishes under a name, as its file. Some are longer than a chunk.
pub(crate) fn base(name: &str, layout: Layout, n_values: usize) -> Arc<[u8]> {
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
        training: BTreeMap::from([("name".to_owned(), name.into())]),
        recipe: None,
    };
    let frozen = Tensor::from_f32(&[n_values], &vec![1.0; n_values]);
    let base = Base { card, tensors: StateDict::from_iter([("frozen".to_owned(), frozen)]) };
    base.to_bytes().expect("a card of plain words is JSON").into()
}

/// A layout of trained columns and nothing else, as every reference had it once.
pub(crate) fn plain() -> Layout {
    Layout::plain(BTreeMap::from([("w".to_owned(), spec())]))
}

/// A layout of trained columns, facts, a pool, and what a tree is made of.
pub(crate) fn laid_out() -> Layout {
    let owned = |kind| Owned { spec: spec(), kind };
    let tensors = [("w", TensorKind::Trained), (SEEN, TensorKind::Fact)];
    let tensors = tensors.map(|(name, kind)| (name.to_owned(), owned(kind))).into();
    let mut layout = Layout::of_axes(vec![Axis::new(Section::Condition, tensors)]);
    layout.parts.insert(counts(), rule());
    layout.derived.insert(totals(), Derivation { function: part::SUM.parse().expect("a sound name"), part: counts() });
    tree::declare(&mut layout, tree::Sharing::Machines);
    layout
}

/// The part that sites contribute to.
pub(crate) fn counts() -> Name {
    "counts".parse().expect("the name is sound")
}

/// The value that is derived from it.
pub(crate) fn totals() -> Name {
    "totals".parse().expect("the name is sound")
}

/// What the members of the part under these keys add up to, as a file.
pub(crate) fn total<'a>(base: &Digest, keys: impl Iterator<Item = &'a ConditionKey>) -> Arc<[u8]> {
    let members = keys.filter(|key| *key.section() == Section::Part(counts()));
    let members: Vec<Member> = members.filter_map(|key| Member::from_bytes(&rule(), &member(base, key)).ok()).collect();
    part::pooled(&rule(), &members).map(|total| total.to_bytes()).unwrap_or_default().into()
}

/// How well a site keeps to facts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Facts {
    /// As they are.
    Kept,
    /// With noise, as a worker of an earlier version leaves them.
    Noised,
}

/// The columns of a condition, as their file.
pub(crate) fn columns(layout: &Layout, base: &Digest, key: &ConditionKey, seed: u64, facts: Facts) -> Arc<[u8]> {
    let digest = drawn(base, key, seed);
    let values: Vec<f32> = digest.as_bytes()[..WIDTH].iter().map(|byte| f32::from(*byte) / 255.0).collect();
    let mut tensors = StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[WIDTH], &values))]);
    if !layout.is_plain() {
        let noise = if facts == Facts::Noised { 1e-6 } else { 0.0 };
        let seen: Vec<f32> = digest.as_bytes()[..WIDTH].iter().map(|byte| f32::from(byte % 2) + noise).collect();
        tensors.insert(SEEN, Tensor::from_f32(&[WIDTH], &seen));
    }
    Columns(tensors).to_bytes().into()
}

/// Whether the facts in a file of columns are facts; there may be none.
pub(crate) fn are_facts(columns: &Columns) -> bool {
    let values = columns.0.get(SEEN).map(|seen| seen.to_f32(SEEN).unwrap_or_default());
    values.is_none_or(|values| values.iter().all(|value| *value == 0.0 || *value == 1.0))
}

/// What the cells behind a key contribute, as its file.
pub(crate) fn member(base: &Digest, key: &ConditionKey) -> Arc<[u8]> {
    let mut pool = Pool::new(tables());
    let (n, sum) = counted(base, key);
    pool.add("T cell", "n", 0, n as f64).expect("a small number fits");
    pool.add("T cell", "sum", 0, sum).expect("a small number fits");
    Member::Sums(pool).to_bytes().into()
}

/// Number of cells behind a key, and a sum over them that floats would round when it is added to others.
pub(crate) fn counted(base: &Digest, key: &ConditionKey) -> (u64, f64) {
    let digest = drawn(base, key, 0);
    let bytes = digest.as_bytes();
    let wide = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
    (u64::from(bytes[0]) + 1, f64::from(wide) * 1e3 + f64::from(bytes[5]) / 1024.0)
}

fn rule() -> Rule {
    Rule::Pool { tables: tables() }
}

fn tables() -> TableSpecs {
    BTreeMap::from([("n".to_owned(), TableSpec::counts(&[])), ("sum".to_owned(), TableSpec::sums(&[]))])
}

fn drawn(base: &Digest, key: &ConditionKey, seed: u64) -> Digest {
    let mut hasher = FieldHasher::new("archipelago/simulation/columns/1");
    hasher.field(base.as_bytes()).field(key.to_string().as_bytes()).field(&seed.to_le_bytes());
    hasher.finish()
}

fn spec() -> TensorSpec {
    TensorSpec { dtype: DType::F32, shape: vec![WIDTH] }
}

/// Names bytes.
pub(crate) fn named(bytes: Arc<[u8]>) -> (BlobRef, Arc<[u8]>) {
    (BlobRef::of(&bytes), bytes)
}

/// The tensor of facts.
const SEEN: &str = "seen";
/// Values of one condition.
const WIDTH: usize = 8;
