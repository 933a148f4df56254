//! Before anything is trained: the reference is fetched, and every data set that has a part in the task is read and checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use archipelago_anndata::Storage;
use archipelago_common::{
    Base, Section,
    blob::BlobRef,
    condition::{Columns, ConditionKey},
    fs,
    hash::Digest,
    id::Name,
    layout::Layout,
    limits,
    part::Member,
    policy::EmbeddingRelease,
    record::BaseSummary,
    task::TrainSpec,
    tree::{self, Sharing},
};
use archipelago_models::{
    Device, Error as Models, Extension, layout_of, parts::Parts as KnownParts, surgery::Start, zoo,
};

use super::{SurgeryTask, blocking};
use crate::{
    bounds,
    checkpoint::Checkpoints,
    data::{AlignedCounts, SiteData},
    error::{Error, Result},
    faults,
    holding::{self, Holding},
    mapping::{QueryGroup, Surgeon},
    memory::{self, Handling, Spilled},
    naming::NameTable,
    session::Reason,
    shared_tree::{TreeParts, Wanted},
};

/// What is mapped onto: the same for every data set of the site.
pub(super) struct Onto {
    pub(super) base: Base,
    pub(super) base_digest: Digest,
    pub(super) layout: Layout,
    /// Members of parts by which the model maps, and those of a tree.
    pub(super) parts: BTreeMap<ConditionKey, Member>,
    /// What the task's version says of trees, where the reference has them.
    pub(super) tree: Option<TreeParts>,
    /// What is there of the site in the current version.
    pub(super) merged: BTreeSet<ConditionKey>,
    /// What this site adds to the reference's model.
    pub(super) extension: Extension,
    pub(super) train: TrainSpec,
    pub(super) device: Device,
    pub(super) checkpoints: Checkpoints,
}

/// A data set, loaded and checked: everything that training needs.
pub(super) struct Prepared {
    pub(super) onto: Arc<Onto>,
    pub(super) holding: Holding,
    pub(super) data: SiteData,
    pub(super) n_genes_found: usize,
    pub(super) gene_coverage: f64,
    pub(super) groups: Vec<QueryGroup>,
    pub(super) withheld: BTreeMap<ConditionKey, String>,
    /// What the keys stand for, at this site alone.
    pub(super) names: NameTable,
    /// Where the columns of each key begin, where the policy hides it.
    pub(super) starts: Option<BTreeMap<ConditionKey, Columns>>,
}

