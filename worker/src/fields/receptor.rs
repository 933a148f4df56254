//! Receptors of T cells: from a column of obs for each chain, or from AIRR records as scirpy keeps them.

use std::{cmp::Ordering, collections::BTreeMap};

use archipelago_anndata::{H5adFile, Nested};
use archipelago_models::data::{Chain, Receptors};

use super::{Reading, Source};
use crate::error::{Error, Result};

impl Reading<'_> {
    /// The receptors in these places: as many columns of obs as chains, or one table of AIRR records. A cell that none is known of, or
    /// not all chains, has empty texts.
    ///
    /// # Errors  [`Error::WrongPlace`], [`Error::Cells`] for what is not there
    pub(crate) fn receptors(&self, field: &str, chains: &[Chain], places: &[Source]) -> Result<Receptors> {
        let wrong = |place: &Source| {
            let (field, place) = (field.to_owned(), place.to_string());
            Err(Error::WrongPlace { field, place, expected: EXPECTED })
        };
        match places {
            [Source::Obsm { key, names: None }] => self.of_airr(self.file, key, chains),
            [Source::Matrix { modality: Some(modality), layer: None }] => {
                let file = H5adFile::open_modality(self.path, modality).map_err(|source| self.failed(source))?;
                self.of_airr(&file, AIRR, chains)
            }
            columns if columns.len() == chains.len() => {
                let mut sequences = Vec::with_capacity(chains.len());
                for (&chain, place) in chains.iter().zip(columns) {
                    let Source::Obs(column) = place else { return wrong(place) };
                    let seen = |text: Option<String>| text.filter(|text| !UNSEEN.contains(&text.as_str()));
                    let of_chain = self.texts(column)?.into_iter().map(|text| seen(text).unwrap_or_default());
                    sequences.push((chain, of_chain.collect()));
                }
                Ok(Receptors::new(sequences))
            }
            _ => wrong(&places[0]),
        }
    }

    /// The receptors of AIRR records in a file, whose cells are found by name: a cell without a receptor need not be there.
    fn of_airr(&self, file: &H5adFile, key: &str, chains: &[Chain]) -> Result<Receptors> {
        let missing = || archipelago_anndata::Error::Missing {
            kind: "obsm",
            name: key.to_owned(),
            available: file.names("obsm").unwrap_or_default(),
        };
        let nested = |key: &str, names: &[&str]| file.nested(key, names).map_err(|source| self.failed(source));
        let records = nested(key, &RECORD)?.ok_or_else(|| self.failed(missing()))?;
        let indices = nested(INDICES, &CHAINS_OF)?;
        let position: BTreeMap<&String, usize> = file.obs().index().iter().zip(0..).collect();
        let names = self.file.obs().index();
        let of_chain = |chain: Chain| {
            let of_cell = |&row: &usize| {
                let row = position.get(&names[row])?;
                let listed = indices.as_ref().and_then(|indices| indices.get(*row));
                sequence_of(records.get(*row)?, listed, chain)
            };
            (chain, self.rows.iter().map(|row| of_cell(row).unwrap_or_default()).collect())
        };
        Ok(Receptors::new(chains.iter().map(|&chain| of_chain(chain)).collect()))
    }
}

/// The amino acids of a cell's first chain of a kind: the one that scirpy lists first where it has indexed chains, else of those that are
/// productive the one with the most molecules.
fn sequence_of(records: &Nested, listed: Option<&Nested>, chain: Chain) -> Option<String> {
    let (locus, list) = match chain {
        Chain::Alpha => ("TRA", CHAINS_OF[0]),
        Chain::Beta => ("TRB", CHAINS_OF[1]),
    };
    let is_of_locus = |record: &&Nested| record.get("locus").and_then(Nested::text) == Some(locus);
    let amino_acids = |record: &Nested| {
        let text = record.get("junction_aa")?.text()?;
        Some(text.to_owned()).filter(|text| !UNSEEN.contains(&text.as_str()))
    };
    if let Some(listed) = listed {
        let mut found =
            listed.get(list)?.items().iter().filter_map(|index| records.items().get(index.number()? as usize));
        return found.find(is_of_locus).and_then(amino_acids);
    }
    let productive = |record: &&Nested| match record.get("productive") {
        Some(Nested::Number(number)) => *number != 0.0,
        Some(Nested::Text(text)) => ["T", "true", "True"].contains(&text.as_str()),
        _ => false,
    };
    let candidates = records.items().iter().filter(is_of_locus).filter(productive);
    let candidates = candidates.filter(|record| amino_acids(record).is_some());
    candidates.max_by(|one, other| molecules(one, other)).and_then(amino_acids)
}

