//! Tensors inside a pickle, without an archive around it.
//!
//! Python pickles a tensor that stands among other values with its storage as a string of bytes, in the form that `torch.save`
//! had before there were archives: five pickles (a magic number, a version, the machine's sizes, the storage, the list of its keys),
//! then the number of elements and the elements. Files that were written without PyTorch call `torch.tensor` on lists.

use archipelago_common::{DType, state_dict::Tensor};

use super::tensor::{STORAGES, View};
use crate::formats::pickle::{Call, Scalar, Value, parse_first};

/// The tensor that stands here, if one does and it can be read.
pub fn read_embedded(value: Value<'_>) -> Option<Tensor> {
    let Call { class, arguments, .. } = value.call()?;
    match (class, arguments.as_slice()) {
        (OF_LIST, [list, ..]) => of_list(*list),
        (REBUILD, [storage, offset, shape, strides, ..]) => {
            let (dtype, bytes) = storage_of(*storage)?;
            let n_stored = bytes.len() / dtype.size();
            let view = View::of_parts(n_stored, *offset, *shape, *strides)?;
            if !view.fits() {
                return None;
            }
            Tensor::new(NAME, dtype, view.shape().to_vec(), view.gather(&bytes, dtype.size())).ok()
        }
        _ => None,
    }
}

/// The elements of a storage that is a string of bytes.
fn storage_of(value: Value<'_>) -> Option<(DType, Vec<u8>)> {
    let Call { class, arguments, .. } = value.call()?;
    let bytes = (class == OF_BYTES).then(|| arguments.first()?.bytes())??;
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut next = || {
        let (pickle, n) = parse_first(rest).ok()?;
        rest = &rest[n..];
        Some(pickle)
    };
    let [version, _sizes, storage, _keys] = [next()?, next()?, next()?, next()?];
    if version.root().as_int() != Some(VERSION) {
        return None;
    }
    let told = storage.root().persistent()?.items()?;
    let (tag, class, n_elements) = (told.first()?.as_str()?, told.get(1)?.class()?, told.get(4)?.as_int()?);
    let (_, dtype) = STORAGES.iter().find(|(known, _)| *known == class)?;
    let (n_written, elements) = rest.split_first_chunk::<8>()?;
    let n = usize::try_from(n_elements).ok().filter(|_| tag == "storage")?;
    let is_whole = i64::from_le_bytes(*n_written) == n_elements && elements.len() == n.checked_mul(dtype.size())?;
    is_whole.then(|| (*dtype, elements.to_vec()))
}

/// Lists of lists of numbers, all of one length on each level.
fn of_list(value: Value<'_>) -> Option<Tensor> {
    let (mut shape, mut values) = (Vec::new(), Vec::new());
    flatten(value, 0, &mut shape, &mut values)?;
    Some(Tensor::from_f32(&shape, &values))
}

fn flatten(value: Value<'_>, depth: usize, shape: &mut Vec<usize>, values: &mut Vec<f32>) -> Option<()> {
    if let Some(items) = value.items() {
        if depth >= DEEPEST || values.len() > MOST_NUMBERS {
            return None;
        }
        if shape.len() == depth {
            shape.push(items.len());
        }
        if shape[depth] != items.len() {
            return None;
        }
        return items.into_iter().try_for_each(|item| flatten(item, depth + 1, shape, values));
    }
    let number = match value.scalar()? {
        Scalar::Float(number) => number as f32,
        Scalar::Int(number) => number as f32,
        Scalar::Bool(_) | Scalar::Text(_) => return None,
    };
    values.push(number);
    (depth == shape.len()).then_some(())
}

const REBUILD: &str = "torch._utils._rebuild_tensor_v2";
const OF_BYTES: &str = "torch.storage._load_from_bytes";
const OF_LIST: &str = "torch.tensor";
/// The pickle that every such string begins with: an integer of ten bytes.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// Version of the form before archives.
const VERSION: i64 = 1001;
/// Name of a tensor that has none.
const NAME: &str = "an attribute";
/// Levels of lists, and numbers in them: covariances of thousands of types.
const DEEPEST: usize = 8;
const MOST_NUMBERS: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::pickle::{PickleWriter, parse};

    fn read(write: impl FnOnce(&mut PickleWriter)) -> Option<Tensor> {
        let mut pickle = PickleWriter::default();
        write(&mut pickle);
        read_embedded(parse(&pickle.finish()).unwrap().root())
    }

    fn of_list(list: serde_json::Value) -> Option<Tensor> {
        read(|pickle| pickle.call("torch", "tensor", |arguments| arguments.json(&list)))
    }

    #[test]
    fn lists_of_one_length_are_tensors() {
        let tensor = of_list(serde_json::json!([[1, 2.5], [3, 4]])).unwrap();
        assert_eq!((tensor.shape(), tensor.to_f32("t").unwrap()), (&[2, 2][..], vec![1.0, 2.5, 3.0, 4.0]));
        assert_eq!(of_list(serde_json::json!([])).unwrap().shape(), [0]);
        for ragged in [serde_json::json!([[1], [2, 3]]), serde_json::json!([[1], 2]), serde_json::json!(["x"])] {
            assert!(of_list(ragged.clone()).is_none(), "{ragged}");
        }
        assert!(read(|pickle| pickle.int(1)).is_none());
    }
}
