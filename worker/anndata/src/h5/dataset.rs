//! Datasets (and attributes, which read alike) as arrays of one element type.

use std::{ops::Range, str::FromStr};

use hdf5::{
    Container, Dataset, Datatype, Extents, Group, H5Type, Location,
    filters::Filter,
    plist::dataset_create::Layout,
    types::{FixedAscii, FixedUnicode, FloatSize, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode},
};

use hdf5_sys::h5i::{H5I_type_t, H5Iget_type};
use ndarray::{ArrayView1, ArrayView2};

use super::{bounded, failed, failed_at, ledger, malformed, too_large, unsupported};
use crate::{Array, Compression, Error, Result, Values, values::each_number};

/// gzip makes at most 1032 bytes of one; a dataset that claims more than this per stored byte is a lie.
const MAX_EXPANSION: u64 = 1100;

/// Claims up to this many bytes are believed without storage (unwritten datasets read as their fill value).
const FREE_CLAIM: u64 = 1 << 20;

/// Longest fixed-length text that is read.
const MAX_FIXED: usize = 8192;

/// What a text takes in memory beside its own bytes: a `String` and the smallest allocation.
const TEXT_BYTES: u64 = 56;

/// Chunks up to this size are read whatever the size of their dataset.
const FREE_CHUNK: u64 = 64 << 20;

/// Largest chunk that is read at all: HDF5 takes memory for a whole one, however few of its values are wanted.
const MAX_CHUNK: u64 = 1 << 30;

/// Texts in one attribute. HDF5 reads an attribute whole and with an allocator of its own; names of columns are some hundreds.
const MAX_ATTRIBUTE_TEXTS: usize = 1 << 16;

/// Opens a dataset whose bytes are in this file and whose size is believable.
pub(crate) fn open(parent: &Group, name: &str) -> Result<Dataset> {
    let dataset = parent.dataset(name).map_err(|source| failed_at("open", parent, name, source))?;
    let plist = dataset.dcpl().map_err(|source| failed("open", &dataset, source))?;
    let external = plist.get_external().map_err(|source| failed("open", &dataset, source))?;
    if !external.is_empty() || plist.layout() == Layout::Virtual {
        let detail = "stores its values in another file";
        return Err(Error::LeavesFile { path: dataset.filename().into(), object: dataset.name(), detail });
    }
    let unknown = plist.filters().into_iter().find(|filter| !filter.is_available());
    if let Some(filter) = unknown {
        return Err(unsupported(&dataset, format!("compressed with {}", filter_name(&filter))));
    }
    check_claim(&dataset)?;
    check_chunk(&dataset)?;
    Ok(dataset)
}

/// Lengths of the axes; a scalar has none.
pub(crate) fn shape(container: &Container) -> Result<Vec<usize>> {
    Ok(container.space().map_err(|source| failed("read", container, source))?.shape())
}

/// Whether it holds nothing at all, which is how `None` is written.
pub(crate) fn is_null(container: &Container) -> Result<bool> {
    Ok(container.space().map_err(|source| failed("read", container, source))?.is_null())
}

/// Reads a whole dataset or attribute.
pub(crate) fn read_container(container: &Container) -> Result<Array> {
    let n = check_claim(container)?;
    let shape = shape(container)?;
    if is_null(container)? {
        return Ok(Array::vector(Vec::<f64>::new()));
    }
    let each = match dtype_name(container)?.as_str() {
        "str" => dtype(container)?.size() as u64 + TEXT_BYTES,
        _ => dtype(container)?.size() as u64,
    };
    ledger::enter_values(container, each.saturating_mul(n as u64))?;
    Array::new(shape, read_values(container, &Part::All(n))?)
}

fn dtype(container: &Container) -> Result<Datatype> {
    container.dtype().map_err(|source| failed("read", container, source))
}

/// How much of a dataset is read.
enum Part {
    /// No element: only the type is wanted.
    Nothing,
    /// Everything, so many elements.
    All(usize),
    /// Elements of one dimension.
    Elements(Range<usize>),
    /// Rows of two dimensions.
    Rows(Range<usize>),
}

