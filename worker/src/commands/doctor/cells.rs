//! The cells that a site offers, and whether open tasks can use them.

use std::{collections::BTreeMap, path::Path};

use archipelago_anndata::align::align;
use archipelago_client::Client;
use archipelago_common::{
    Base, Name,
    finding::{Findings, in_words},
    fs, limits,
    policy::SitePolicy,
    record::{ReferenceHead, TaskState},
};
use archipelago_protocol::message::Which;

use super::of;
use crate::{
    config::{DataSection, SiteConfig},
    data::{DataSpec, SiteData},
    error::{Error, Result},
};

/// Opens the file of a data set as `serve` will.
pub(super) fn open(
    config: &SiteConfig,
    section: &DataSection,
    policy: &SitePolicy,
    findings: &mut Findings,
) -> Option<SiteData> {
    let what = of("cells", config, section);
    let opened = SiteData::open(section.spec(policy)).and_then(|data| data.check_writable().map(|()| data));
    let data = match opened {
        Ok(data) => data,
        Err(error) => {
            super::fail(findings, what, &error);
            return None;
        }
    };
    let mut n_by_batch = BTreeMap::<&str, u64>::new();
    for batch in data.batches() {
        *n_by_batch.entry(batch).or_default() += 1;
    }
    let found = format!(
        "`{}`: {} cells in {} batches of `{}`, {} genes",
        section.path.display(),
        data.n_cells(),
        n_by_batch.len(),
        section.batch_key,
        data.genes().len()
    );
    let small: Vec<_> = n_by_batch.iter().filter(|(_, n)| **n < policy.min_cells).map(|(batch, _)| *batch).collect();
    match small.is_empty() {
        true => findings.ok(what, found),
        false => {
            let found = format!("{found}; too small to leave under the policy: {}", small.join(", "));
            findings.warn(what, found, format!("`min_cells` is {} in the policy", policy.min_cells));
        }
    }
    Some(data)
}

/// Looks at what each open task's reference wants of the cells.
pub(super) async fn look_at_references(
    client: &Client,
    config: &SiteConfig,
    cells: &[(&DataSection, SiteData)],
    findings: &mut Findings,
) {
    let tasks = match client.tasks(Which::Open).await {
        Ok(tasks) => tasks,
        Err(error) => return findings.fail("tasks", in_words(&error), error.hint()),
    };
    let ours = tasks.iter().filter(|task| task.state == TaskState::Open && task.task.allows(&config.site));
    let mut by_reference = BTreeMap::<&Name, Vec<String>>::new();
    for task in ours {
        by_reference.entry(&task.task.reference).or_default().push(task.id.to_string());
    }
    if by_reference.is_empty() {
        return findings.ok("tasks", "none is open for this site at the moment");
    }
    for (name, tasks) in by_reference {
        let what = format!("reference {name}");
        let asked = format!("of task {}", tasks.join(", "));
        let reference = match client.reference(name).await {
            Ok(reference) => reference,
            Err(error) => {
                findings.fail(what, in_words(&error), error.hint());
                continue;
            }
        };
        if reference.base.size > LARGEST_LOOKED_AT {
            let found = format!("{asked}: {} MiB, too large to be fetched for a look", reference.base.size >> 20);
            findings.ok(what, found);
            continue;
        }
        for (section, cells) in cells {
            let what = of(&what, config, section);
            match genes_found(client, &reference, cells, config).await {
                Ok((n_found, n_panel)) => judge(what, &asked, n_found, n_panel, findings),
                Err(error) => super::fail(findings, what, &error),
            }
        }
    }
}

fn judge(what: String, asked: &str, n_found: usize, n_panel: usize, findings: &mut Findings) {
    let found = format!("{asked}: {n_found} of its {n_panel} genes are in the cells");
    let share = n_found as f64 / n_panel.max(1) as f64;
    if n_found == 0 {
        findings.fail(
            what,
            found,
            Some("genes are compared letter by letter: symbols are no Ensembl ids (`archipelago-worker inspect`)"),
        );
    } else if share < FEW_GENES {
        findings.warn(
            what,
            found,
            "missing genes count as zero; a reference of fewer genes would map these cells better",
        );
    } else {
        findings.ok(what, found);
    }
}

/// How many of a reference's genes the cells have, seen through its card as a task would.
async fn genes_found(
    client: &Client,
    reference: &ReferenceHead,
    cells: &SiteData,
    config: &SiteConfig,
) -> Result<(usize, usize)> {
    let kept = config.state_dir.join("blobs").join(reference.base.digest.to_string());
    let scratch = tempfile::tempdir().map_err(|source| Error::Runtime { source })?;
    let path = match kept.exists() {
        true => kept,
        false => {
            let path = scratch.path().join("base");
            client.get_blob(reference.base, &path, |_| ()).await?;
            path
        }
    };
    let spec = cells.spec().clone();
    tokio::task::block_in_place(|| compare(&path, reference, spec))
}

fn compare(path: &Path, reference: &ReferenceHead, spec: DataSpec) -> Result<(usize, usize)> {
    let failed = |source| Error::Reference { path: path.into(), source };
    let bytes = fs::read_bounded(path, limits::BLOB_BYTES).map_err(failed)?;
    reference.base.verify("the reference", &bytes).map_err(failed)?;
    let card = Base::from_bytes(&bytes).map_err(failed)?.card;
    let (path, duplicates) = (spec.path.clone(), spec.duplicate_genes);
    let data = SiteData::open(spec.seen_through(&card)?)?;
    let alignment = align(data.genes(), &card.genes, duplicates).map_err(|source| Error::Cells { path, source })?;
    Ok((alignment.n_found, alignment.n_panel))
}

/// A reference beyond this is not fetched for a look; most have a few MiB.
const LARGEST_LOOKED_AT: u64 = 256 << 20;
/// With fewer of a reference's genes a mapping says little.
const FEW_GENES: f64 = 0.7;
