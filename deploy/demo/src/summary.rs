//! What the demonstration found, as `summary.json` holds it.

use archipelago_common::record::Event;
use serde::Serialize;

use crate::{proofs::Exact, quality::Quality};

/// Everything in `summary.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The claims of exact federation, as computed.
    pub exact: Exact,
    /// Mapping quality in three latent spaces.
    pub quality: Quality,
    /// What each site sent and kept.
    pub sites: Vec<Site>,
    /// How the reference came to be: published, merged, withdrawn.
    pub lineage: Vec<Event>,
    /// How often the leading coordinator was killed.
    pub leader_kills: u32,
    /// Acknowledged submissions that the final reference does not hold.
    pub lost: usize,
    /// Where the cells came from: `synthetic` or the name of the file.
    pub data: String,
    /// The seed.
    pub seed: u64,
    /// Epochs of reference training.
    pub reference_epochs: u32,
    /// Epochs of surgery.
    pub surgery_epochs: u32,
    /// From the first process to the last proof.
    pub seconds: f64,
    /// Where the time went.
    pub phases: Vec<Phase>,
}

impl Summary {
    /// Whether every claim held.
    pub fn holds(&self) -> bool {
        let Exact { order_free, earlier_bit_identical, withdraw_restores, repeatable, .. } = self.exact;
        order_free && earlier_bit_identical && withdraw_restores && repeatable && self.lost == 0
    }
}

/// How a demonstration of contributions went, whatever they are.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What each site sent and kept.
    pub sites: Vec<Site>,
    /// How the reference came to be.
    pub lineage: Vec<Event>,
    /// How often the leading coordinator was killed.
    pub leader_kills: u32,
    /// Sites whose contributions the version lacks though they were told that they are accepted.
    pub lost: usize,
    /// From the first process to the last proof.
    pub seconds: f64,
    /// Where the time went.
    pub phases: Vec<Phase>,
}

/// One site's account.
#[derive(Clone, Debug, Serialize)]
pub struct Site {
    /// Its name.
    pub site: String,
    /// The batch it holds.
    pub batch: String,
    /// Its cells.
    pub n_cells: usize,
    /// What left, by kind; read from the site's own audit log.
    pub bytes_out: BytesOut,
    /// Size of its data, which stayed.
    pub bytes_kept: u64,
}

/// Bytes that left a site.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct BytesOut {
    /// Trained columns.
    pub columns: u64,
    /// Embeddings; the default policy lets none out.
    pub embeddings: u64,
    /// Aggregate figures and progress.
    pub metrics: u64,
    /// Contributions that are no columns.
    pub parts: u64,
}

/// One part of the run.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
}