/// No values, of the type that a dataset of numbers is read as.
pub(crate) fn no_values(dataset: &Dataset) -> Result<Values> {
    read_values(dataset, &Part::Nothing)
}

/// Elements at `range` of a one-dimensional dataset of numbers, in their own type.
pub(crate) fn elements_at(dataset: &Dataset, range: Range<usize>) -> Result<Values> {
    read_values(dataset, &Part::Elements(range))
}

/// Rows at `range` of a two-dimensional dataset of numbers, in their own type.
pub(crate) fn rows_at(dataset: &Dataset, range: Range<usize>) -> Result<Values> {
    read_values(dataset, &Part::Rows(range))
}

/// The element type, `None` for one that has no counterpart here (but may still convert to a float).
pub(crate) fn descriptor(container: &Container) -> Result<Option<TypeDescriptor>> {
    let dtype = container.dtype().map_err(|source| failed("read", container, source))?;
    Ok(dtype.to_descriptor().ok())
}

/// numpy's name of the element type, without reading a value.
pub(crate) fn dtype_name(container: &Container) -> Result<String> {
    Ok(match descriptor(container)? {
        Some(TypeDescriptor::Boolean) => "bool".into(),
        Some(
            TypeDescriptor::FixedAscii(_)
            | TypeDescriptor::FixedUnicode(_)
            | TypeDescriptor::VarLenAscii
            | TypeDescriptor::VarLenUnicode,
        ) => "str".into(),
        Some(other) => other.to_string(),
        None => "uncommon".into(),
    })
}

/// Refuses values that would be read as another type than they are stored in.
pub(crate) fn refuse_inexact(container: &Container) -> Result<()> {
    use TypeDescriptor as T;
    match descriptor(container)? {
        Some(T::Integer(_) | T::Unsigned(_) | T::Float(_) | T::Boolean) => Ok(()),
        Some(T::VarLenUnicode | T::VarLenAscii | T::FixedAscii(_) | T::FixedUnicode(_)) => Ok(()),
        Some(other) => Err(unsupported(container, format!("element type {other}"))),
        None => Err(unsupported(container, "an uncommon element type")),
    }
}

/// Numbers at `range` of a one-dimensional dataset, converted to `T`.
pub(crate) fn slice<T: H5Type>(dataset: &Container, range: Range<usize>) -> Result<Vec<T>> {
    let read = dataset.read_slice_1d::<T, _>(range).map_err(|source| failed("read", dataset, source))?;
    Ok(read.into_raw_vec_and_offset().0)
}

/// Rows at `range` of a two-dimensional dataset as row-major `f32`.
pub(crate) fn rows(dataset: &Dataset, range: Range<usize>) -> Result<Vec<f32>> {
    numbers_of_rows(dataset, range)
}

fn numbers_of_rows<T: H5Type>(dataset: &Container, range: Range<usize>) -> Result<Vec<T>> {
    let selection = hdf5::Hyperslab::from(vec![range.into(), (..).into()]);
    let read = dataset.read_slice_2d::<T, _>(selection).map_err(|source| failed("read", dataset, source))?;
    Ok(read.into_raw_vec_and_offset().0)
}

