//! Numbers of the real upstream packages, reproduced: forward passes, losses, gradients, optimiser steps, surgery.
//!
//! Cases are read from `$ARCHIPELAGO_GOLDEN/<model>` (or that folder itself), else from the repository's copy. Every
//! case found is run: a case that no test knows fails, as does a folder without one. One model's tests:
//! `cargo nextest run --release -p archipelago-models --test golden -- scvi`.

#[path = "golden/case.rs"]
mod case;
#[path = "golden/expimap/mod.rs"]
mod expimap;
#[path = "golden/import.rs"]
mod import;
#[path = "golden/import_scanvi.rs"]
mod import_scanvi;
#[path = "golden/import_scvi.rs"]
mod import_scvi;
#[path = "golden/import_totalvi.rs"]
mod import_totalvi;
#[path = "golden/multigrate/mod.rs"]
mod multigrate;
#[path = "golden/mvtcr/mod.rs"]
mod mvtcr;
#[path = "golden/native.rs"]
mod native;
#[path = "golden/noise.rs"]
mod noise;
#[path = "golden/runner/mod.rs"]
mod runner;
#[path = "golden/sagenet/mod.rs"]
mod sagenet;
#[path = "golden/scanvi/mod.rs"]
mod scanvi;
#[path = "golden/scgen/mod.rs"]
mod scgen;
#[path = "golden/scpoli/mod.rs"]
mod scpoli;
#[path = "golden/scvi/mod.rs"]
mod scvi;
#[path = "golden/totalvi/mod.rs"]
mod totalvi;
#[path = "golden/trvae/mod.rs"]
mod trvae;
