//! Cell Ranger's own files are read like h5ad files: by rows, whole, and with what a copy keeps.

use std::{fs, io::Write as _, path::Path};

use archipelago_anndata::{AnnData, Compression, Element, H5adFile};
use flate2::{Compression as Level, write::GzEncoder};
use hdf5::{File, Group, types::VarLenUnicode};

/// Two genes of one name, an antibody between them; three cells.
const NAMES: [&str; 4] = ["CD3D", "CD3", "LYZ", "CD3D"];
const IDS: [&str; 4] = ["ENSG1", "CD3_TotalSeq", "ENSG2", "ENSG3"];
const TYPES: [&str; 4] = ["Gene Expression", "Antibody Capture", "Gene Expression", "Gene Expression"];
const BARCODES: [&str; 3] = ["AAAC-1", "AAAG-1", "AAAT-1"];
/// Cells × features.
const COUNTS: [[i32; 4]; 3] = [[1, 20, 0, 2], [0, 0, 0, 0], [0, 3, 7, 0]];

fn texts(group: &Group, name: &str, values: &[&str]) {
    let values: Vec<VarLenUnicode> = values.iter().map(|value| value.parse().unwrap()).collect();
    group.new_dataset_builder().with_data(&values).create(name).unwrap();
}

fn numbers<T: hdf5::H5Type>(group: &Group, name: &str, values: &[T]) {
    group.new_dataset_builder().with_data(values).create(name).unwrap();
}

/// What is in a matrix: values, features, where each cell begins.
fn parts() -> (Vec<i32>, Vec<i64>, Vec<i64>) {
    let (mut data, mut indices, mut indptr) = (Vec::new(), Vec::new(), vec![0]);
    for cell in COUNTS {
        for (feature, value) in (0..).zip(cell).filter(|(_, value)| *value > 0) {
            data.push(value);
            indices.push(feature);
        }
        indptr.push(data.len() as i64);
    }
    (data, indices, indptr)
}

fn matrix(group: &Group) {
    let (data, indices, indptr) = parts();
    numbers(group, "data", &data);
    numbers(group, "indices", &indices);
    numbers(group, "indptr", &indptr);
    numbers(group, "shape", &[4, 3]);
    texts(group, "barcodes", &BARCODES);
}

fn new_file(path: &Path) {
    let file = File::create(path).unwrap();
    let group = file.create_group("matrix").unwrap();
    matrix(&group);
    let features = group.create_group("features").unwrap();
    texts(&features, "name", &NAMES);
    texts(&features, "id", &IDS);
    texts(&features, "feature_type", &TYPES);
    texts(&features, "genome", &["GRCh38", "", "GRCh38", "GRCh38"]);
}

fn compressed(path: &Path, text: &str) {
    let mut encoder = GzEncoder::new(fs::File::create(path).unwrap(), Level::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap();
}

fn folder(at: &Path) {
    let entries: Vec<String> = (1..)
        .zip(COUNTS)
        .flat_map(|(cell, counts)| (1..).zip(counts).map(move |(feature, value)| (feature, cell, value)))
        .filter(|(.., value)| *value > 0)
        .map(|(feature, cell, value)| format!("{feature} {cell} {value}\n"))
        .collect();
    let head = "%%MatrixMarket matrix coordinate integer general\n%metadata_json: {}\n";
    compressed(&at.join("matrix.mtx.gz"), &format!("{head}4 3 {}\n{}", entries.len(), entries.concat()));
    compressed(&at.join("barcodes.tsv.gz"), &format!("{}\n", BARCODES.join("\n")));
    let features: String = (0..4).map(|i| format!("{}\t{}\t{}\n", IDS[i], NAMES[i], TYPES[i])).collect();
    compressed(&at.join("features.tsv.gz"), &features);
}

/// Genes are `X`, antibodies a frame; a file by rows says the same, and so does a copy.
fn check(path: &Path) {
    let adata = AnnData::read(path).unwrap();
    assert_eq!(
        (adata.obs_names(), adata.var_names()),
        (&BARCODES.map(str::to_owned)[..], &["CD3D", "LYZ", "CD3D-1"].map(str::to_owned)[..])
    );
    assert_eq!(adata.matrix(None).unwrap().to_csr().unwrap().to_dense(), [1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 7.0, 0.0]);
    assert_eq!(adata.var.column("gene_ids").unwrap().to_strings()[2].as_deref(), Some("ENSG3"));
    let Element::Frame(antibodies) = &adata.obsm["antibody_capture"] else { panic!("{:?}", adata.obsm) };
    assert_eq!(antibodies.column("CD3").unwrap().to_f64().unwrap(), [20.0, 0.0, 3.0]);

    let file = H5adFile::open(path).unwrap();
    let copy = path.with_extension("copy.h5ad");
    file.write_cells(&[0, 2], &copy, Compression::None, |_| Ok(()), &mut |_| ()).unwrap();
    assert_eq!(AnnData::read(&copy).unwrap(), adata.select_obs(&[0, 2]).unwrap());
}

#[test]
fn a_file_of_today_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("filtered_feature_bc_matrix.h5");
    new_file(&path);
    check(&path);
    // Two at once are two.
    let (first, second) = (H5adFile::open(&path).unwrap(), H5adFile::open(&path).unwrap());
    assert_eq!(first.obs(), second.obs());
}

