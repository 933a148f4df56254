//! Compound datasets: the `obs` and `var` of the oldest files, and record arrays in `uns`.
//!
//! The HDF5 crate reads compounds into structs known at compile time; here the fields are known at run time. All records are
//! moved at once, as bytes in a memory type without gaps, and taken apart here: HDF5 compares the names of two compounds with
//! each other, so that a read for each of a thousand fields takes minutes.

use half::f16;
use hdf5::{
    Dataset, Datatype, Group, H5Type,
    types::{CompoundField, CompoundType, FloatSize, IntSize, TypeDescriptor, VarLenUnicode},
};

use super::{bounded, dataset, failed, failed_at, ledger, unsupported};
use crate::{Array, Compression, Result, Values, values::each_number};

/// The compound type of a dataset, `None` if its elements are not records.
pub(crate) fn compound(dataset: &Dataset) -> Result<Option<CompoundType>> {
    Ok(match dataset::descriptor(dataset)? {
        Some(TypeDescriptor::Compound(compound)) => Some(compound),
        _ => None,
    })
}

/// Reads a one-dimensional compound dataset field by field.
///
/// A field is a vector over the records, or a matrix where it is an array itself (the oldest `obsm`).
pub(crate) fn read(dataset: &Dataset, compound: &CompoundType) -> Result<Vec<(String, Array)>> {
    let shape = dataset::shape(dataset)?;
    let [n] = shape[..] else {
        return Err(unsupported(dataset, format!("records of shape {shape:?}, expected one dimension")));
    };
    if let Some(wide) = compound.fields.iter().find(|field| field.ty.size() > MAX_FIELD) {
        return Err(unsupported(dataset, format!("field `{}` of {} bytes", wide.name, wide.ty.size())));
    }
    let packed = compound.to_packed_repr();
    // Once as records and once as fields.
    ledger::enter_values(dataset, (n as u64).saturating_mul(2 * packed.size as u64))?;
    let in_memory = Datatype::from_descriptor(&TypeDescriptor::Compound(packed.clone()));
    let in_memory = in_memory.map_err(|source| failed("read", dataset, source))?;
    let records = Records { dataset, raw: bounded::read(dataset, &in_memory, n, None)?, n, size: packed.size };
    packed.fields.iter().map(|field| Ok((field.name.clone(), records.field(field)?))).collect()
}

/// Writes fields of equal length as one dataset of records.
pub(crate) fn write(
    parent: &Group,
    name: &str,
    fields: &[(String, Values)],
    compression: Compression,
) -> Result<Dataset> {
    let n = fields.first().map_or(0, |(_, values)| values.len());
    let mut described = Vec::new();
    let mut size = 0;
    for (at, (field, values)) in fields.iter().enumerate() {
        let ty = element_type(values);
        described.push(CompoundField::new(field, ty.clone(), size, at));
        size += ty.size();
    }
    let offsets: Vec<usize> = described.iter().map(|field| field.offset).collect();
    let record = TypeDescriptor::Compound(CompoundType { fields: described, size });
    let builder = parent.new_dataset_builder();
    let builder = match compression {
        Compression::Gzip(level) if n > 0 => builder.deflate(level.clamp(1, 9)),
        _ => builder,
    };
    let fail = |source| failed_at("write", parent, name, source);
    let in_memory = Datatype::from_descriptor(&record).map_err(fail)?;
    let dataset = builder.empty_as(record).packed(true).shape(n).create(name).map_err(fail)?;
    if n == 0 {
        return Ok(dataset);
    }
    let mut records = super::zeroed(&dataset, n, size)?;
    // What pointers in the records point to.
    let mut texts = Vec::new();
    for ((_, values), offset) in fields.iter().zip(offsets) {
        texts.push(put(&dataset, values, &mut records, size, offset)?);
    }
    bounded::write(&dataset, &in_memory, &records)?;
    Ok(dataset)
}

/// Records that were read, end to end.
struct Records<'a> {
    dataset: &'a Dataset,
    raw: bounded::Raw,
    n: usize,
    size: usize,
}