fn read_values(container: &Container, part: &Part) -> Result<Values> {
    use TypeDescriptor as T;
    Ok(match descriptor(container)? {
        Some(T::Integer(IntSize::U1)) => Values::I8(numbers(container, part)?),
        Some(T::Integer(IntSize::U2)) => Values::I16(numbers(container, part)?),
        Some(T::Integer(IntSize::U4)) => Values::I32(numbers(container, part)?),
        Some(T::Integer(IntSize::U8)) => Values::I64(numbers(container, part)?),
        Some(T::Unsigned(IntSize::U1)) => Values::U8(numbers(container, part)?),
        Some(T::Unsigned(IntSize::U2)) => Values::U16(numbers(container, part)?),
        Some(T::Unsigned(IntSize::U4)) => Values::U32(numbers(container, part)?),
        Some(T::Unsigned(IntSize::U8)) => Values::U64(numbers(container, part)?),
        Some(T::Float(FloatSize::U2)) => Values::F16(numbers(container, part)?),
        Some(T::Float(FloatSize::U4)) => Values::F32(numbers(container, part)?),
        Some(T::Float(FloatSize::U8)) => Values::F64(numbers(container, part)?),
        // Read as a number: any byte may stand in the file, but Rust's `bool` is 0 or 1.
        Some(T::Boolean) => Values::Bool(numbers::<u8>(container, part)?.into_iter().map(|b| b != 0).collect()),
        Some(T::Enum(_)) => Values::I64(numbers(container, part)?),
        Some(T::VarLenUnicode | T::VarLenAscii | T::FixedAscii(_) | T::FixedUnicode(_))
            if !matches!(part, Part::All(_)) =>
        {
            return Err(unsupported(container, "text is not read in parts"));
        }
        Some(T::VarLenUnicode) => Values::Str(variable::<VarLenUnicode>(container)?),
        Some(T::VarLenAscii) => Values::Str(variable::<VarLenAscii>(container)?),
        Some(T::FixedAscii(size)) => Values::Str(fixed(container, size, Fixed::Ascii)?),
        Some(T::FixedUnicode(size)) => Values::Str(fixed(container, size, Fixed::Unicode)?),
        Some(other) => return Err(unsupported(container, format!("element type {other}"))),
        // Extended floats have no descriptor but convert.
        None => Values::F32(numbers(container, part)?),
    })
}

/// Checks the claimed size, in the type that is stored, against what is stored, and returns the number of elements. A column of a
/// million equal codes is a thousand bytes in an honest file.
fn check_claim(container: &Container) -> Result<usize> {
    let shape = shape(container)?;
    let n = shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n));
    let size = dtype(container)?.size() as u64;
    let claimed = n.and_then(|n| (n as u64).checked_mul(size.max(1)));
    let stored = container.storage_size();
    match (n, claimed) {
        (Some(n), Some(claimed)) if claimed <= FREE_CLAIM.saturating_add(stored.saturating_mul(MAX_EXPANSION)) => Ok(n),
        _ => Err(malformed(container, format!("claims shape {shape:?} but stores {stored} bytes"))),
    }
}

/// Refuses chunks that are far larger than what is in them. A chunk of four gigabytes of which sixty values are used is some
/// megabytes in the file.
pub(super) fn check_chunk(dataset: &Dataset) -> Result<()> {
    let chunk = chunk_bytes(dataset) as u64;
    if chunk <= FREE_CHUNK {
        return Ok(());
    }
    let (n, size) = (dataset.size() as u64, dtype(dataset)?.size() as u64);
    match chunk <= n.saturating_mul(size).saturating_mul(2).min(MAX_CHUNK) {
        true => Ok(()),
        false => Err(malformed(dataset, format!("{n} values are stored in chunks of {chunk} bytes each"))),
    }
}

fn numbers<T: H5Type + Copy + Default>(container: &Container, part: &Part) -> Result<Vec<T>> {
    let n = match part {
        Part::Nothing => return Ok(Vec::new()),
        Part::All(n) => *n,
        Part::Elements(range) => return slice(container, range.clone()),
        Part::Rows(range) => return numbers_of_rows(container, range.clone()),
    };
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(n).map_err(|_| too_large(container, n))?;
    buffer.resize(n, T::default());
    container.read_into_raw(&mut buffer).map_err(|source| failed("read", container, source))?;
    Ok(buffer)
}

/// Texts of variable length.
fn variable<T: H5Type + AsRef<[u8]>>(container: &Container) -> Result<Vec<String>> {
    let n = container.size();
    if is_attribute(container) {
        if n > MAX_ATTRIBUTE_TEXTS {
            return Err(malformed(container, format!("an attribute of {n} texts, more than {MAX_ATTRIBUTE_TEXTS}")));
        }
        return texts::<T>(container);
    }
    let in_memory = Datatype::from_type::<T>().map_err(|source| failed("read", container, source))?;
    let read = bounded::read(container, &in_memory, n, None)?;
    (0..n).map(|at| decode(container, read.text(at * in_memory.size()))).collect()
}

