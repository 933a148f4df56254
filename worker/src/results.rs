//! Files that a command leaves in its results directory beside the main one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use archipelago_common::{fs, progress::EpochReport};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// The epochs of each thing that was trained, by name.
pub type History = BTreeMap<String, Vec<EpochReport>>;

/// Writes `history.json` and `history.csv`.
///
/// # Errors  [`crate::Error::Common`]
pub fn write_history(dir: &Path, history: &History) -> Result<()> {
    write_json(&dir.join("history.json"), history)?;
    Ok(fs::write_atomic(&dir.join("history.csv"), history_csv(history).as_bytes())?)
}

/// Writes a value as indented JSON.
///
/// # Errors  [`crate::Error::Common`]
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("results are JSON");
    bytes.push(b'\n');
    Ok(fs::write_atomic(path, &bytes)?)
}

/// Reads what [`write_history`] wrote.
///
/// # Errors  [`crate::Error::Common`], [`crate::Error::Config`] for a file that is none
pub fn read_history(dir: &Path) -> Result<History> {
    read_json(&dir.join("history.json"))
}

/// Reads what [`write_json`] wrote.
///
/// # Errors  [`crate::Error::Common`], [`crate::Error::Config`] for a file that is none
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read_bounded(path, JSON_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Config { path: path.into(), detail: error.to_string() })
}

/// A history of many thousand epochs of many batches is some megabytes.
const JSON_BYTES: u64 = 256 << 20;

/// A field of a CSV file, quoted where it must be.
pub fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn history_csv(history: &History) -> String {
    let reports = || history.values().flatten();
    let names = |of: fn(&EpochReport) -> &BTreeMap<String, f64>| -> BTreeSet<&String> {
        reports().flat_map(|report| of(report).keys()).collect()
    };
    let (figures, validated) = (names(|report| &report.figures), names(|report| &report.validation_figures));
    let mut text = "name,epoch,loss,validation_loss,elapsed_ms".to_owned();
    figures.iter().for_each(|name| text += &format!(",{}", csv_field(name)));
    validated.iter().for_each(|name| text += &format!(",{}", csv_field(&format!("validation_{name}"))));
    let number = |value: Option<&f64>| value.map_or_else(String::new, f64::to_string);
    for (name, reports) in history {
        for report in reports {
            let EpochReport { epoch, loss, validation_loss, elapsed_ms, .. } = report;
            let validation = number(validation_loss.as_ref());
            text += &format!("\n{},{epoch},{loss},{validation},{elapsed_ms}", csv_field(name));
            figures.iter().for_each(|name| text += &format!(",{}", number(report.figures.get(*name))));
            validated.iter().for_each(|name| text += &format!(",{}", number(report.validation_figures.get(*name))));
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_per_epoch() {
        let first = EpochReport { epoch: 1, n_epochs: 2, loss: 1.5, elapsed_ms: 3, ..EpochReport::default() };
        let second = EpochReport {
            epoch: 2,
            validation_loss: Some(2.5),
            figures: [("elbo".to_owned(), -1.0)].into(),
            validation_figures: [("elbo".to_owned(), -2.0)].into(),
            ..first.clone()
        };
        let history = History::from([("north/d/a, b".to_owned(), vec![first, second])]);
        let expected = "name,epoch,loss,validation_loss,elapsed_ms,elbo,validation_elbo\n\
                        \"north/d/a, b\",1,1.5,,3,,\n\"north/d/a, b\",2,1.5,2.5,3,-1,-2\n";
        assert_eq!(history_csv(&history), expected);
    }
}