#[test]
fn a_folder_of_today_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("filtered_feature_bc_matrix");
    fs::create_dir(&path).unwrap();
    folder(&path);
    check(&path);
}

#[test]
fn what_was_written_before_version_3_has_genes_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("filtered_gene_bc_matrices_h5.h5");
    let file = File::create(&path).unwrap();
    let group = file.create_group("hg19").unwrap();
    matrix(&group);
    texts(&group, "gene_names", &NAMES);
    texts(&group, "genes", &IDS);
    drop((group, file));
    let of_file = AnnData::read(&path).unwrap();
    assert_eq!(of_file.var_names(), ["CD3D", "CD3", "LYZ", "CD3D-1"]);
    assert_eq!(of_file.var.column("genome").unwrap().to_strings()[0].as_deref(), Some("hg19"));

    let text = dir.path().join("hg19");
    fs::create_dir(&text).unwrap();
    fs::write(text.join("matrix.mtx"), "%%MatrixMarket matrix coordinate real general\n4 3 3\n1 1 1\n3 3 5\n3 3 2\n")
        .unwrap();
    fs::write(text.join("barcodes.tsv"), BARCODES.join("\r\n")).unwrap();
    let genes: String = (0..4).map(|i| format!("{}\t{}\n", IDS[i], NAMES[i])).collect();
    fs::write(text.join("genes.tsv"), genes).unwrap();
    let of_text = AnnData::read(&text).unwrap();
    assert_eq!(of_text.var_names(), of_file.var_names());
    assert_eq!(of_text.matrix(None).unwrap().to_csr().unwrap().row_sums(), [1.0, 0.0, 7.0]);
}

#[test]
fn what_is_wrong_with_text_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let head = "%%MatrixMarket matrix coordinate integer general\n";
    for (matrix, found) in [
        ("%%MatrixMarket matrix array real general\n", "it begins with"),
        ("%%MatrixMarket matrix coordinate integer general\n4 x 2\n", "line 2: `4 x 2`"),
        (&format!("{head}4 5 2\n"), "4 features and 5 cells, but there are 4 and 3 names"),
        (&format!("{head}4 3 2\n1 1 1\n5 1 1\n"), "line 4: `5 1 1`, expected a feature of 4"),
        (&format!("{head}4 3 2\n1 1 1\n0 1 1\n"), "line 4"),
        (&format!("{head}4 3 2\n1 1 1\n1 2 many\n"), "line 4"),
        (&format!("{head}4 3 2\n1 1 1\n"), "1 entries, expected 2"),
    ] {
        folder(dir.path());
        fs::remove_file(dir.path().join("matrix.mtx.gz")).unwrap();
        fs::write(dir.path().join("matrix.mtx"), matrix).unwrap();
        let error = AnnData::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains(found), "{matrix}: {error}");
    }
    fs::remove_file(dir.path().join("barcodes.tsv.gz")).unwrap();
    let error = AnnData::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("no such file") && error.contains("barcodes.tsv"), "{error}");
}

#[test]
fn what_would_take_far_more_memory_than_the_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path());
    compressed(&dir.path().join("barcodes.tsv.gz"), &"A\n".repeat(4 << 20));
    let error = AnnData::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("barcodes.tsv.gz") && error.contains("64 times its size"), "{error}");

    // 20,000 antibodies of 20,000 cells, none of which was seen.
    let (n, mut names) = (20_000, String::from("g\tg\tGene Expression\n"));
    names.extend((0..n).map(|i| format!("p{i}\tp{i}\tAntibody Capture\n")));
    fs::write(dir.path().join("features.tsv"), &names).unwrap();
    fs::remove_file(dir.path().join("features.tsv.gz")).unwrap();
    fs::remove_file(dir.path().join("barcodes.tsv.gz")).unwrap();
    fs::write(dir.path().join("barcodes.tsv"), (0..n).map(|i| format!("c{i}\n")).collect::<String>()).unwrap();
    let head = "%%MatrixMarket matrix coordinate integer general";
    compressed(&dir.path().join("matrix.mtx.gz"), &format!("{head}\n{} {n} 1\n1 1 1\n", n + 1));
    let error = AnnData::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("20000 features that are no genes"), "{error}");
}
