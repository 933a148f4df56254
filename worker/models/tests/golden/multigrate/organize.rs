//! Modalities × data sets as upstream lays them together.

use archipelago_anndata::{
    AnnData, Column, Csr, DataFrame,
    organize::{Features, MODALITY_LENGTHS, Modality, Organized},
};
use serde_json::{Value, json};

use crate::case;

/// The case that is no network.
pub(super) const CASE: &str = "organize";

/// A data set of the case: cells are called by `cells` and their number, features by `features` and theirs.
fn part(values: &Value, (cells, features): (&str, &str), layer: &Value) -> AnnData {
    let rows: Vec<Vec<f32>> = serde_json::from_value(values.clone()).unwrap();
    let (n_rows, n_cols) = (rows.len(), rows[0].len());
    // Layer `counts` is X and 100, says the case.
    let further = if *layer == json!("counts") { 100.0 } else { 0.0 };
    let values: Vec<f32> = rows.concat().into_iter().map(|value| value + further).collect();
    let names = |of: &str, n: usize| DataFrame::new((0..n).map(|i| format!("{of}{i}")).collect::<Vec<_>>());
    let x = Csr::from_dense(n_rows, n_cols, &values).unwrap();
    AnnData::new(x, names(cells, n_rows), names(features, n_cols)).unwrap()
}

#[test]
fn a_missing_entry_is_a_block_of_zeros_and_annotations_are_joined() {
    case::run(
        super::MODEL,
        |name| name == CASE,
        |case, report| {
            let (inputs, expected) = (&case.json["inputs"], &case.json["expected"]);
            let table: Vec<Vec<Value>> = [["rna1", "rna2"], ["prot1", "None"], ["None", "atac2"]]
                .map(|row| row.map(Value::from).to_vec())
                .to_vec();
            report.holds("the table of the case", inputs["adatas"] == "[[rna1, rna2], [prot1, None], [None, atac2]]");
            let modality = |(m, (name, row)): (usize, (&str, &Vec<Value>))| {
                let entry = |(d, name): (usize, &Value)| {
                    let name = name.as_str().unwrap();
                    let cells = if name.ends_with('1') { "a" } else { "b" };
                    let features = ["g", "p", "k"][m];
                    let values = inputs.get(name)?;
                    let mut part = part(values, (cells, features), &inputs["layers"][m][d]);
                    for (column, value) in inputs["obs"][name].as_object().unwrap() {
                        let values = match value.as_str().unwrap() {
                            "0..n-1" => Column::from((0..part.n_obs() as i64).collect::<Vec<_>>()),
                            text => Column::categorical(&vec![text; part.n_obs()]),
                        };
                        part.obs.insert(column.as_str(), values).unwrap();
                    }
                    Some(part)
                };
                Modality { name: name.to_owned(), of_datasets: row.iter().enumerate().map(entry).collect() }
            };
            let names = ["rna", "adt", "atac"];
            let table: Vec<Modality> = names.into_iter().zip(&table).enumerate().map(modality).collect();
            let all = Organized::new(&table, Features::Same).unwrap().into_anndata().unwrap();
            let rows: Vec<Vec<f32>> = serde_json::from_value(expected["X"].clone()).unwrap();
            report.holds("X", all.matrix(None).unwrap().to_csr().unwrap().to_dense() == rows.concat());
            report.holds("obs_names", json!(all.obs_names()) == expected["obs_names"]);
            report.holds("var_names", json!(all.var_names()) == expected["var_names"]);
            report.holds("columns", json!(all.obs.column_names()) == expected["obs_columns"]);
            for (column, values) in expected["obs"].as_object().unwrap() {
                let ours = all.obs.column(column).unwrap();
                let (texts, numbers) = (ours.to_strings(), ours.to_f64());
                for (row, cell) in all.obs_names().iter().enumerate() {
                    let same = match &values[cell] {
                        Value::Null => texts[row].is_none(),
                        Value::Number(number) => numbers.as_ref().is_some_and(|all| Some(all[row]) == number.as_f64()),
                        other => texts[row].as_deref() == other.as_str(),
                    };
                    report.holds(&format!("obs {column} of {cell}: {:?}", texts[row]), same);
                }
            }
            let lengths = all.uns[MODALITY_LENGTHS].to_table(MODALITY_LENGTHS).ok().map(|table| table.values);
            let expected: Vec<f32> = serde_json::from_value(expected["modality_lengths"].clone()).unwrap();
            report.holds(&format!("lengths {lengths:?}"), lengths == Some(expected));
        },
    );
}