impl SurgeryTask<'_> {
    /// Fetches what is missing of the reference and reads the data sets that have a part in the task.
    pub(super) async fn prepare(&mut self) -> Result<Vec<Arc<Prepared>>> {
        let task = &self.record.task;
        let holdings = holding::taking_part(&self.site.holdings, &self.vouched.reference, self.record);
        let holdings: Vec<Holding> = holdings.unwrap_or_default().into_iter().cloned().collect();
        let holdings = some_of(holdings, |holding| bounds::check_task(&holding.policy.tasks, task))?;
        // All versions of a reference have one base, and columns depend on nothing else.
        let (blob, current) = (self.vouched.reference.base, self.vouched.reference.current);
        let merged = self.site.uplink.merged(&task.reference, current, &self.site.config.site).await?;
        let path = self.cached(blob).await?;
        let base = self.beside_renewals(blocking(move || open(&path, blob))).await?;
        let holdings = some_of(holdings, |holding| bounds::check_reference(&holding.policy.tasks, &base))?;
        if BaseSummary::from(&base.card) != self.vouched.reference.summary {
            return Err(Error::OtherCard { reference: self.vouched.reference.name.clone() });
        }
        // Anew for each task: what is available changes while a worker serves.
        let storage = memory::storage(self.site.config.memory, &self.site.config.scratch);
        let onto = Arc::new(self.onto(base, blob.digest, merged).await?);
        let mut prepared = Vec::new();
        for holding in holdings {
            let dataset = holding.dataset.clone();
            prepared.push((dataset, self.prepare_data(onto.clone(), holding, storage.clone()).await));
        }
        Ok(some(prepared)?.into_iter().map(Arc::new).collect())
    }

    /// What is mapped onto, with what a model maps by and a tree asks for.
    async fn onto(&mut self, base: Base, base_digest: Digest, merged: BTreeSet<ConditionKey>) -> Result<Onto> {
        let layout = layout_of(&base)?;
        let parts = self.members(&base, &layout).await?;
        Ok(Onto {
            tree: if tree::is_declared(&layout) { Some(TreeParts::new(&parts)?) } else { None },
            extension: self.site.config.adds.to_task(&base.card)?,
            parts,
            layout,
            base,
            base_digest,
            merged,
            train: self.record.task.train.clone(),
            device: self.site.device,
            checkpoints: self.site.checkpoints.clone(),
        })
    }

    /// Reads a data set.
    async fn prepare_data(&mut self, onto: Arc<Onto>, holding: Holding, storage: Storage) -> Result<Prepared> {
        let (spec, seen) = (holding.spec.clone(), onto.clone());
        let quiet = Handling::quiet(storage.clone());
        let opened = blocking(move || {
            let data = SiteData::open(spec.seen_through(&seen.base.card)?)?.handled(quiet);
            data.check_writable()?;
            Ok(data)
        });
        let data = self.beside_renewals(opened).await?;
        let data = match holding.policy.new_labels {
            true => data,
            false => data.with_labels_among(&onto.base.card.labels),
        };
        let (data, withheld) = self.withhold(data, &holding, &onto)?;
        let names = NameTable::path(&self.site.config.state_dir);
        let read = blocking(move || {
            let keys = holding.naming.keys(&data, &onto.layout)?;
            let AlignedCounts { counts, alignment, .. } = data.counts_by_group(&onto.base.card.genes, &keys.groups)?;
            let names = NameTable::read(&names)?;
            if let Some(spilled) = Spilled::of(&storage) {
                tracing::info!(%spilled, "the data are larger than the memory that they may take");
            }
            Ok(Prepared {
                groups: QueryGroup::all(&data, &keys, counts, &alignment),
                onto,
                holding,
                data,
                n_genes_found: alignment.n_found,
                gene_coverage: alignment.coverage(),
                withheld,
                names,
                starts: None,
            })
        });
        let mut prepared = self.beside_renewals(read).await?;
        self.check_training(&prepared)?;
        prepared.starts = self.hidden_starts(&prepared);
        self.check_adds(&prepared)?;
        prepared.require_news(&Wanted {
            asks: self.record.task.asks,
            sharing: prepared.sharing(),
            merged: &prepared.onto.merged,
        })?;
        Ok(prepared)
    }

    /// Fetches the members of parts by which the model maps, and those of a tree: of those in the task's version, so that every
    /// site maps by the same and sees the same tree.
    async fn members(&mut self, base: &Base, layout: &Layout) -> Result<BTreeMap<ConditionKey, Member>> {
        let card = &base.card;
        let (maps_by, has_tree) = (zoo::model(&card.model)?.maps_by(), tree::is_declared(layout));
        if maps_by.is_empty() && !has_tree {
            return Ok(BTreeMap::new());
        }
        let known = KnownParts::new(card, BTreeMap::new());
        let is_needed = |key: &ConditionKey| match key.section() {
            Section::Part(name) => {
                let maps = maps_by.contains(&name.as_str()) && known.is_of_reference(key);
                maps || (has_tree && [tree::MACHINES, tree::POINTS, tree::COUNTS].contains(&name.as_str()))
            }
            Section::Condition | Section::Axis(_) => false,
        };
        let mut there = self.vouched.held.clone();
        there.retain(|key, _| is_needed(key));
        let mut members = BTreeMap::new();
        for (key, blob) in there {
            let path = self.cached(blob).await?;
            let failed = |source| Error::Reference { path: path.clone(), source };
            let bytes = fs::read_bounded(&path, limits::PART_BYTES).map_err(failed)?;
            blob.verify("a member of a part", &bytes).map_err(failed)?;
            if let Some(rule) = layout.rule(key.section()) {
                members.insert(key, Member::from_bytes(rule, &bytes).map_err(failed)?);
            }
        }
        Ok(members)
    }

    /// Path of a blob in the site's cache, fetched if it is not there. What is there is verified when it is loaded.
    async fn cached(&mut self, blob: BlobRef) -> Result<PathBuf> {
        let dir = self.site.config.state_dir.join("blobs");
        fs::create_dir(&dir)?;
        let path = dir.join(blob.digest.to_string());
        let kept = path.clone();
        let is_whole = blocking(move || Ok(kept.exists() && fs::blob_ref(&kept)? == blob)).await?;
        if !is_whole {
            tracing::info!(%blob, "fetching the reference");
            let (uplink, target) = (self.site.uplink.clone(), path.clone());
            self.beside_renewals(async move { faults::fetch(&uplink, blob, &target).await }).await?;
        }
        Ok(path)
    }
}

