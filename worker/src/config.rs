//! A site's configuration file: who it is, whom it calls, which cells it offers, what may leave.
//!
//! Paths in the file are relative to the file. A [`SiteConfig`] that exists is complete and makes sense.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use archipelago_anndata::align::Duplicates;
use archipelago_common::{
    fs,
    id::{Name, NodeId, SiteId, TaskId},
    policy::SitePolicy,
};
use archipelago_transport::{
    CredentialFiles,
    net::{Network, Ways},
};
use bytesize::ByteSize;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _},
};

use crate::{
    additions::Additions,
    data::{Consent, DataSpec},
    error::{Error, Result},
    fields::{FieldSpellings, SourceMap},
    memory,
    naming::Names,
};

/// Everything that `serve` needs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteConfig {
    /// The site's name, as in its certificate.
    pub site: SiteId,
    /// Where the worker keeps its audit log, cache and checkpoints.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// Where mapped cells and results go.
    #[serde(default = "default_out_dir")]
    pub out_dir: PathBuf,
    /// Memory that counts may take, such as `"4GiB"`; half of what is available if nothing is said.
    #[serde(default, deserialize_with = "memory::deserialize_size")]
    pub memory: Option<ByteSize>,
    /// Directory of scratch files for counts beyond that: on a disk with room, and as private as the data.
    #[serde(default = "default_scratch")]
    pub scratch: PathBuf,
    /// The site's policy file; without one, columns and metrics may leave and nothing else.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// Address for `/metrics`, `/healthz` and `/readyz`; closed if none.
    #[serde(default)]
    pub ops: Option<SocketAddr>,
    /// The consortium's certificate authority, PEM.
    pub ca: PathBuf,
    /// The site's certificate, PEM.
    pub certificate: PathBuf,
    /// The site's private key, PEM.
    pub key: PathBuf,
    /// After what share of the certificate's life another is asked for; 1 is never.
    #[serde(default = "default_renew_after")]
    pub renew_after: f64,
    /// All coordinators, as `host:port` by node id.
    pub coordinators: BTreeMap<String, String>,
    /// Which ways are taken to them: `auto` for QUIC and TCP, `quic` or `tcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Ways>,
    /// The HTTP proxy that TCP goes through, as `http://[user:password@]host:port`; `HTTPS_PROXY` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Which cells to offer: `[data]`, or `[[data]]` for each of several data sets.
    #[serde(deserialize_with = "data_sections", serialize_with = "one_or_more")]
    pub data: Vec<DataSection>,
    /// What the site adds to the model of a reference, where that takes additions, such as `n_ext = 3`. It trains with the columns and
    /// stays at the site.
    #[serde(default, skip_serializing_if = "Additions::is_empty")]
    pub adds: Additions,
}

/// A data set that the site offers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// The h5ad file.
    pub path: PathBuf,
    /// Name of the data set; the middle of each condition key `site/dataset/batch`.
    pub dataset: Name,
    /// The policy of this data set; the site's if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// What the consortium knows batches by: `"opaque"` for ids that mean something here alone, `"readable"` for their names.
    #[serde(default)]
    pub names: Names,
    /// The obs column that names the batch. A reference that takes several condition keys names batches by those, which are fields:
    /// `donor = "obs/Donor"` under `[data.fields]`, where the site's column is called otherwise.
    #[serde(default = "default_batch_key")]
    pub batch_key: String,
    /// Where fields are that a reference may take, such as `labels = "obs/cell_type"` (needed to release label means too) or
    /// `proteins = "mod/prot"`; as in the reference if nothing is said, and nowhere with `"none"`.
    #[serde(default, skip_serializing_if = "SourceMap::is_empty")]
    pub fields: SourceMap,
    /// The batches to offer; all if none is named.
    #[serde(default)]
    pub batches: Vec<String>,
    /// What to do with a gene that the file names more than once.
    #[serde(default)]
    pub duplicate_genes: Duplicates,
    /// Whether expression that is no whole numbers counts as counts, such as what is left when ambient RNA was taken out.
    #[serde(default)]
    pub fractional_counts: bool,
}

