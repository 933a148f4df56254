//! `filtered_feature_bc_matrix.h5` of Cell Ranger 3 and later, and `filtered_gene_bc_matrices_h5.h5` before.

use hdf5::{File, Group};

use super::Features;
use crate::{
    Error, Layout, Matrix, Result, h5,
    read::{element, matrix},
};

/// Reads a file; `None` where it is of another kind.
pub(super) fn read(file: &File) -> Result<Option<Features>> {
    let root = h5::group(file, "/")?;
    let mut held = Vec::new();
    for name in h5::names(&root)? {
        // Whether anything else of the file can be read is for others to find out.
        if h5::is_group(&root, &name).unwrap_or(false) && holds_counts(&h5::group(&root, &name)?) {
            held.push(name);
        }
    }
    match &*held {
        [] => Ok(None),
        [name] => of_group(&h5::group(&root, name)?, name).map(Some),
        // Before version 3 there was a group for each genome.
        several => Err(Error::Unsupported {
            object: "/".to_owned(),
            path: file.filename().into(),
            detail: format!("counts of several genomes ({})", several.join(", ")),
        }),
    }
}

fn holds_counts(group: &Group) -> bool {
    ["barcodes", "data", "indices", "indptr", "shape"].iter().all(|name| group.link_exists(name))
}

fn of_group(group: &Group, name: &str) -> Result<Features> {
    let texts = |group: &Group, name: &str| Ok(element::vector(&h5::dataset::open(group, name)?)?.to_strings());
    let shape = element::vector(&h5::dataset::open(group, "shape")?)?.to_i64().unwrap_or_default();
    let shape: Vec<usize> = shape.into_iter().filter_map(|n| n.try_into().ok()).collect();
    let [n_features, n_cells] = shape[..] else {
        return Err(h5::malformed(group, format!("`shape` is {shape:?}, expected features and cells")));
    };
    // Columns of features × cells are rows of cells × features.
    let counts = matrix::sparse_parts(group, Layout::Csr, &[n_cells, n_features])?.read(group)?;
    let barcodes = texts(group, "barcodes")?;
    let features = match group.link_exists("features") {
        true => {
            let of = h5::group(group, "features")?;
            let genomes = if of.link_exists("genome") { texts(&of, "genome")? } else { Vec::new() };
            let (names, ids, types) = (texts(&of, "name")?, texts(&of, "id")?, texts(&of, "feature_type")?);
            Features { counts: Matrix::Sparse(counts), barcodes, names, ids, types, genomes }
        }
        false => {
            let (names, ids) = (texts(group, "gene_names")?, texts(group, "genes")?);
            let genomes = vec![name.to_owned(); n_features];
            Features { counts: Matrix::Sparse(counts), barcodes, names, ids, types: Vec::new(), genomes }
        }
    };
    for (what, found, expected) in [
        ("barcodes", features.barcodes.len(), n_cells),
        ("names of features", features.names.len(), n_features),
        ("ids of features", features.ids.len(), n_features),
    ] {
        if found != expected {
            return Err(h5::malformed(group, format!("{found} {what}, expected {expected} by `shape`")));
        }
    }
    Ok(features)
}
