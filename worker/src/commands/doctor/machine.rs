//! Disk, memory and processor, as the worker would use them.

use std::{path::Path, thread};

use archipelago_common::finding::Findings;
use archipelago_models::Device;
use bytesize::ByteSize;

use super::nearest;
use crate::{
    commands::DeviceArg,
    config::{DataSection, SiteConfig},
    data::SiteData,
    memory,
};

pub(super) fn look(
    config: &SiteConfig,
    device: DeviceArg,
    cells: &[(&DataSection, SiteData)],
    findings: &mut Findings,
) {
    look_at_disk("state_dir", &config.state_dir, findings);
    look_at_disk("out_dir", &config.out_dir, findings);
    if config.scratch != config.state_dir {
        look_at_disk("scratch", &config.scratch, findings);
    }
    look_at_memory(config, cells, findings);
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    findings.ok(
        "device",
        match Device::from(device) {
            Device::Cpu => format!("processor, {n_threads} threads; libtorch is there"),
            Device::Cuda(index) => format!("CUDA device {index}; libtorch is there"),
        },
    );
}

fn look_at_disk(field: &str, dir: &Path, findings: &mut Findings) {
    let (what, exists) = (format!("disk, {field}"), nearest(dir));
    let writable = rustix::fs::access(exists, rustix::fs::Access::WRITE_OK);
    let free = rustix::fs::statvfs(exists).map(|of| ByteSize(of.f_bavail.saturating_mul(of.f_frsize)));
    if !exists.is_dir() {
        let found = format!("`{}` is no directory, so that `{}` cannot be made", exists.display(), dir.display());
        return findings.fail(what, found, Some("name another directory"));
    }
    match (writable, free) {
        (Err(error), _) => {
            let advice = "let the worker's user write there, or name another directory";
            findings.fail(what, format!("`{}` cannot be written: {error}", exists.display()), Some(advice));
        }
        (_, Err(error)) => findings.fail(what, format!("`{}`: {error}", exists.display()), None::<String>),
        (_, Ok(free)) if free < LITTLE_DISK => {
            let found = format!("`{}` has {free} free", dir.display());
            findings.warn(what, found, "make room: checkpoints, mapped cells and the audit log go there");
        }
        (_, Ok(free)) => findings.ok(what, format!("`{}` has {free} free", dir.display())),
    }
}

fn look_at_memory(config: &SiteConfig, cells: &[(&DataSection, SiteData)], findings: &mut Findings) {
    let may_take = memory::storage(config.memory, &config.scratch).limit();
    let said = if config.memory.is_some() { "as configured" } else { "half of what is available" };
    let beyond = "; what is beyond goes to scratch files";
    let offered = match cells {
        [] => String::new(),
        all => format!(" for {} cells", all.iter().map(|(_, cells)| cells.n_cells()).sum::<usize>()),
    };
    findings.ok("memory", format!("counts may take {}{offered}, {said}{beyond}", ByteSize(may_take)));
}

/// With less room a mapping may not find place.
const LITTLE_DISK: ByteSize = ByteSize::gib(1);