impl SiteConfig {
    /// Reads a configuration and makes its paths independent of the current directory.
    ///
    /// # Errors  [`Error::Config`] naming the field, [`Error::ConfigFile`]
    pub fn read(path: &Path) -> Result<Self> {
        let mut config: Self = read_toml(path)?;
        config.nodes().map_err(|detail| Error::Config { path: path.into(), detail })?;
        config.network().map_err(|detail| Error::Config { path: path.into(), detail })?;
        if !(config.renew_after > 0.0 && config.renew_after <= 1.0) {
            let detail = format!("`renew_after` is {}, expected a share above 0 and up to 1", config.renew_after);
            return Err(Error::Config { path: path.into(), detail });
        }
        if let Some(detail) = config.senseless_data() {
            return Err(Error::Config { path: path.into(), detail });
        }
        let beside = path.parent().unwrap_or(Path::new("."));
        let paths = [
            &mut config.state_dir,
            &mut config.out_dir,
            &mut config.scratch,
            &mut config.ca,
            &mut config.certificate,
            &mut config.key,
        ];
        let optional = config.policy.as_mut().into_iter().chain(&mut config.adds.gene_sets);
        let of_data = config.data.iter_mut().flat_map(|data| [Some(&mut data.path), data.policy.as_mut()]).flatten();
        for relative in paths.into_iter().chain(optional).chain(of_data) {
            *relative = beside.join(&relative);
        }
        Ok(config)
    }

    /// What is wrong with the list of data sets, if something is.
    fn senseless_data(&self) -> Option<String> {
        if self.data.is_empty() {
            return Some("`data` is empty, expected at least one data set".to_owned());
        }
        let is_twice = |place: usize| self.data[..place].iter().any(|data| data.dataset == self.data[place].dataset);
        let twice = (0..self.data.len()).find(|&place| is_twice(place))?;
        Some(format!("`data` names the data set `{}` twice, expected names that differ", self.data[twice].dataset))
    }

    /// The addresses of the coordinators by node; the error says which one cannot be read.
    pub(crate) fn nodes(&self) -> Result<BTreeMap<NodeId, String>, String> {
        if self.coordinators.is_empty() {
            return Err("`coordinators` is empty, expected at least one".to_owned());
        }
        let parse = |(node, address): (&String, &String)| {
            let wrong =
                || format!("`coordinators` holds `{node} = \"{address}\"`, expected `<node id> = \"<host>:<port>\"`");
            let parsed = node.parse().ok().filter(|_| address.contains(':'));
            Ok((parsed.ok_or_else(wrong)?, address.clone()))
        };
        self.coordinators.iter().map(parse).collect()
    }

    /// How the coordinators are reached; the error says what cannot be read.
    pub(crate) fn network(&self) -> Result<Network, String> {
        Network::configured(self.transport, self.proxy.as_deref())
    }

    /// The policy file that holds for a data set, if there is one.
    pub fn policy_path<'a>(&'a self, data: &'a DataSection) -> Option<&'a Path> {
        data.policy.as_deref().or(self.policy.as_deref())
    }

    /// The site's certificate, its key and the authorities it accepts.
    pub(crate) fn credential_files(&self) -> CredentialFiles {
        let (authority, certificate, key) = (self.ca.clone(), self.certificate.clone(), self.key.clone());
        CredentialFiles { authority, certificate, key }
    }

    /// The ledger of how much left of which cells.
    pub fn ledger_path(&self) -> PathBuf {
        self.state_dir.join("ledger.jsonl")
    }

    /// The audit log of what left.
    pub fn audit_path(&self) -> PathBuf {
        self.state_dir.join("audit.jsonl")
    }

    /// Where the results of a task on a data set go; beside those of others, where there are several.
    pub fn results_dir(&self, task: TaskId, dataset: &Name) -> PathBuf {
        let of_task = self.out_dir.join(format!("task-{task}"));
        if self.data.len() > 1 { of_task.join(dataset.as_str()) } else { of_task }
    }

    /// Every value by its dotted name, and whether the file or a default gave it.
    ///
    /// # Errors  [`Error::Config`], [`Error::ConfigFile`]
    pub fn explain(path: &Path) -> Result<Vec<(String, String, &'static str)>> {
        let resolved = toml::Table::try_from(Self::read(path)?)
            .map_err(|e| Error::Config { path: path.into(), detail: e.to_string() })?;
        let given = flatten(&read_toml(path)?);
        // Fields have no defaults; some of them the file may have spelled otherwise.
        let is_given = |name: &str| name.contains(FIELDS) || given.iter().any(|(known, _)| known == name);
        let source = |name: &str| if is_given(name) { "file" } else { "default" };
        Ok(flatten(&resolved).into_iter().map(|(name, value)| (name.clone(), value, source(&name))).collect())
    }
}

