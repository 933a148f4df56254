//! Training without training: a base, and columns that are a pure function of base, key and seed.

use std::{collections::BTreeMap, sync::Arc};

use archipelago_common::{
    Base, BaseCard, BlobRef, Columns, ConditionKey, DType, Digest, Layout, StateDict, Tensor, hash::FieldHasher,
    state_dict::TensorSpec,
};

/// The base that the operator publishes under a name, as its file. Some are longer than a chunk.
pub(crate) fn base(name: &str, n_values: usize) -> Arc<[u8]> {
    let spec = TensorSpec { dtype: DType::F32, shape: vec![WIDTH] };
    let card = BaseCard {
        format: BaseCard::PLAIN_FORMAT,
        model: "scvi".to_owned(),
        config: BTreeMap::new(),
        genes: vec!["CD3D".to_owned(), "LYZ".to_owned()],
        batch_key: "batch".to_owned(),
        labels_key: None,
        labels: vec![],
        layout: Layout::plain(BTreeMap::from([("w".to_owned(), spec)])),
        moves_embedding: true,
        training: BTreeMap::from([("name".to_owned(), name.into())]),
        recipe: None,
    };
    let frozen = Tensor::from_f32(&[n_values], &vec![1.0; n_values]);
    let base = Base { card, tensors: StateDict::from_iter([("frozen".to_owned(), frozen)]) };
    base.to_bytes().expect("a card of plain words is JSON").into()
}

/// The columns of a condition, as their file.
pub(crate) fn columns(base: &Digest, key: &ConditionKey, seed: u64) -> Arc<[u8]> {
    let mut hasher = FieldHasher::new("archipelago/simulation/columns/1");
    hasher.field(base.as_bytes()).field(key.to_string().as_bytes()).field(&seed.to_le_bytes());
    let digest = hasher.finish();
    let values: Vec<f32> = digest.as_bytes()[..WIDTH].iter().map(|byte| f32::from(*byte) / 255.0).collect();
    Columns(StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[WIDTH], &values))])).to_bytes().into()
}

/// Names bytes.
pub(crate) fn named(bytes: Arc<[u8]>) -> (BlobRef, Arc<[u8]>) {
    (BlobRef::of(&bytes), bytes)
}

/// Values of one condition.
const WIDTH: usize = 8;