impl Prepared {
    pub(super) fn surgeon(&self) -> Surgeon<'_> {
        let onto = &self.onto;
        Surgeon {
            base: &onto.base,
            base_digest: onto.base_digest,
            extension: &onto.extension,
            train: &onto.train,
            compute: onto.device.into(),
            checkpoints: Some(&onto.checkpoints),
            parts: &onto.parts,
            start: self.starts.as_ref().map_or(Start::Asked, Start::At),
        }
    }

    /// What the cells may tell their types apart with: themselves, where the publisher takes positions and the policy gives them.
    pub(super) fn sharing(&self) -> Sharing {
        let takes_points = self.onto.layout.parts.keys().any(|part| part.as_str() == tree::POINTS);
        match takes_points && self.holding.policy.embeddings == EmbeddingRelease::Full {
            true => Sharing::Points,
            false => Sharing::Machines,
        }
    }
}

/// Those that pass a check, as [`some`] has it.
fn some_of(holdings: Vec<Holding>, check: impl Fn(&Holding) -> Result<()>) -> Result<Vec<Holding>> {
    some(holdings.into_iter().map(|holding| (holding.dataset.clone(), check(&holding).map(|()| holding))))
}

/// What there is of some data sets: one that can have no part in the task is left out as long as another has.
///
/// # Errors  what keeps the last of them out, if that is all; anything else that is wrong with one, as the task is done once
fn some<T>(found: impl IntoIterator<Item = (Name, Result<T>)>) -> Result<Vec<T>> {
    let (mut there, mut left_out) = (Vec::new(), Vec::new());
    for (dataset, found) in found {
        match found {
            Ok(found) => there.push(found),
            Err(error) if is_of_data_set(&error) => left_out.push((dataset, error)),
            Err(error) => return Err(error),
        }
    }
    if let Some((_, error)) = left_out.pop_if(|_| there.is_empty()) {
        return Err(error);
    }
    for (dataset, error) in left_out {
        tracing::warn!(%dataset, %error, "a data set is left out");
    }
    Ok(there)
}

/// Whether an error is one data set's, which cannot have a part in the task whatever is mended.
fn is_of_data_set(error: &Error) -> bool {
    match error {
        Error::FieldNotGiven { .. } | Error::Models(Models::MissingField { .. }) => true,
        _ => matches!(Reason::of(error), Reason::NoCommonGenes | Reason::NothingMayLeave | Reason::Declined(_)),
    }
}

fn open(path: &Path, blob: BlobRef) -> Result<Base> {
    let failed = |source| Error::Reference { path: path.into(), source };
    let bytes = fs::read_bounded(path, limits::BLOB_BYTES).map_err(failed)?;
    blob.verify("the reference", &bytes).map_err(failed)?;
    Base::from_bytes(&bytes).map_err(failed)
}
