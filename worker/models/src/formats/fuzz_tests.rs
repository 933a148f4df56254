//! Saved models from anybody: none ends the reader or takes more memory than its length accounts for.

use std::{
    io::{Cursor, Read as _},
    path::{Path, PathBuf},
};

use archipelago_fuzz::Fuzz;
use zip::ZipArchive;

use super::{
    pickle::{self, NdArray, Value},
    scvi_tools,
    torch::{TorchArchive, read_tensors},
};

/// Models that scvi-tools and scArches saved.
fn saved() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/import")
}

/// The archives whose pickles refer to the tensors beside them.
const MODELS: [&str; 3] = ["minimal_export_scvi/model.pt", "minimal_export_totalvi/model.pt", "scvi_v1_4_2/model.pt"];

fn archive(name: &str) -> Vec<u8> {
    std::fs::read(saved().join(name)).unwrap()
}

/// The pickle in an archive, without its sum, which no mutation would meet.
fn pickle_of(archive: &[u8]) -> Vec<u8> {
    let mut zip = ZipArchive::new(Cursor::new(archive)).unwrap();
    let at = (0..zip.len()).find(|&at| zip.by_index(at).unwrap().name().unwrap().ends_with("data.pkl")).unwrap();
    let mut bytes = Vec::new();
    zip.by_index(at).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn pickles(name: &'static str) -> Fuzz {
    let fuzz = Fuzz::new(name).with_files(saved(), ".pkl");
    MODELS.iter().fold(fuzz, |fuzz, model| fuzz.with(pickle_of(&archive(model))))
}

/// Looks at a value in every way there is, and at what is in it.
fn look(value: Value<'_>, depth: u32) {
    let _ = (value.kind(), value.scalar(), value.as_str(), value.bytes(), value.texts(), NdArray::of(value));
    let _ = (value.persistent().map(Value::kind), value.call().map(|call| call.arguments.len()));
    if depth > 0 {
        value.items().into_iter().flatten().take(8).for_each(|item| look(item, depth - 1));
        for (key, entry) in value.entries().into_iter().flatten().take(32) {
            look(key, 0);
            look(entry, depth - 1);
        }
    }
}

#[test]
fn any_pickle_is_read_as_data_or_refused() {
    pickles("pickles").run(1_500, |bytes| {
        if let Ok(pickle) = pickle::parse(bytes) {
            look(pickle.root(), 4);
            let _ = pickle.root().to_json();
        }
    });
}

#[test]
fn any_pickle_beside_good_tensors_is_a_model_or_refused() {
    let archives = MODELS.map(archive);
    // Tensors may be read as often as the archive allows.
    pickles("tensors of pickles").within(64 << 20, 256).run(1_000, |bytes| {
        let Ok(pickle) = pickle::parse(bytes) else { return };
        for archive in &archives {
            let opened = TorchArchive::new(Cursor::new(archive), Path::new("model.pt"));
            let tensors = pickle.root().get("model_state_dict").unwrap_or_else(|| pickle.root());
            let _ = read_tensors(&mut opened.unwrap(), tensors);
        }
        let _ = scvi_tools::understood(pickle.root());
    });
}

#[test]
fn any_bytes_are_an_archive_or_refused() {
    let fuzz = MODELS.iter().fold(Fuzz::new("archives"), |fuzz, model| fuzz.with(archive(model)));
    fuzz.within(64 << 20, 256).run(1_000, |bytes| drop(scvi_tools::from_bytes(bytes)));
}