impl DataSection {
    /// What to read from the data file under a policy, which names the donors' column.
    pub fn spec(&self, policy: &SitePolicy) -> DataSpec {
        DataSpec {
            fields: self.fields.clone(),
            donor_key: policy.donor_key.clone(),
            batches: self.batches.clone(),
            duplicate_genes: self.duplicate_genes,
            fractional_counts: self.fractional_counts,
            consent: Some(Consent { may_read: policy.may_read.clone(), cell_filters: policy.tasks.cell_filters }),
            ..DataSpec::new(&self.path, &self.batch_key)
        }
    }
}

/// Reads a policy file, or gives the default policy where there is none.
///
/// # Errors  [`Error::Config`] naming the field, [`Error::ConfigFile`]
pub fn read_policy(path: Option<&Path>) -> Result<SitePolicy> {
    let Some(path) = path else { return Ok(SitePolicy::default()) };
    let policy: SitePolicy = read_toml(path)?;
    let refuse = |detail: String| Err(Error::Config { path: path.into(), detail });
    if policy.min_donors > 0 && policy.donor_key.is_none() {
        return refuse(format!("`min_donors` is {} but `donor_key` is missing", policy.min_donors));
    }
    if policy.parts.is_some_and(|parts| parts.min_donors > 0) && policy.donor_key.is_none() {
        return refuse("`parts` asks for donors but `donor_key` is missing".to_owned());
    }
    if !(policy.noise_std.is_finite() && policy.noise_std >= 0.0) {
        return refuse(format!("`noise_std` is {}, expected 0 or a number above it", policy.noise_std));
    }
    if let Some(detail) = policy.tasks.senseless().or_else(|| policy.budget.senseless()) {
        return refuse(detail);
    }
    if policy.budget.epsilon.is_finite() && (policy.clip_norm.is_none() || policy.noise_std == 0.0) {
        let detail = format!(
            "`budget.epsilon` is {}, and without `clip_norm` and a `noise_std` above 0 no epsilon is kept",
            policy.budget.epsilon
        );
        return refuse(detail);
    }
    match policy.clip_norm {
        Some(norm) if !(norm.is_finite() && norm > 0.0) => {
            refuse(format!("`clip_norm` is {norm}, expected a number above 0"))
        }
        _ => Ok(policy),
    }
}

fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read_bounded(path, MAX_BYTES).map_err(|source| Error::ConfigFile { path: path.into(), source })?;
    let invalid = |detail: String| Error::Config { path: path.into(), detail };
    let text = String::from_utf8(bytes).map_err(|_| invalid("the file is not UTF-8".to_owned()))?;
    toml::from_str(&text).map_err(|e| invalid(e.to_string().trim_end().to_owned()))
}

/// One section or several, each with its fields in one map, however they were spelled.
fn data_sections<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DataSection>, D::Error> {
    let section = |mut table: toml::Table| {
        let spellings = FieldSpellings::take_from(&mut table).map_err(D::Error::custom)?;
        let mut section: DataSection = table.try_into().map_err(D::Error::custom)?;
        spellings.add_to(&mut section.fields);
        Ok(section)
    };
    match toml::Value::deserialize(deserializer)? {
        toml::Value::Table(one) => Ok(vec![section(one)?]),
        several => {
            Vec::<toml::Table>::deserialize(several).map_err(D::Error::custom)?.into_iter().map(section).collect()
        }
    }
}

/// As it is written: one section as `[data]`.
fn one_or_more<S: Serializer>(data: &[DataSection], serializer: S) -> Result<S::Ok, S::Error> {
    match data {
        [one] => one.serialize(serializer),
        several => several.serialize(serializer),
    }
}