/// Which of two records has more molecules; of equal ones the later sequence counts, as for scirpy.
fn molecules(one: &Nested, other: &Nested) -> Ordering {
    let number = |record: &Nested, name: &str| record.get(name).and_then(Nested::number).unwrap_or(-1.0);
    let text = |record: &Nested, name: &str| record.get(name).and_then(Nested::text).unwrap_or_default().to_owned();
    let of = |record: &Nested| {
        let n = number(record, "umi_count").max(number(record, "duplicate_count"));
        (n, number(record, "consensus_count"), text(record, "junction"), text(record, "junction_aa"))
    };
    let (one, other) = (of(one), of(other));
    one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1)).then_with(|| (one.2, one.3).cmp(&(other.2, other.3)))
}

/// The key of obsm under which scirpy keeps AIRR records.
const AIRR: &str = "airr";
/// That of the chains that it has found to be first and second.
const INDICES: &str = "chain_indices";
/// The lists in there: chains without and with a D segment.
const CHAINS_OF: [&str; 2] = ["VJ", "VDJ"];
/// Fields of a record that are looked at.
const RECORD: [&str; 7] =
    ["locus", "productive", "junction_aa", "junction", "umi_count", "duplicate_count", "consensus_count"];
/// What is written for a chain that was not seen.
const UNSEEN: [&str; 3] = ["", "None", "nan"];
const EXPECTED: &str = "AIRR records, `obsm/airr` or `mod/airr`, or a column `obs/COLUMN` for each chain, alpha first";

#[cfg(test)]
mod tests {
    use super::*;

    fn record(locus: &str, amino_acids: &str, productive: f64, umis: f64) -> Nested {
        let text = |text: &str| Nested::Text(text.to_owned());
        Nested::Record(BTreeMap::from([
            ("locus".to_owned(), text(locus)),
            ("junction_aa".to_owned(), text(amino_acids)),
            ("productive".to_owned(), Nested::Number(productive)),
            ("umi_count".to_owned(), Nested::Number(umis)),
        ]))
    }

    fn cell() -> Nested {
        Nested::List(vec![
            record("TRA", "CAV", 1.0, 2.0),
            record("TRA", "CAVR", 1.0, 9.0),
            record("TRA", "CAX", 0.0, 99.0),
            record("TRB", "CASS", 1.0, 1.0),
            record("IGH", "CAR", 1.0, 50.0),
        ])
    }

    #[test]
    fn the_productive_chain_with_the_most_molecules_counts() {
        assert_eq!(sequence_of(&cell(), None, Chain::Alpha).as_deref(), Some("CAVR"));
        assert_eq!(sequence_of(&cell(), None, Chain::Beta).as_deref(), Some("CASS"));
        assert_eq!(sequence_of(&Nested::List(vec![]), None, Chain::Beta), None);
    }

    #[test]
    fn chains_that_scirpy_has_indexed_come_first() {
        let list = |at: &[f64]| Nested::List(at.iter().map(|&at| Nested::Number(at)).collect());
        let listed =
            Nested::Record(BTreeMap::from([("VJ".to_owned(), list(&[0.0, 1.0])), ("VDJ".to_owned(), list(&[]))]));
        assert_eq!(sequence_of(&cell(), Some(&listed), Chain::Alpha).as_deref(), Some("CAV"));
        assert_eq!(sequence_of(&cell(), Some(&listed), Chain::Beta), None);
    }
}
