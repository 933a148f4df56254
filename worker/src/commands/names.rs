//! `names`: which of this site's batches the consortium knows by which key.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
};

use archipelago_common::{Section, condition::ConditionKey, id::Name};
use clap::Args;
use serde::Serialize;

use crate::{
    config::SiteConfig,
    data::SiteData,
    error::{Error, Result},
    holding::Holding,
    naming::{NameTable, Names},
    output::{self, Output},
};

/// Show which of this site's batches the consortium knows by which key.
///
/// With `names = "opaque"` under `[data]` of site.toml batches leave under ids, which are made of their names with the site's secret
/// and mean something here alone. A batch that has left under a key keeps it. Batches of the file are shown, and whatever has been
/// called by an id before.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  archipelago-worker names --config site.toml\n  \
    archipelago-worker names --config site.toml --key north/lung/3f9a01c2d4e5b6a79801")]
pub struct NamesArgs {
    /// The site's configuration.
    #[arg(long, value_name = "FILE", env = "ARCHIPELAGO_SITE")]
    config: PathBuf,
    /// Show what this key stands for, and nothing else.
    #[arg(long)]
    key: Option<ConditionKey>,
}

/// Keys, and what they stand for.
#[derive(Serialize)]
struct Report {
    /// What batches of each data set are called that have not left yet.
    names: BTreeMap<Name, Names>,
    /// The key with the batch's own name, by the consortium's key.
    keys: BTreeMap<ConditionKey, ConditionKey>,
}

/// Runs the command.
///
/// # Errors  a configuration, policy or secret that cannot be used; [`Error::NoName`]
pub fn run(args: &NamesArgs, output: &Output) -> Result<()> {
    let config = SiteConfig::read(&args.config)?;
    let holdings = Holding::all(&config)?;
    let table = NameTable::read(&NameTable::path(&config.state_dir))?;
    let known = table.iter().map(|(key, readable)| (key.clone(), readable.clone()));
    let mut keys: BTreeMap<ConditionKey, ConditionKey> = known.collect();
    // A file that names its batches by several columns is read as a reference asks, and has been by a task.
    for Holding { dataset, spec, naming, .. } in &holdings {
        match SiteData::open(spec.clone()) {
            Ok(data) => {
                for batch in data.batches().iter().collect::<BTreeSet<_>>() {
                    let (key, readable) = naming.key_of_batch(batch)?;
                    keys.insert(key, readable);
                }
            }
            Err(error) => output.note(format!("batches of `{dataset}` are not shown: {}", output::chain(&error))),
        }
    }
    if let Some(key) = &args.key {
        let readable = keys.get(key).cloned().or_else(|| table.readable(key));
        let readable = readable.ok_or_else(|| Error::NoName { key: Box::new(key.clone()) })?;
        keys = BTreeMap::from([(key.clone(), readable)]);
    }
    let names = holdings.into_iter().map(|holding| (holding.dataset, holding.naming.names())).collect();
    output.show(&Report { names, keys });
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.keys.keys().map(|key| key.to_string().chars().count()).max().unwrap_or(0);
        let lines = self.keys.iter().map(|(key, readable)| {
            let section = match readable.section() {
                Section::Condition => String::new(),
                section => format!("  on {section}"),
            };
            format!("{:<width$}  {}{section}", key.to_string(), readable.batch())
        });
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}
