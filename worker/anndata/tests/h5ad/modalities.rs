//! h5mu files: modalities of the same cells, each read as a data set of its own.

use archipelago_anndata::{AnnData, Compression, Csr, DataFrame, Error, H5adFile, MuData};

use crate::example::everything;

fn data(cells: &[&str], genes: &[&str], first: f32) -> AnnData {
    let n = cells.len() * genes.len();
    let values: Vec<f32> = (0..n).map(|i| first + i as f32).collect();
    let x = Csr::from_dense(cells.len(), genes.len(), &values).unwrap();
    AnnData::new(x, DataFrame::new(cells.iter().copied()), DataFrame::new(genes.iter().copied())).unwrap()
}

fn both() -> MuData {
    let rna = data(&["c1", "c2", "c3"], &["g1", "g2"], 1.0);
    let protein = data(&["c3", "c1"], &["CD3", "CD4", "CD8"], 10.0);
    MuData { modalities: [("rna".to_owned(), rna), ("prot".to_owned(), protein)].into() }
}

#[test]
fn modalities_survive_the_way_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("both.h5mu");
    both().write(&path, Compression::Gzip(4)).unwrap();
    assert_eq!(MuData::read(&path).unwrap(), both());

    let protein = H5adFile::open_modality(&path, "prot").unwrap();
    assert_eq!(protein.obs().index(), ["c3", "c1"]);
    assert_eq!(protein.rows(None).unwrap().read(1..2).unwrap().to_dense(), [13.0, 14.0, 15.0]);
    assert_eq!(protein.modalities(), ["prot", "rna"]);
    match H5adFile::open_modality(&path, "atac") {
        Err(Error::Missing { kind: "modality", name, available }) => {
            assert_eq!((name.as_str(), available.len()), ("atac", 2));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_of_one_data_set_has_no_modalities() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.h5ad");
    data(&["c1"], &["g1"], 1.0).write(&path, Compression::None).unwrap();
    assert!(H5adFile::open(&path).unwrap().modalities().is_empty());
    assert!(matches!(H5adFile::open_modality(&path, "rna"), Err(Error::Missing { .. })));
}

#[test]
fn a_file_with_a_user_block_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, blocked) = (folder.path().join("plain.h5ad"), folder.path().join("blocked.h5ad"));
    everything().write(&plain, Compression::None).unwrap();
    for block in [512, 2048] {
        // As mudata does: text, filled up with zeros.
        let mut bytes = b"MuData (format-version=0.1.0;)".to_vec();
        bytes.resize(block, 0);
        bytes.extend(std::fs::read(&plain).unwrap());
        std::fs::write(&blocked, bytes).unwrap();
        assert_eq!(AnnData::read(&blocked).unwrap(), everything());
    }
}