fn is_attribute(container: &Container) -> bool {
    #[expect(unsafe_code, reason = "the HDF5 crate does not tell")]
    // SAFETY: any number may be asked for its kind.
    let kind = hdf5::sync::sync(|| unsafe { H5Iget_type(container.id()) });
    kind == H5I_type_t::H5I_ATTR
}

fn texts<T: H5Type + AsRef<[u8]>>(container: &Container) -> Result<Vec<String>> {
    let raw = container.read_raw::<T>().map_err(|source| failed("read", container, source))?;
    raw.iter().map(|bytes| decode(container, bytes.as_ref())).collect()
}

/// UTF-8, or an error: the types of the HDF5 crate trust the file's word.
pub(crate) fn decode(object: &Location, bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| malformed(object, "holds text that is not UTF-8"))
}

#[derive(Clone, Copy)]
enum Fixed {
    Ascii,
    Unicode,
}

/// Fixed-length texts through the next longer type that exists at compile time.
fn fixed(container: &Container, size: usize, kind: Fixed) -> Result<Vec<String>> {
    macro_rules! up_to {
        ($($n:literal)*) => {
            match (size, kind) {
                $((..=$n, Fixed::Ascii) => texts::<FixedAscii<$n>>(container),
                (..=$n, Fixed::Unicode) => texts::<FixedUnicode<$n>>(container),)*
                _ => Err(unsupported(container, format!("text of {size} bytes, more than {MAX_FIXED}"))),
            }
        };
    }
    up_to!(8 16 32 64 128 256 512 1024 2048 4096 8192)
}

fn filter_name(filter: &Filter) -> String {
    match filter {
        Filter::User(32000, _) => "lzf".into(),
        Filter::User(32001, _) => "blosc".into(),
        Filter::User(32015, _) => "zstd".into(),
        Filter::User(id, _) => format!("filter {id}"),
        other => format!("{other:?}"),
    }
}

/// Texts as HDF5 takes them.
pub(crate) fn vlen(object: &Location, texts: &[String]) -> Result<Vec<VarLenUnicode>> {
    texts
        .iter()
        .map(|text| VarLenUnicode::from_str(text).map_err(|_| malformed(object, "text holds a zero byte")))
        .collect()
}

/// Creates a dataset and writes an array into it.
pub(crate) fn write(parent: &Group, name: &str, array: &Array, compression: Compression) -> Result<Dataset> {
    write_values(parent, name, array.shape(), array.values(), compression)
}

/// Creates a dataset of a shape and writes values into it.
pub(crate) fn write_values(
    parent: &Group,
    name: &str,
    shape: &[usize],
    values: &Values,
    compression: Compression,
) -> Result<Dataset> {
    let written = match values {
        Values::Str(v) => {
            let texts = vlen(parent, v)?;
            put(parent, name, shape, &texts, compression)
        }
        Values::Bool(v) => put(parent, name, shape, v, compression),
        other => each_number!(other, v => put(parent, name, shape, v, compression), _ => unreachable!("matched above")),
    };
    written.map_err(|source| failed_at("write", parent, name, source))
}

/// Creates a dataset that holds nothing: Python's `None`.
pub(crate) fn write_null(parent: &Group, name: &str) -> Result<Dataset> {
    let created = parent.new_dataset::<f32>().shape(Extents::Null).create(name);
    created.map_err(|source| failed_at("write", parent, name, source))
}

/// Creates a dataset of a shape, for values of the type of `like`, to be filled by [`fill_elements`] or [`fill_rows`].
pub(crate) fn create(
    parent: &Group,
    name: &str,
    shape: &[usize],
    like: &Values,
    compression: Compression,
) -> Result<Dataset> {
    fn of<T: H5Type>(_: &[T], parent: &Group, name: &str, shape: &[usize], by: Compression) -> hdf5::Result<Dataset> {
        empty::<T>(parent, name, shape, by)
    }
    let created = match like {
        Values::Bool(v) => of(v, parent, name, shape, compression),
        other => each_number!(other, v => of(v, parent, name, shape, compression), _ => {
            return Err(unsupported(parent, "text is not written in parts"));
        }),
    };
    created.map_err(|source| failed_at("write", parent, name, source))
}