fn flatten(table: &toml::Table) -> Vec<(String, String)> {
    let mut flat = Vec::new();
    let below = |name: String, inner: &toml::Table| {
        flatten(inner).into_iter().map(move |(inner, value)| (format!("{name}.{inner}"), value))
    };
    for (name, value) in table {
        match value {
            toml::Value::Table(inner) => flat.extend(below(name.clone(), inner)),
            toml::Value::Array(all) if !all.is_empty() && all.iter().all(toml::Value::is_table) => {
                let tables = all.iter().filter_map(toml::Value::as_table).enumerate();
                flat.extend(tables.flat_map(|(place, inner)| below(format!("{name}[{place}]"), inner)));
            }
            other => flat.push((name.clone(), other.to_string())),
        }
    }
    flat
}

/// Where the explained configuration has its fields.
const FIELDS: &str = ".fields.";
/// No configuration written by hand comes near this.
const MAX_BYTES: u64 = 1 << 20;

fn default_state_dir() -> PathBuf {
    "state".into()
}

/// Beside the checkpoints: on a disk, writable, and the site's own.
fn default_scratch() -> PathBuf {
    default_state_dir()
}

fn default_out_dir() -> PathBuf {
    "results".into()
}

fn default_renew_after() -> f64 {
    0.67
}

