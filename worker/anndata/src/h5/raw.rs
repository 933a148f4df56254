//! Objects and values moved from file to file as they stand, whatever they mean: HDF5 itself knows how long a value is and
//! where its parts lie.

use std::ffi::CString;

use hdf5::{Container, Dataset, Dataspace, Group, Location, plist::ObjectCopyBuilder};
use hdf5_sys::{
    h5a::{H5Aclose, H5Acreate2, H5Aread, H5Awrite},
    h5d::H5Dwrite,
    h5i::hid_t,
    h5p::H5P_DEFAULT,
    h5t::{H5T_class_t, H5Tdetect_class, H5Treclaim},
};

use super::{bounded, dataset, failed, failed_at, malformed, unsupported};
use crate::Result;

/// Copies an object with all that is in it and beneath it. Soft links become the objects that they lead to; references, which
/// are addresses in their file, become null.
pub(crate) fn copy(from: &Group, name: &str, to: &Group, new_name: &str) -> Result<()> {
    let fail = |source| failed_at("copy", from, name, source);
    let plist = ObjectCopyBuilder::new().expand_soft_links(true).finish().map_err(fail)?;
    let object = from.loc_info_by_name(name).and_then(|info| from.open_by_token(info.token)).map_err(fail)?;
    object.copy_to_with_props(to, new_name, Some(&plist), None).map_err(fail)
}

/// Copies the attributes of an object, all but those called otherwise and those that the other object has. References are left
/// behind: they would lead nowhere.
pub(crate) fn copy_attributes(from: &Location, to: &Location, but: &[&str]) -> Result<()> {
    let known = super::attribute::names(to)?;
    for name in super::attribute::names(from)? {
        if but.contains(&&*name) || known.contains(&name) {
            continue;
        }
        let attribute = from.attr(&name).map_err(|source| failed_at("open attribute of", from, &name, source))?;
        if !has(&attribute, H5T_class_t::H5T_REFERENCE)? {
            copy_attribute(&attribute, &name, to)?;
        }
    }
    Ok(())
}

fn copy_attribute(attribute: &Container, name: &str, to: &Location) -> Result<()> {
    let fail = |source| failed_at("write attribute of", to, name, source);
    let (dtype, space) = (attribute.dtype().map_err(fail)?, attribute.space().map_err(fail)?);
    let mut buffer = super::zeroed(attribute, space.size(), dtype.size())?;
    let c_name = CString::new(name).map_err(|_| malformed(to, "an attribute's name holds a zero byte"))?;
    #[expect(unsafe_code, reason = "the HDF5 crate moves values of types known at compile time only")]
    let copied = hdf5::sync::sync(|| {
        // SAFETY: all identifiers are open for as long as the handles above live, and the buffer holds as many values as
        // the attribute's space, each of the size of its type. What HDF5 allocates for it is given back with it.
        unsafe {
            let new = H5Acreate2(to.id(), c_name.as_ptr(), dtype.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT);
            if new < 0 {
                return false;
            }
            let place = buffer.as_mut_ptr().cast();
            let moved = space.is_null()
                || (H5Aread(attribute.id(), dtype.id(), place) >= 0 && H5Awrite(new, dtype.id(), place) >= 0);
            H5Treclaim(dtype.id(), space.id(), H5P_DEFAULT, place);
            H5Aclose(new);
            moved
        }
    });
    match copied {
        true => Ok(()),
        false => Err(fail("the library could not copy it".into())),
    }
}

/// Writes the rows at `rows`, in that order, of a dataset with at least one dimension into a new one of its type, filters and
/// attributes.
///
/// # Panics
/// If a row is out of range.
pub(crate) fn copy_rows(from: &Dataset, rows: &[usize], to: &Group, name: &str) -> Result<()> {
    if has(from, H5T_class_t::H5T_REFERENCE)? {
        return Err(unsupported(from, "references to objects"));
    }
    let mut shape = dataset::shape(from)?;
    assert!(rows.iter().all(|&row| row < shape[0]), "row out of range");
    shape[0] = rows.len();
    let created = create_like(from, &shape, to, name)?;
    copy_attributes(from, &created, &[])?;
    let width: usize = shape[1..].iter().product();
    if width == 0 || rows.is_empty() {
        return Ok(());
    }
    let dtype = from.dtype().map_err(|source| failed("read", from, source))?;
    let row_bytes = width.saturating_mul(dtype.size());
    dataset::check_chunk(from)?;
    let mut at = 0;
    for span in spans(rows, (SPAN_BYTES / row_bytes.max(1)).max(1)) {
        let (first, last) = (span[0], span[span.len() - 1]);
        let read = select(from, first..last + 1)?;
        let written = select(&created, at..at + span.len())?;
        let values = bounded::read(from, &dtype, (last + 1 - first) * width, Some((&read.0, &read.1)))?;
        let mut chosen = Vec::with_capacity(span.len() * row_bytes);
        for row in span {
            chosen.extend_from_slice(&values.bytes()[(row - first) * row_bytes..][..row_bytes]);
        }
        // What `chosen` points to belongs to `values`.
        write_rows(&created, &written, &chosen, dtype.id())?;
        at += span.len();
    }
    Ok(())
}

