//! Compound datasets: the `obs` and `var` of the oldest files, and record arrays in `uns`.
//!
//! The HDF5 crate reads compounds into structs known at compile time; here the fields are known at run time. HDF5 itself
//! reads any subset of a compound's fields into a memory type that names them, so each field is read by itself into a
//! type that describes a compound of just this field. The name of the field reaches the type through a thread-local.

use std::{cell::RefCell, mem::size_of};

use half::f16;
use hdf5::{
    Dataset, Group, H5Type,
    types::{CompoundField, CompoundType, FloatSize, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode},
};

use super::{dataset, failed, failed_at, unsupported};
use crate::{Array, Compression, Result, Values, values::each_number};

thread_local! {
    /// The compound of one field that is being read or written on this thread.
    static FIELD: RefCell<Option<CompoundField>> = const { RefCell::new(None) };
}

/// The bytes of one field of one record, at the start of `N` bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Bytes<const N: usize>([u8; N]);

/// One field of one record, as its own type.
#[repr(transparent)]
struct Field<T>(T);

#[expect(unsafe_code, reason = "H5Type is an unsafe trait; there is no safe way to describe a type at run time")]
// SAFETY: any bytes are a valid `[u8; N]`, and `scoped` refuses fields that are larger than `N`.
unsafe impl<const N: usize> H5Type for Bytes<N> {
    fn type_descriptor() -> TypeDescriptor {
        describe(N)
    }
}

#[expect(unsafe_code, reason = "as above")]
// SAFETY: `Field<T>` has the layout of `T`, and the field set by the callers has the type that `T` describes.
unsafe impl<T: H5Type> H5Type for Field<T> {
    fn type_descriptor() -> TypeDescriptor {
        FIELD.with_borrow_mut(|field| {
            if let Some(field) = field {
                field.ty = T::type_descriptor();
            }
        });
        describe(size_of::<T>())
    }
}

fn describe(size: usize) -> TypeDescriptor {
    let fields = FIELD.with_borrow(|field| field.iter().cloned().collect());
    TypeDescriptor::Compound(CompoundType { fields, size })
}

/// Runs `body` while the types above describe a compound of the field `name` of type `ty`.
fn scoped<R>(name: &str, ty: &TypeDescriptor, body: impl FnOnce() -> R) -> R {
    FIELD.set(Some(CompoundField::new(name, ty.clone(), 0, 0)));
    let result = body();
    FIELD.set(None);
    result
}

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
    let mut fields: Vec<&CompoundField> = compound.fields.iter().collect();
    fields.sort_by_key(|field| field.index);
    fields.into_iter().map(|field| Ok((field.name.clone(), read_field(dataset, n, field)?))).collect()
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
    let record = TypeDescriptor::Compound(CompoundType { fields: described, size });
    let builder = parent.new_dataset_builder();
    let builder = match compression {
        Compression::Gzip(level) if n > 0 => builder.deflate(level.clamp(1, 9)),
        _ => builder,
    };
    let fail = |source| failed_at("write", parent, name, source);
    let dataset = builder.empty_as(record).packed(true).shape(n).create(name).map_err(fail)?;
    for (field, values) in fields.iter().filter(|_| n > 0) {
        write_field(&dataset, field, values)?;
    }
    Ok(dataset)
}

fn read_field(dataset: &Dataset, n: usize, field: &CompoundField) -> Result<Array> {
    let text = |texts: Result<Vec<String>>| texts.map(Array::vector);
    match &field.ty {
        TypeDescriptor::VarLenUnicode => text(read_texts::<VarLenUnicode>(dataset, field)),
        TypeDescriptor::VarLenAscii => text(read_texts::<VarLenAscii>(dataset, field)),
        TypeDescriptor::FixedArray(of, width) => {
            let bytes = read_bytes(dataset, n, field)?;
            let values = parse(dataset, field, of, &bytes)?;
            Array::matrix(n, *width, values)
        }
        ty => {
            let bytes = read_bytes(dataset, n, field)?;
            Ok(Array::vector(parse(dataset, field, ty, &bytes)?))
        }
    }
}

fn read_texts<T: H5Type + AsRef<[u8]>>(dataset: &Dataset, field: &CompoundField) -> Result<Vec<String>> {
    let raw = scoped(&field.name, &field.ty, || dataset.read_raw::<Field<T>>())
        .map_err(|source| failed("read", dataset, source))?;
    raw.iter().map(|value| dataset::decode(dataset, value.0.as_ref())).collect()
}

/// The bytes of one field of all `n` records, end to end, in this machine's byte order.
fn read_bytes(dataset: &Dataset, n: usize, field: &CompoundField) -> Result<Vec<u8>> {
    fn read<const N: usize>(dataset: &Dataset, n: usize, field: &CompoundField, size: usize) -> hdf5::Result<Vec<u8>> {
        let mut buffer = vec![Bytes([0; N]); n];
        scoped(&field.name, &field.ty, || dataset.read_into_raw(&mut buffer))?;
        Ok(buffer.iter().flat_map(|bytes| &bytes.0[..size]).copied().collect())
    }
    let size = field.ty.size();
    macro_rules! up_to {
        ($($n:literal)*) => {
            match size {
                $(..=$n => read::<$n>(dataset, n, field, size).map_err(|source| failed("read", dataset, source)),)*
                _ => Err(unsupported(dataset, format!("field `{}` of {size} bytes", field.name))),
            }
        };
    }
    up_to!(8 16 32 64 128 256 512 1024 2048 4096 8192)
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

fn write_field(dataset: &Dataset, name: &str, values: &Values) -> Result<()> {
    fn put<T: H5Type>(dataset: &Dataset, name: &str, values: impl Iterator<Item = T>) -> hdf5::Result<()> {
        let fields: Vec<Field<T>> = values.map(Field).collect();
        scoped(name, &T::type_descriptor(), || dataset.write_raw(&fields))
    }
    let written = match values {
        Values::Str(v) => put(dataset, name, dataset::vlen(dataset, v)?.into_iter()),
        Values::Bool(v) => put(dataset, name, v.iter().copied()),
        other => each_number!(other, v => put(dataset, name, v.iter().copied()), _ => unreachable!("matched above")),
    };
    written.map_err(|source| failed("write", dataset, source))
}