impl Records<'_> {
    fn field(&self, field: &CompoundField) -> Result<Array> {
        match &field.ty {
            TypeDescriptor::VarLenUnicode | TypeDescriptor::VarLenAscii => {
                let text = |at| dataset::decode(self.dataset, self.raw.text(at * self.size + field.offset));
                Ok(Array::vector((0..self.n).map(text).collect::<Result<Vec<String>>>()?))
            }
            TypeDescriptor::FixedArray(of, width) => {
                Array::matrix(self.n, *width, parse(self.dataset, field, of, &self.bytes_of(field))?)
            }
            ty => Ok(Array::vector(parse(self.dataset, field, ty, &self.bytes_of(field))?)),
        }
    }

    /// The bytes of one field of all records, end to end, in this machine's byte order.
    fn bytes_of(&self, field: &CompoundField) -> Vec<u8> {
        let records = self.raw.bytes().chunks_exact(self.size.max(1));
        records.flat_map(|record| &record[field.offset..][..field.ty.size()]).copied().collect()
    }
}

/// Bytes of `ty` end to end as values.
fn parse(dataset: &Dataset, field: &CompoundField, ty: &TypeDescriptor, bytes: &[u8]) -> Result<Values> {
    use TypeDescriptor as T;
    macro_rules! native {
        ($type:ty) => {
            bytes.as_chunks().0.iter().map(|&chunk| <$type>::from_ne_bytes(chunk)).collect()
        };
    }
    Ok(match ty {
        T::Integer(IntSize::U1) => Values::I8(native!(i8)),
        T::Integer(IntSize::U2) => Values::I16(native!(i16)),
        T::Integer(IntSize::U4) => Values::I32(native!(i32)),
        T::Integer(IntSize::U8) => Values::I64(native!(i64)),
        T::Unsigned(IntSize::U1) => Values::U8(native!(u8)),
        T::Unsigned(IntSize::U2) => Values::U16(native!(u16)),
        T::Unsigned(IntSize::U4) => Values::U32(native!(u32)),
        T::Unsigned(IntSize::U8) => Values::U64(native!(u64)),
        T::Float(FloatSize::U2) => Values::F16(native!(f16)),
        T::Float(FloatSize::U4) => Values::F32(native!(f32)),
        T::Float(FloatSize::U8) => Values::F64(native!(f64)),
        T::Boolean => Values::Bool(bytes.iter().map(|&b| b != 0).collect()),
        T::FixedAscii(size) | T::FixedUnicode(size) => {
            let texts = bytes.chunks_exact((*size).max(1)).map(|text| {
                let end = text.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
                dataset::decode(dataset, &text[..end])
            });
            Values::Str(texts.collect::<Result<_>>()?)
        }
        other => return Err(unsupported(dataset, format!("field `{}` of type {other}", field.name))),
    })
}

fn element_type(values: &Values) -> TypeDescriptor {
    fn of<T: H5Type>(_: &[T]) -> TypeDescriptor {
        T::type_descriptor()
    }
    match values {
        Values::Str(_) => TypeDescriptor::VarLenUnicode,
        Values::Bool(_) => TypeDescriptor::Boolean,
        other => each_number!(other, v => of(v), _ => unreachable!("matched above")),
    }
}

/// Puts the values of one field at `offset` of each record of `size` bytes. Gives the texts that the records then point to.
fn put(
    dataset: &Dataset,
    values: &Values,
    records: &mut [u8],
    size: usize,
    offset: usize,
) -> Result<Vec<VarLenUnicode>> {
    let mut places = records.chunks_exact_mut(size).map(|record| &mut record[offset..]);
    let mut place = |bytes: &[u8]| {
        if let Some(record) = places.next() {
            record[..bytes.len()].copy_from_slice(bytes);
        }
    };
    let mut texts = Vec::new();
    match values {
        Values::Str(v) => {
            texts = dataset::vlen(dataset, v)?;
            texts.iter().for_each(|text| place(&(text.as_ptr() as usize).to_ne_bytes()));
        }
        Values::Bool(v) => v.iter().for_each(|&value| place(&[u8::from(value)])),
        other => each_number!(other, v => v.iter().for_each(|value| place(&value.to_ne_bytes())), _ => ()),
    }
    Ok(texts)
}

/// Bytes of one field that is read.
const MAX_FIELD: usize = 8192;
