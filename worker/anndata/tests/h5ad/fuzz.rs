//! Files that say something else than they should: attributes and texts replaced one by one, and bytes of a whole file. Every one
//! is read or an error.

use std::{fs, str::FromStr};

use archipelago_anndata::{AnnData, Compression, H5adFile, inspect::inspect};
use archipelago_fuzz::Fuzz;
use hdf5::{File, Group, Location, types::VarLenUnicode};

use crate::example::everything;

/// Reads a file in every way there is; one that is read whole is written and read again.
fn read(path: &std::path::Path) {
    let _ = inspect(path);
    let _ = H5adFile::open(path).and_then(|file| file.rows(None)?.read_all());
    if let Ok(adata) = AnnData::read(path) {
        let copy = path.with_file_name("copy.h5ad");
        if adata.write(&copy, Compression::None).is_ok() {
            AnnData::read(&copy).expect("what was written is read");
        }
    }
}

/// Groups and datasets below one, itself included.
fn objects(group: &Group, found: &mut Vec<Location>) {
    found.push((**group).clone());
    for name in group.member_names().unwrap() {
        match group.group(&name) {
            Ok(inner) => objects(&inner, found),
            Err(_) => found.push((**group.dataset(&name).unwrap()).clone()),
        }
    }
}

/// The words that attributes of h5ad files say, and some that none should.
const WORDS: [&str; 16] = [
    "dataframe",
    "categorical",
    "csr_matrix",
    "csc_matrix",
    "array",
    "string-array",
    "dict",
    "rec-array",
    "nullable-integer",
    "nullable-boolean",
    "awkward-array",
    "null",
    "0.1.0",
    "",
    "index",
    "../../obs",
];

/// Replaces one attribute: by a text, by a number, by a list of either, or by nothing.
fn replace(object: &Location, name: &str, choice: &[u8]) -> hdf5::Result<()> {
    let at = |i: usize| usize::from(*choice.get(i).unwrap_or(&0));
    let word = |i: usize| VarLenUnicode::from_str(WORDS[at(i) % WORDS.len()]).unwrap();
    let number = |i: usize| [0, 1, -1, 3, 4, i64::MAX, i64::MIN, 1 << 40][at(i) % 8];
    object.delete_attr(name)?;
    match at(2) % 6 {
        0 => Ok(()),
        1 => object.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&word(3)),
        2 => object.new_attr::<i64>().create(name)?.write_scalar(&number(3)),
        3 => object.new_attr::<i64>().shape(2).create(name)?.write_raw(&[number(3), number(4)]),
        4 => object.new_attr::<f64>().shape([0]).create(name).map(drop),
        _ => object.new_attr::<VarLenUnicode>().shape(3).create(name)?.write_raw(&[word(3), word(4), word(5)]),
    }
}

#[test]
fn any_attribute_may_say_anything() {
    let folder = tempfile::tempdir().unwrap();
    let (good, path) = (folder.path().join("good.h5ad"), folder.path().join("a.h5ad"));
    everything().write(&good, Compression::None).unwrap();
    // The input chooses object, attribute and what it says instead.
    Fuzz::new("attributes").with([3, 1, 2, 5, 7, 9, 11, 2]).within(64 << 20, 256).run(150, |choice| {
        fs::copy(&good, &path).unwrap();
        let file = File::open_rw(&path).unwrap();
        let mut found = Vec::new();
        objects(&file.group("/").unwrap(), &mut found);
        for choice in choice.chunks(6).take(2) {
            let object = &found[usize::from(choice[0]).wrapping_mul(7) % found.len()];
            let names = object.attr_names().unwrap();
            let name = names.get(usize::from(*choice.get(1).unwrap_or(&0)) % names.len().max(1));
            if let Some(name) = name {
                replace(object, name, choice).unwrap();
            }
        }
        drop(found);
        file.close().unwrap();
        read(&path);
    });
}

#[test]
fn any_text_of_a_file_may_be_any_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (good, path) = (folder.path().join("good.h5ad"), folder.path().join("a.h5ad"));
    everything().write(&good, Compression::None).unwrap();
    let good = fs::read(good).unwrap();
    // Texts stand in global heaps, each after its length; what is between two headers is the texts' own.
    let heap = good.windows(8).position(|bytes| bytes == b"GCOL\x01\0\0\0").unwrap();
    let texts = heap + 32..heap + 4096;
    Fuzz::new("texts").with(good[texts.clone()].to_vec()).within(64 << 20, 256).run(150, |input| {
        let mut bytes = good.clone();
        let n = input.len().min(texts.len());
        bytes[texts.start..texts.start + n].copy_from_slice(&input[..n]);
        fs::write(&path, bytes).unwrap();
        read(&path);
    });
}