/// A dataset of the same type and filters, and of this shape.
fn create_like(from: &Dataset, shape: &[usize], to: &Group, name: &str) -> Result<Dataset> {
    let dtype = from.dtype().map_err(|source| failed("read", from, source))?;
    let builder = to.new_dataset_builder();
    let builder = match from.chunk() {
        Some(chunk) if !shape.contains(&0) => {
            let chunk: Vec<usize> = chunk.iter().zip(shape).map(|(&chunk, &length)| chunk.min(length)).collect();
            builder.set_filters(&from.filters()).chunk(chunk)
        }
        _ => builder,
    };
    builder.empty_as(dtype).shape(shape.to_vec()).create(name).map_err(|source| failed_at("write", to, name, source))
}

/// Ascending runs of rows that lie within so many rows of the file.
fn spans(rows: &[usize], most: usize) -> impl Iterator<Item = &[usize]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let goes_on = |pair: &&[usize]| pair[0] < pair[1] && pair[1] - first < most;
        let (span, after) = rest.split_at(1 + rest.windows(2).take_while(goes_on).count());
        rest = after;
        Some(span)
    })
}

/// A selection of rows: their shape in memory, and where they lie in the file.
fn select(dataset: &Dataset, rows: std::ops::Range<usize>) -> Result<(Dataspace, Dataspace)> {
    let fail = |source| failed("read", dataset, source);
    let whole = dataset.space().map_err(fail)?;
    let mut shape = whole.shape();
    shape[0] = rows.len();
    let mut axes = vec![hdf5::SliceOrIndex::from(rows)];
    axes.resize(shape.len(), (..).into());
    let chosen = whole.select(hdf5::Hyperslab::from(axes)).map_err(fail)?;
    Ok((Dataspace::try_new(shape).map_err(fail)?, chosen))
}

fn write_rows(dataset: &Dataset, (memory, file): &(Dataspace, Dataspace), values: &[u8], dtype: hid_t) -> Result<()> {
    #[expect(unsafe_code, reason = "as above")]
    let status = hdf5::sync::sync(|| {
        // SAFETY: the identifiers are open, and the buffer holds as many values as both selections, of the size of their type.
        unsafe { H5Dwrite(dataset.id(), dtype, memory.id(), file.id(), H5P_DEFAULT, values.as_ptr().cast()) }
    });
    match status >= 0 {
        true => Ok(()),
        false => Err(failed("write", dataset, "the library could not write its rows".into())),
    }
}

/// Whether rows of a dataset can be read and mean the same in another file: there are some, their filters are at hand, and they
/// hold no references.
pub(crate) fn has_rows(dataset: &Dataset) -> Result<bool> {
    let can_be_read = dataset.filters().iter().all(hdf5::filters::Filter::is_available);
    Ok(can_be_read && !dataset::shape(dataset)?.is_empty() && !has(dataset, H5T_class_t::H5T_REFERENCE)?)
}

/// Whether the type of the values, or a part of it, is of this class.
fn has(container: &Container, class: H5T_class_t) -> Result<bool> {
    let dtype = container.dtype().map_err(|source| failed("read", container, source))?;
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: the type's identifier is open.
    let found = hdf5::sync::sync(|| unsafe { H5Tdetect_class(dtype.id(), class) });
    Ok(found > 0)
}

/// Bytes of rows that are read at a time.
const SPAN_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_in_ascending_runs_of_a_bounded_width() {
        let runs = |rows: &[usize], most| spans(rows, most).map(<[usize]>::to_vec).collect::<Vec<_>>();
        assert_eq!(runs(&[0, 1, 5, 6, 9], 6), [vec![0, 1, 5], vec![6, 9]]);
        assert_eq!(runs(&[3, 3, 1], 100), [vec![3], vec![3], vec![1]]);
        assert_eq!(runs(&[], 5), Vec::<Vec<usize>>::new());
    }
}
