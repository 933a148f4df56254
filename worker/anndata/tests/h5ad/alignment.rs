//! Gene alignment against the numbers of scvi-tools' `prepare_query_anndata`.

use std::fs;

use archipelago_anndata::{
    Csr,
    align::{Duplicates, align},
};
use safetensors::SafeTensors;

#[test]
fn genes_align_as_upstream() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/gene_alignment");
    let case: serde_json::Value = serde_json::from_slice(&fs::read(format!("{folder}.json")).unwrap()).unwrap();
    let genes = |key: &str| -> Vec<String> { serde_json::from_value(case[key].clone()).unwrap() };
    let bytes = fs::read(format!("{folder}.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let matrix = |name: &str| -> Csr {
        let tensor = tensors.tensor(name).unwrap();
        let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Csr::from_dense(tensor.shape()[0], tensor.shape()[1], &values).unwrap()
    };
    let alignment = align(&genes("query_genes"), &genes("reference_genes"), Duplicates::Refuse).unwrap();
    assert_eq!(alignment.apply(&matrix("x")).unwrap(), matrix("aligned"));
    assert_eq!(alignment.coverage(), case["found_fraction"].as_f64().unwrap());
    assert_eq!(genes("aligned_genes"), genes("reference_genes"));
}