/// Writes values into a one-dimensional dataset, from element `at` on.
pub(crate) fn fill_elements(dataset: &Dataset, at: usize, values: &Values) -> Result<()> {
    fn fill<T: H5Type>(dataset: &Dataset, at: usize, values: &[T]) -> hdf5::Result<()> {
        dataset.write_slice(ArrayView1::from(values), at..at + values.len())
    }
    let filled = match values {
        Values::Bool(v) => fill(dataset, at, v),
        other => each_number!(other, v => fill(dataset, at, v), _ => return Err(unsupported(dataset, "text"))),
    };
    filled.map_err(|source| failed("write", dataset, source))
}

/// Writes rows of `n_cols` values into a two-dimensional dataset, from row `at` on.
pub(crate) fn fill_rows(dataset: &Dataset, at: usize, n_cols: usize, values: &Values) -> Result<()> {
    fn fill<T: H5Type>(dataset: &Dataset, at: usize, n_cols: usize, values: &[T]) -> hdf5::Result<()> {
        let n_rows = values.len() / n_cols;
        let rows = ArrayView2::from_shape((n_rows, n_cols), values).map_err(|error| error.to_string())?;
        dataset.write_slice(rows, hdf5::Hyperslab::from(vec![(at..at + n_rows).into(), (..).into()]))
    }
    let filled = match values {
        Values::Bool(v) => fill(dataset, at, n_cols, v),
        other => each_number!(other, v => fill(dataset, at, n_cols, v), _ => return Err(unsupported(dataset, "text"))),
    };
    filled.map_err(|source| failed("write", dataset, source))
}

fn put<T: H5Type>(
    parent: &Group,
    name: &str,
    shape: &[usize],
    values: &[T],
    compression: Compression,
) -> hdf5::Result<Dataset> {
    let dataset = empty::<T>(parent, name, shape, compression)?;
    if !values.is_empty() {
        dataset.write_raw(values)?;
    }
    Ok(dataset)
}

fn empty<T: H5Type>(parent: &Group, name: &str, shape: &[usize], compression: Compression) -> hdf5::Result<Dataset> {
    let builder = parent.new_dataset_builder();
    match compression {
        // A scalar has no chunks to compress, and an empty array nothing in them.
        Compression::Gzip(level) if !shape.is_empty() && !shape.contains(&0) => {
            let chunk = chunk_shape(shape, size_of::<T>());
            builder.deflate(level.clamp(1, 9)).empty::<T>().shape(shape.to_vec()).chunk(chunk).create(name)
        }
        _ => builder.empty::<T>().shape(shape.to_vec()).create(name),
    }
}

/// As much of a dataset as is compressed together: whole rows, and no more bytes than [`CHUNK_BYTES`].
fn chunk_shape(shape: &[usize], size: usize) -> Vec<usize> {
    let (mut chunk, mut n) = (vec![1; shape.len()], 1);
    for (take, &length) in chunk.iter_mut().zip(shape).rev() {
        *take = (CHUNK_BYTES / size.max(1) / n).clamp(1, length);
        n *= *take;
    }
    chunk
}

/// Bytes of a chunk of a dataset, 0 of one that has none.
pub(super) fn chunk_bytes(dataset: &Dataset) -> usize {
    let size = dataset.dtype().map_or(0, |dtype| dtype.size());
    dataset.chunk().map_or(0, |chunk| chunk.into_iter().fold(size, usize::saturating_mul))
}

/// Half of what HDF5 keeps uncompressed of a dataset, so that rows that end within a chunk do not cost it twice. The library's
/// own choice, 64 MiB and more, would be decompressed anew for every few rows.
const CHUNK_BYTES: usize = 512 << 10;
