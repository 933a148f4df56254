//! References that an earlier version of this program wrote: they are what they were, to the last byte.

use std::path::PathBuf;

use archipelago_common::{BlobRef, Columns, TensorKind, reference_dir::ReferenceDir};

/// Directory and version of each.
const STORED: [(&str, &str); 4] = [
    ("scvi", "9dee2a2c286258199133beaeea8e795d6ac38b92440956b3a67a4e1f108ab57d"),
    ("scvi-encoded", "84e541ec3b3e7f9dd9701a2ac60f78eb3ed9122355eb24996d5c8df14274905d"),
    ("scanvi", "96a7438e612d78413b8c95631614a151cf4dc47f5b652b0daaaa7e4afaefee79"),
    ("totalvi", "88a7e3c390f609d8d630b9783a268f7aa171b93a5983b0d91b0c846cd19319ea"),
];

#[test]
fn every_stored_reference_opens_under_the_id_it_had() {
    for (name, version) in STORED {
        assert_eq!(open(name).version().id().to_string(), version, "{name}");
    }
}

#[test]
fn what_is_read_and_written_again_is_the_same_bytes() {
    for (name, _) in STORED {
        let dir = open(name);
        let base = dir.base().unwrap();
        let (_, path) = dir.files().next().unwrap();
        assert_eq!(base.to_bytes().unwrap(), std::fs::read(path).unwrap(), "{name}");
        let columns = dir.columns().unwrap();
        assert_eq!(columns.len(), dir.version().columns.len());
        for ((key, blob), (_, path)) in dir.version().columns.iter().zip(dir.files().skip(1)) {
            let bytes = std::fs::read(path).unwrap();
            assert_eq!(Columns::from_bytes(&bytes).unwrap(), columns[key]);
            assert_eq!(BlobRef::of(&columns[key].to_bytes()), *blob, "{name}: {key}");
        }
    }
}

#[test]
fn a_card_of_format_1_is_one_axis_of_trained_tensors() {
    for (name, _) in STORED {
        let card = open(name).base().unwrap().card;
        assert_eq!((card.format, card.layout.axes.len()), (1, 1), "{name}");
        assert!(card.layout.axes[0].tensors.values().all(|owned| owned.kind == TensorKind::Trained), "{name}");
        assert!(card.layout.is_plain() && card.layout.refuses_all().is_none(), "{name}");
    }
}

fn open(name: &str) -> ReferenceDir {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/stored/references").join(name);
    ReferenceDir::open(&dir).unwrap_or_else(|error| panic!("{name}: {error}"))
}
