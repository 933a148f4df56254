//! Exact surgery: each batch by itself, its own columns and nothing else.

use std::{collections::BTreeMap, sync::Mutex, time::Instant};

use archipelago_common::{
    ConditionKey, Section, StateDict, condition::Columns, progress::Continue, reference_dir::ReferenceDir,
};
use archipelago_models::{
    surgery::{JointSurgery, Start},
    zoo,
};

use super::{Mapped, Mapping};
use crate::{
    checkpoint::Checkpoints,
    error::Result,
    existing, local,
    mapping::{self, QueryGroup, Surgeon},
    output::Output,
};

/// Maps each batch from where its columns start.
pub(super) fn map(mapping: &Mapping<'_>, start: Start<'_>, output: &Output) -> Result<Mapped> {
    let (args, reference) = (mapping.args, &mapping.parent.reference);
    let checkpoints = Checkpoints::open(&args.out.join(existing::CHECKPOINTS), args.plan.checkpoint_every)?;
    let surgeon = Surgeon {
        base: &reference.base,
        base_digest: mapping.parent.dir.version().base.digest,
        extension: &mapping.extension,
        train: &mapping.train,
        compute: args.compute.into(),
        checkpoints: Some(&checkpoints),
        parts: &reference.parts,
        start,
    };
    let surgeries = train(&surgeon, &mapping.groups, output)?;
    let trained = Instant::now();
    let mapped = || mapping.groups.iter().zip(&surgeries);
    let mut grown = reference.columns.clone();
    grown.extend(surgeries.iter().flat_map(|surgery| surgery.columns.clone()));
    existing::begin(&args.out)?;
    let (mut parts, stays) = (reference.parts.clone(), zoo::model(&reference.base.card.model)?.kept_parts());
    for (condition, contributions) in surgeries.iter().flat_map(|surgery| &surgery.contributions) {
        for contribution in contributions.iter().filter(|one| !stays.contains(&one.part.as_str())) {
            let key = condition.clone().in_section(Section::Part(contribution.part.clone()));
            parts.insert(key, contribution.value.clone());
        }
    }
    let dir = ReferenceDir::write_with_parts(&args.out, &reference.base, &grown, &parts)?;
    let of_group = |(group, surgery): (&QueryGroup, &JointSurgery)| {
        group.conditions.keys().iter().map(|key| (key.clone(), surgery.local.clone())).collect::<Vec<_>>()
    };
    let kept: Vec<(ConditionKey, StateDict)> = mapped().flat_map(of_group).collect();
    local::write(&args.out, kept.iter().map(|(key, local)| (key, local)))?;
    write_cells(mapping, &surgeon, &surgeries)?;
    let (card, coverage) = (&reference.base.card, mapping.alignment.coverage());
    Ok(Mapped {
        trained,
        dir,
        // The same for all: they are of one model.
        engine: surgeries.first().map(|surgery| surgery.engine),
        history: mapped().map(|(group, surgery)| (group.name(), surgery.history.clone())).collect(),
        likeness: BTreeMap::new(),
        conditions: mapped().flat_map(|(group, surgery)| mapping::metrics(card, group, surgery, coverage)).collect(),
    })
}

fn train(surgeon: &Surgeon<'_>, groups: &[QueryGroup], output: &Output) -> Result<Vec<JointSurgery>> {
    let mut n_epochs = 0;
    for group in groups {
        n_epochs += u64::from(surgeon.n_epochs(group.cells.len())?);
    }
    let display = Mutex::new(output.training(n_epochs));
    let surgeries = surgeon.map_all(
        groups,
        &mapping::shared(&display, |display, group, report| {
            display.epoch(&group.name(), report);
            Continue::Yes
        }),
    );
    display.into_inner().unwrap_or_else(|e| e.into_inner()).finish();
    surgeries
}

fn write_cells(mapping: &Mapping<'_>, surgeon: &Surgeon<'_>, surgeries: &[JointSurgery]) -> Result<()> {
    let positions = |columns: &dyn Fn(&JointSurgery) -> BTreeMap<ConditionKey, Columns>| {
        let each = mapping.groups.iter().zip(surgeries);
        each.map(|(group, surgery)| surgeon.latent(group, columns(surgery), &surgery.local)).collect::<Result<Vec<_>>>()
    };
    let mut layers = vec![(mapping::OBSM_KEY, positions(&|surgery| surgery.columns.clone())?)];
    if mapping.args.untrained {
        layers.push(("X_archipelago_untrained", positions(&|surgery| surgery.initial.clone())?));
    }
    mapping.write_cells(&layers)
}
