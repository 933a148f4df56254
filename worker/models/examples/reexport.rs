//! Reads a model saved by scvi-tools and writes it again: `reexport <saved model> <new folder>`.
//!
//! An scVI, scANVI or totalVI model passes through a reference on the way, as it does when it is published; models that have no such
//! conversion are only read and written. `benches/peers/roundtrip.py` compares what scvi-tools makes of both.

use std::{env, error::Error, path::Path};

use archipelago_models::formats::scvi_tools::{self, Namespace, scanvi, scvi, totalvi};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [saved, folder] = arguments.as_slice() else {
        return Err("usage: reexport <saved model> <new folder>".into());
    };
    let mut model = scvi_tools::read(Path::new(saved), "")?;
    let namespace = Namespace { owner: "atlas".parse()?, dataset: "roundtrip".parse()? };
    match model.model_name.as_str() {
        "SCVI" => model = scvi::from_reference(&scvi::to_reference(&model, &namespace)?)?,
        "SCANVI" => model = scanvi::from_reference(&scanvi::to_reference(&model, &namespace)?)?,
        "TOTALVI" => model = totalvi::from_reference(&totalvi::to_reference(&model, &namespace)?)?,
        _ => {}
    }
    Ok(scvi_tools::write(&model, Path::new(folder))?)
}