fn default_batch_key() -> String {
    "batch".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        site = "north"
        ca = "ca.pem"
        certificate = "north.pem"
        key = "north.key"
        [coordinators]
        1 = "127.0.0.1:7101"
        [data]
        path = "cells.h5ad"
        dataset = "pbmc"
    "#;

    fn read(config: &str, policy: &str) -> Result<(SiteConfig, SitePolicy)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("policy.toml"), policy).unwrap();
        let path = dir.path().join("site.toml");
        std::fs::write(&path, config).unwrap();
        let config = SiteConfig::read(&path)?;
        assert_eq!(config.state_dir, dir.path().join("state"));
        let policy = read_policy(config.policy_path(&config.data[0]))?;
        Ok((config, policy))
    }

    fn with_policy(policy: &str) -> Result<(SiteConfig, SitePolicy)> {
        read(&format!("policy = \"policy.toml\"\n{MINIMAL}"), policy)
    }

    #[test]
    fn a_minimal_file_gets_the_strict_defaults() {
        let (config, policy) = read(MINIMAL, "").unwrap();
        assert_eq!((config.data[0].batch_key.as_str(), config.ops), ("batch", None));
        assert_eq!(policy, SitePolicy::default());
    }

    #[test]
    fn the_readmes_files_are_accepted() {
        let readme = include_str!("../../README.md");
        let block = |name: &str| {
            let start = readme.find(&format!("# north/{name}")).unwrap();
            readme[start..].split("```").next().unwrap()
        };
        let (config, policy) = read(block("site.toml"), block("policy.toml")).unwrap();
        assert_eq!(config.coordinators.len(), 3);
        assert_eq!(policy.trusted_operators, ["anna"]);
    }

    #[test]
    fn memory_is_a_size_and_scratch_lies_beside_the_state() {
        let (config, _) = read(MINIMAL, "").unwrap();
        assert_eq!((config.memory, &config.scratch), (None, &config.state_dir));
        let (config, _) = read(&format!("memory = \"4GiB\"\nscratch = \"/large\"\n{MINIMAL}"), "").unwrap();
        assert_eq!((config.memory, config.scratch), (Some(ByteSize::gib(4)), "/large".into()));
        let error = read(&format!("memory = \"much\"\n{MINIMAL}"), "").unwrap_err().to_string();
        assert!(error.contains("memory = \"much\"") && error.contains("4GiB"), "{error}");
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = read(&MINIMAL.replace("dataset", "datset"), "").unwrap_err().to_string();
        assert!(error.contains("datset"), "{error}");
    }

    #[test]
    fn a_coordinator_needs_a_node_and_an_address() {
        for wrong in ["0 = \"127.0.0.1:7101\"", "a = \"127.0.0.1:7101\"", "1 = \"127.0.0.1\""] {
            let error = read(&MINIMAL.replace("1 = \"127.0.0.1:7101\"", wrong), "").unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
        }
        assert!(read(&MINIMAL.replace("1 = \"127.0.0.1:7101\"", ""), "").is_err());
    }

    #[test]
    fn policies_that_make_no_sense_are_refused() {
        let refused = |policy| with_policy(policy).unwrap_err().to_string();
        assert!(refused("min_donors = 3").contains("`donor_key` is missing"));
        assert!(refused("noise_std = -1.0").contains("`noise_std` is -1"));
        assert!(refused("clip_norm = 0.0").contains("`clip_norm` is 0"));
        assert!(refused("[tasks]\nlearning_rate = [0.1, 0.01]").contains("`tasks.learning_rate` is [0.1, 0.01]"));
        assert!(refused("[tasks]\nmax_hiden = 3").contains("max_hiden"));
        assert!(refused("[budget]\ncolumns = -1.0").contains("`budget.columns` is -1"));
        assert!(refused("clip_norm = 1.0\n[budget]\nepsilon = 2.0").contains("`budget.epsilon` is 2, and without"));
        assert!(refused("[budget]\ndelta = 0.0").contains("`budget.delta` is 0"));
        assert!(refused("parts = { min_donors = 2 }").contains("`donor_key` is missing"));
        assert!(refused("embedings = \"full\"").contains("embedings"));
    }

    #[test]
    fn label_means_are_written_as_a_table() {
        let text = "donor_key = \"donor\"\n[embeddings.label-means]\nmin_cells = 10\nmin_donors = 3";
        let (config, policy) = with_policy(text).unwrap();
        let expected = archipelago_common::policy::EmbeddingRelease::LabelMeans { min_cells: 10, min_donors: 3 };
        assert_eq!(policy.embeddings, expected);
        assert_eq!(config.data[0].spec(&policy).donor_key.as_deref(), Some("donor"));
    }

    #[test]
    fn fields_are_one_map_however_they_are_spelled() {
        let fields = |data: &str| {
            let (config, _) = read(&format!("{MINIMAL}\n{data}"), "").unwrap();
            config.data[0].fields.clone()
        };
        let map = fields("[data.fields]\nlabels = \"obs/type\"\nproteins = \"mod/prot\"\nrna = \"layers/counts\"");
        assert_eq!(map, fields("labels_key = \"type\"\nproteins = { modality = \"prot\" }\nlayer = \"counts\""));
        assert_eq!(fields("without_proteins = true"), fields("[data.fields]\nproteins = \"none\""));
        for wrong in ["labels_kye = \"type\"", "[data.fields]\nlabels = \"type\"", "proteins = { obs = \"x\" }"] {
            assert!(read(&format!("{MINIMAL}\n{wrong}"), "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn several_data_sets_have_policies_of_their_own() {
        let several = MINIMAL.replace("[data]", "[[data]]") + "[[data]]\npath = \"b.h5ad\"\ndataset = \"lung\"\n";
        let with_own = format!("{several}policy = \"policy.toml\"\n");
        let (config, of_first) = read(&with_own, "min_cells = 77").unwrap();
        let dataset = |place: usize| config.data[place].dataset.as_str();
        assert_eq!((config.data.len(), dataset(0), dataset(1)), (2, "pbmc", "lung"));
        assert_eq!(of_first, SitePolicy::default());
        let (path, policy) = (config.policy_path(&config.data[0]), config.policy_path(&config.data[1]).unwrap());
        assert_eq!((path, policy.file_name().unwrap()), (None, "policy.toml".as_ref()));
        let results = |place: usize| config.results_dir(TaskId(3), &config.data[place].dataset);
        assert!(results(0).ends_with("results/task-3/pbmc") && results(1).ends_with("results/task-3/lung"));
        let error = read(&several.replace("\"lung\"", "\"pbmc\""), "").unwrap_err().to_string();
        assert!(error.contains("names the data set `pbmc` twice"), "{error}");
        let error =
            read(&format!("data = []\n{}", MINIMAL.split("[data]").next().unwrap()), "").unwrap_err().to_string();
        assert!(error.contains("`data` is empty"), "{error}");
        assert!(read(&with_own.replace("path = \"b.h5ad\"", "paht = \"b.h5ad\""), "").is_err());
    }

    #[test]
    fn each_value_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.toml");
        std::fs::write(&path, MINIMAL).unwrap();
        let explained = SiteConfig::explain(&path).unwrap();
        assert!(explained.contains(&("data.batch_key".to_owned(), "\"batch\"".to_owned(), "default")), "{explained:?}");
        assert!(explained.contains(&("data.dataset".to_owned(), "\"pbmc\"".to_owned(), "file")), "{explained:?}");
    }
}
