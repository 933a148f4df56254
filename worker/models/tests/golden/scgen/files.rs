//! `saved_model`: scArches' folder, read and written.

use archipelago_common::layout::Growth;
use archipelago_models::zoo::scgen::Scgen;
use serde_json::json;

use crate::runner::folder::Folder;

#[test]
fn a_saved_folder_is_read_and_written() {
    let folder = Folder::read("scgen", "saved_model");
    let (reference, again) = folder.comes_back(&Scgen);
    assert!(reference.columns.is_empty() && reference.parts.is_empty(), "the folder has no conditions and no cells");
    assert!(matches!(reference.base.card.layout.growth, Growth::NoSurgery { .. }));
    assert_eq!(again.tensors, folder.saved.tensors);
}

#[test]
fn a_folder_that_does_not_fit_together_is_refused() {
    let folder = Folder::read("scgen", "saved_model");
    assert!(folder.refused(|saved| drop(saved.genes.pop())).contains("49 gene names, and `x_dim_` is 50"));
    let lacking = folder.refused(|saved| drop(saved.attributes.remove("z_dim_")));
    assert!(lacking.contains("every model: `z_dim_` of `scgen`; "), "{lacking}");
    let wide = folder.refused(|saved| drop(saved.attributes.insert("z_dim_".to_owned(), json!(6))));
    assert!(wide.contains("is 5 columns wide, expected 6 columns"), "{wide}");
    let layers = json!([16, 8, 4]);
    let deep = folder.refused(|saved| drop(saved.attributes.insert("hidden_layer_sizes_".to_owned(), layers.clone())));
    assert!(deep.contains("`decoder.FirstL.N0.bias` is 8 columns wide, expected 4 columns"), "{deep}");
}
