//! How a site's batches are called in the consortium, and what they are called at home.
//!
//! A batch is often a person, and its name stands in keys, versions and logs for ever. So a consortium may know it by an id: a keyed hash
//! of its name ([`SiteSecret::id_of`]), the same as long as the site has its secret. Which id is whose is a table that stays at the site;
//! what the site writes for itself, and what its commands show, has the names. Columns are a function of the key, whatever that is, so a
//! batch keeps the key under which something of it left first, whatever the configuration says later.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use archipelago_common::{
    Section,
    condition::ConditionKey,
    fs,
    id::{Name, SiteId},
    layout::Layout,
};
use archipelago_models::CellConditions;
use serde::{Deserialize, Serialize};

use crate::{
    audit::AuditTrail,
    config::{DataSection, SiteConfig},
    data::SiteData,
    error::{Error, Result},
    mapping::QueryKeys,
    output, results,
    secret::SiteSecret,
};

/// What the consortium knows batches by; `names` under `[data]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Names {
    /// Their names, as they stand in the data: for names that name nobody.
    #[default]
    Readable,
    /// Ids that mean something at the site alone.
    Opaque,
}

/// How one site calls its batches.
#[derive(Clone, Debug)]
pub struct Naming {
    owner: SiteId,
    dataset: Name,
    names: Names,
    secret: SiteSecret,
    /// Keys under which something has left, those of parts as their conditions'.
    left: BTreeSet<ConditionKey>,
    table: PathBuf,
}

/// What keys stand for, where that is not what they say: by the key, the same with the name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NameTable(BTreeMap<ConditionKey, ConditionKey>);

impl Naming {
    /// How a site with this configuration calls the batches of a data set. Makes the secret where there is none.
    ///
    /// # Errors  [`Error::SiteSecret`]; [`Error::AuditBroken`], as the audit log says what has left; [`Error::Common`]
    pub fn of(config: &SiteConfig, data: &DataSection) -> Result<Self> {
        fs::create_private_dir(&config.state_dir)?;
        let audit = config.audit_path();
        // A worker that serves may be in the middle of its next line.
        let trail = if audit.exists() { AuditTrail::read_prefix(&audit)?.0 } else { AuditTrail::default() };
        Ok(Self {
            owner: config.site.clone(),
            dataset: data.dataset.clone(),
            names: data.names,
            secret: SiteSecret::of_site(&config.state_dir)?,
            left: trail.entries.into_iter().filter_map(|entry| entry.release.condition).map(of_condition).collect(),
            table: NameTable::path(&config.state_dir),
        })
    }

    /// The keys of the site's cells for a reference, as the consortium knows them. What they stand for is in the table from then on.
    ///
    /// # Errors  those of [`QueryKeys::new`]; [`Error::SameId`]; [`Error::Common`] where the table cannot be written
    pub fn keys(&self, data: &SiteData, layout: &Layout) -> Result<QueryKeys> {
        let QueryKeys { conditions, .. } = QueryKeys::new(data, &self.owner, &self.dataset, layout)?;
        let shared: BTreeSet<&ConditionKey> = layout.axes.iter().flat_map(|axis| &axis.shared).collect();
        let mut table = NameTable::default();
        let conditions = self.called(&conditions, &shared, &mut table)?;
        table.add_to(&self.table)?;
        Ok(QueryKeys { groups: conditions.groups(layout), conditions })
    }

    /// The key of a batch whose name is this one's.
    pub fn key(&self, readable: &ConditionKey) -> ConditionKey {
        let id = self.secret.id_of(readable);
        let id = ConditionKey::new(readable.owner().clone(), readable.dataset().clone(), id)
            .expect("an id is letters and digits")
            .in_section(readable.section().clone());
        let (wanted, other) = match self.names {
            Names::Opaque => (id, readable.clone()),
            Names::Readable => (readable.clone(), id),
        };
        if !self.left.contains(&wanted) && self.left.contains(&other) { other } else { wanted }
    }

    /// The key of a batch as it is called in the data.
    ///
    /// # Errors  [`Error::Common`] for a name that cannot be part of a key
    pub fn key_of_batch(&self, batch: &str) -> Result<(ConditionKey, ConditionKey)> {
        let readable = ConditionKey::new(self.owner.clone(), self.dataset.clone(), batch)?;
        Ok((self.key(&readable), readable))
    }

    /// What the consortium calls batches that have not left yet.
    pub fn names(&self) -> Names {
        self.names
    }

    fn called(
        &self,
        cells: &CellConditions,
        shared: &BTreeSet<&ConditionKey>,
        table: &mut NameTable,
    ) -> Result<CellConditions> {
        let mut keys = Vec::with_capacity(cells.keys().len());
        for readable in cells.keys() {
            let key = if shared.contains(readable) { readable.clone() } else { self.key(readable) };
            if keys.contains(&key) {
                return Err(Error::SameId { key: Box::new(key), name: readable.batch().to_owned() });
            }
            table.note(&key, readable);
            keys.push(key);
        }
        let of_cells: Vec<ConditionKey> = cells.codes().iter().map(|&code| keys[code as usize].clone()).collect();
        let further = cells.further().iter().map(|axis| self.called(axis, shared, table));
        further
            .collect::<Result<Vec<_>>>()
            .map(|further| further.into_iter().fold(CellConditions::from_keys(&of_cells), CellConditions::with_axis))
    }
}

