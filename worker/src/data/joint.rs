//! What the batches of cells are called: the values of one column, or what the names on several condition keys make together.

use std::collections::BTreeMap;

use archipelago_anndata::H5adFile;
use archipelago_models::data::Field;

use super::DataSpec;
use crate::{
    error::{Error, Result},
    fields::Source,
};

/// The batch of each cell of a file, where it has one.
///
/// # Errors  [`Error::Cells`], [`Error::NoConditionKey`], [`Error::WrongPlace`], [`Error::JointNames`]
pub(super) fn batches(file: &H5adFile, spec: &DataSpec) -> Result<Vec<Option<String>>> {
    let columns = spec.axes().map(|field| names(file, spec, field)).collect::<Result<Vec<_>>>()?;
    if columns.is_empty() {
        let column = file.obs().column(&spec.batch_key);
        return Ok(column.map_err(|source| Error::Cells { path: spec.path.clone(), source })?.to_strings());
    }
    let mut parts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut joint = Vec::with_capacity(file.n_obs());
    for cell in 0..file.n_obs() {
        let of_cell: Option<Vec<&str>> = columns.iter().map(|column| column[cell].as_deref()).collect();
        let Some(of_cell) = of_cell else {
            joint.push(None);
            continue;
        };
        let name = of_cell.join(JOINT);
        match parts.get(&name) {
            Some(known) if *known != of_cell => {
                let (path, both) = (spec.path.clone(), [known.join("`, `"), of_cell.join("`, `")]);
                return Err(Error::JointNames { path, name, both });
            }
            Some(_) => {}
            None => drop(parts.insert(name.clone(), of_cell)),
        }
        joint.push(Some(name));
    }
    Ok(joint)
}

/// The names of a file's cells on one condition key.
fn names(file: &H5adFile, spec: &DataSpec, field: &Field) -> Result<Vec<Option<String>>> {
    let axis = field.name.to_string();
    match spec.fields.get(&field.name) {
        Some([Source::Obs(column)]) => match file.obs().column(column) {
            Ok(names) => Ok(names.to_strings()),
            Err(_) => Err(Error::NoConditionKey { path: spec.path.clone(), axis, column: column.clone() }),
        },
        places => {
            let place = places.and_then(<[Source]>::last).map_or_else(|| "nowhere".to_owned(), ToString::to_string);
            Err(Error::WrongPlace { field: axis, place, expected: "a column of obs, `obs/COLUMN`" })
        }
    }
}

/// What stands between the names that make a batch's name together, as upstream joins them.
pub(super) const JOINT: &str = "_";

#[cfg(test)]
mod tests {
    use archipelago_anndata::{AnnData, Column, Compression, Csr, DataFrame};
    use archipelago_models::data::Names;

    use super::*;
    use crate::data::SiteData;

    fn open(donors: &[&str], tissues: &[&str], change: impl FnOnce(&mut DataSpec)) -> Result<SiteData> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cells.h5ad");
        let mut obs = DataFrame::new((0..donors.len()).map(|i| format!("c{i}")));
        obs.insert("Donor", Column::categorical(donors)).unwrap();
        obs.insert("tissue", Column::categorical(tissues)).unwrap();
        let x = Csr::from_dense(donors.len(), 1, &vec![1.0; donors.len()]).unwrap();
        AnnData::new(x, obs, DataFrame::new(["g"])).unwrap().write(&path, Compression::None).unwrap();
        let mut spec = DataSpec::new(path, "batch");
        for (axis, column) in [("donor", "Donor"), ("tissue", "tissue")] {
            spec.takes.push(Field::axis(&axis.parse().unwrap(), Names::Own));
            spec.fields.set(axis, Source::obs(column));
        }
        change(&mut spec);
        SiteData::open(spec)
    }

    #[test]
    fn names_on_several_keys_make_a_batch_together() {
        let data = open(&["a", "b", "a"], &["lung", "lung", "skin"], |_| ()).unwrap();
        assert_eq!(data.batches(), ["a_lung", "b_lung", "a_skin"]);
        let axes = data.cell_names_on_axes().axes;
        let names: Vec<_> = axes.iter().map(|(axis, names)| (axis.as_str(), names.names().to_vec())).collect();
        let texts = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        assert_eq!(names, [("donor", texts(["a", "b"])), ("tissue", texts(["lung", "skin"]))]);
        let some = open(&["a", "b", "a"], &["lung", "lung", "skin"], |spec| spec.batches.push("a_skin".to_owned()));
        assert_eq!(some.unwrap().n_cells(), 1);
    }

    #[test]
    fn cells_without_a_key_are_refused_in_words() {
        let refused = |column: &str| {
            let place = |spec: &mut DataSpec| spec.fields.set("tissue", Source::obs(column));
            open(&["a"], &["lung"], place).err().unwrap().to_string()
        };
        let expected = "has no obs column `organ`, where the condition key `tissue` should be";
        assert!(refused("organ").ends_with(expected), "{}", refused("organ"));
        let nowhere = open(&["a"], &["lung"], |spec| spec.fields.set("tissue", Source::Nowhere)).err().unwrap();
        assert!(nowhere.to_string().contains("`tissue`"), "{nowhere}");
    }

    #[test]
    fn two_pairs_of_names_that_make_the_same_name_are_refused() {
        let refused = open(&["a_b", "a"], &["c", "b_c"], |_| ()).err().unwrap().to_string();
        let expected = "`a_b`, `c` and `a`, `b_c` would both be called `a_b_c`";
        assert!(refused.contains(expected), "{refused}");
    }
}
