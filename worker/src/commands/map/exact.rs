//! Exact surgery: each batch by itself, its own columns and nothing else.

use std::{sync::Mutex, time::Instant};

use archipelago_common::{Section, condition::Columns, progress::Continue, reference_dir::ReferenceDir};
use archipelago_models::Surgery;

use super::{Mapped, Mapping};
use crate::{
    checkpoint::Checkpoints,
    error::Result,
    existing, local,
    mapping::{self, QueryBatch, Surgeon},
    output::Output,
};

pub(super) fn map(mapping: &Mapping<'_>, output: &Output) -> Result<Mapped> {
    let (args, reference) = (mapping.args, &mapping.parent.reference);
    let checkpoints = Checkpoints::open(&args.out.join(existing::CHECKPOINTS), args.plan.checkpoint_every)?;
    let surgeon = Surgeon {
        base: &reference.base,
        base_digest: mapping.parent.dir.version().base.digest,
        train: &mapping.train,
        compute: args.compute.into(),
        checkpoints: Some(&checkpoints),
    };
    let surgeries = train(&surgeon, &mapping.batches, output)?;
    let trained = Instant::now();
    let mapped = || mapping.batches.iter().zip(&surgeries);
    let mut grown = reference.columns.clone();
    grown.extend(mapped().map(|(batch, surgery)| (batch.key.clone(), surgery.columns.clone())));
    existing::begin(&args.out)?;
    let mut parts = reference.parts.clone();
    for (batch, contribution) in mapped().flat_map(|(batch, s)| s.contributions.iter().map(move |c| (batch, c))) {
        let key = batch.key.clone().in_section(Section::Part(contribution.part.clone()));
        parts.insert(key, contribution.value.clone());
    }
    let dir = ReferenceDir::write_with_parts(&args.out, &reference.base, &grown, &parts)?;
    local::write(&args.out, mapped().map(|(batch, surgery)| (&batch.key, &surgery.local)))?;
    write_cells(mapping, &surgeon, &surgeries)?;
    let (card, coverage) = (&reference.base.card, mapping.alignment.coverage());
    Ok(Mapped {
        trained,
        dir,
        // The same for all: they are of one model.
        engine: surgeries.first().map(|surgery| surgery.engine),
        history: mapped().map(|(batch, surgery)| (batch.key.to_string(), surgery.history.clone())).collect(),
        conditions: mapped()
            .map(|(batch, surgery)| (batch.key.clone(), mapping::metrics(card, surgery, coverage)))
            .collect(),
    })
}

fn train(surgeon: &Surgeon<'_>, batches: &[QueryBatch], output: &Output) -> Result<Vec<Surgery>> {
    let mut n_epochs = 0;
    for batch in batches {
        n_epochs += u64::from(surgeon.n_epochs(batch.cells.len())?);
    }
    let display = Mutex::new(output.training(n_epochs));
    let surgeries = surgeon.map_all(
        batches,
        &mapping::shared(&display, |display, key, report| {
            display.epoch(&key.to_string(), report);
            Continue::Yes
        }),
    );
    display.into_inner().unwrap_or_else(|e| e.into_inner()).finish();
    surgeries
}

fn write_cells(mapping: &Mapping<'_>, surgeon: &Surgeon<'_>, surgeries: &[Surgery]) -> Result<()> {
    let positions = |columns: &dyn Fn(&Surgery) -> Columns| {
        let each = mapping.batches.iter().zip(surgeries);
        each.map(|(batch, surgery)| surgeon.latent(batch, &columns(surgery), &surgery.local))
            .collect::<Result<Vec<_>>>()
    };
    let mut layers = vec![(mapping::OBSM_KEY, positions(&|surgery| surgery.columns.clone())?)];
    if mapping.args.untrained {
        layers.push(("X_archipelago_untrained", positions(&|surgery| surgery.initial.clone())?));
    }
    mapping.write_cells(&layers)
}