impl NameTable {
    /// The table of a site with this state directory.
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }

    /// Reads a table; an empty one where there is no file.
    ///
    /// # Errors  [`Error::Config`] for a file that is something else, [`Error::Common`] if it cannot be read
    pub fn read(path: &Path) -> Result<Self> {
        if path.exists() { results::read_json(path) } else { Ok(Self::default()) }
    }

    /// Reads a table that a flag names.
    ///
    /// # Errors  what is wrong with it, in words
    pub fn given(path: &str) -> Result<Self, String> {
        results::read_json(Path::new(path)).map_err(|error| output::chain(&error))
    }

    /// What a key stands for, if it is not what it says.
    pub fn readable(&self, key: &ConditionKey) -> Option<ConditionKey> {
        let of_part = || Some(self.0.get(&of_condition(key.clone()))?.clone().in_section(key.section().clone()));
        self.0.get(key).cloned().or_else(of_part)
    }

    /// The key with the name that it stands for.
    pub fn or_key(&self, key: &ConditionKey) -> ConditionKey {
        self.readable(key).unwrap_or_else(|| key.clone())
    }

    /// The key, and in brackets the name that it stands for.
    pub fn shown(&self, key: &ConditionKey) -> String {
        match self.readable(key) {
            Some(readable) => format!("{key} ({})", readable.batch()),
            None => key.to_string(),
        }
    }

    /// The same of some keys.
    #[must_use]
    pub fn of<'a>(&self, keys: impl Iterator<Item = &'a ConditionKey>) -> Self {
        Self(keys.filter_map(|key| Some((key.clone(), self.readable(key)?))).collect())
    }

    /// Whether every key is what it says.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every key that stands for something else, with that.
    pub fn iter(&self) -> impl Iterator<Item = (&ConditionKey, &ConditionKey)> {
        self.0.iter()
    }

    /// Notes what a key stands for, if that is not what it says.
    pub fn note(&mut self, key: &ConditionKey, readable: &ConditionKey) {
        if key != readable {
            self.0.insert(key.clone(), readable.clone());
        }
    }

    // A new file is its owner's alone, as the secret is.
    fn add_to(self, path: &Path) -> Result<()> {
        let known = Self::read(path)?;
        let mut all = known.clone();
        all.0.extend(self.0);
        if all == known { Ok(()) } else { results::write_json(path, &all) }
    }
}

/// A member of a part is called as the condition of its cells is.
fn of_condition(key: ConditionKey) -> ConditionKey {
    if key.is_part() { key.in_section(Section::Condition) } else { key }
}

/// Name of the table in the state directory.
const FILE: &str = "names.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ConditionKey {
        text.parse().unwrap()
    }

    fn naming(names: Names, left: &[ConditionKey], dir: &Path) -> Naming {
        Naming {
            owner: "north".parse().unwrap(),
            dataset: "lung".parse().unwrap(),
            names,
            secret: SiteSecret::open(&dir.join("noise.key")).unwrap(),
            left: left.iter().cloned().collect(),
            table: dir.join(FILE),
        }
    }

    #[test]
    fn a_batch_keeps_the_key_that_it_first_left_under() {
        let dir = tempfile::tempdir().unwrap();
        let mary = key("north/lung/mary");
        let id = naming(Names::Opaque, &[], dir.path()).key(&mary);
        assert!(!id.to_string().contains("mary") && id.to_string().starts_with("north/lung/"), "{id}");
        assert_eq!(naming(Names::Readable, &[], dir.path()).key(&mary), mary);
        assert_eq!(naming(Names::Opaque, std::slice::from_ref(&mary), dir.path()).key(&mary), mary);
        assert_eq!(naming(Names::Readable, std::slice::from_ref(&id), dir.path()).key(&mary), id);
        assert_eq!(naming(Names::Opaque, &[id.clone(), mary.clone()], dir.path()).key(&mary), id);
        assert_eq!(naming(Names::Opaque, &[key("north/lung/john")], dir.path()).key(&mary), id);
    }

    #[test]
    fn names_on_further_axes_have_ids_of_their_own_and_those_of_the_reference_stay() {
        let dir = tempfile::tempdir().unwrap();
        let naming = naming(Names::Opaque, &[], dir.path());
        let batches = [key("north/lung/mary"), key("north/lung/mary"), key("north/lung/anna")];
        let (own, shared) = (key("north/lung@donor/mary"), key("atlas/all@donor/lung"));
        let axis = CellConditions::from_keys(&[own.clone(), shared.clone(), own.clone()]);
        let cells = CellConditions::from_keys(&batches).with_axis(axis);
        let mut table = NameTable::default();
        let called = naming.called(&cells, &BTreeSet::from([&shared]), &mut table).unwrap();
        for (cell, batch) in batches.iter().enumerate() {
            assert_eq!(&table.or_key(called.key_of(cell)), batch);
        }
        assert_eq!(called.further()[0].key_of(1), &shared);
        let on_axis = called.further()[0].key_of(0);
        assert_ne!(on_axis.batch(), called.key_of(0).batch(), "nobody can tell that they have one name");
        assert_eq!(table.or_key(on_axis), own);
        assert!(!called.all_keys().iter().any(|key| key.to_string().contains("mary")));
        table.clone().add_to(&naming.table).unwrap();
        NameTable::default().add_to(&naming.table).unwrap();
        assert_eq!(NameTable::read(&naming.table).unwrap(), table, "what was noted stays");
    }

    #[test]
    fn members_of_parts_are_called_as_their_conditions() {
        let mut table = NameTable::default();
        table.note(&key("north/lung/0123"), &key("north/lung/mary"));
        table.note(&key("north/lung/b1"), &key("north/lung/b1"));
        assert_eq!(table.readable(&key("north/lung+prototypes/0123")), Some(key("north/lung+prototypes/mary")));
        assert_eq!(table.shown(&key("north/lung/0123")), "north/lung/0123 (mary)");
        assert_eq!((table.shown(&key("north/lung/b1")), table.iter().count()), ("north/lung/b1".to_owned(), 1));
    }
}
