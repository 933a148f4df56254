//! Rows that the next minibatches take, asked of the system before they are wanted.
//!
//! Minibatches take cells in random order. Where counts lie in scratch files, a row that is not in memory would stop
//! the step until the disk has answered, one row after the other; asked for ahead, the answers come side by side.

use std::{
    sync::mpsc::{Receiver, sync_channel},
    thread::{self, JoinHandle},
};

use archipelago_anndata::{Access, Csr, Stored};

use super::Order;

/// A thread that runs ahead of an epoch's steps; none where everything is in memory.
pub(super) struct RowsAhead {
    counts: Csr,
    running: Option<(Receiver<()>, JoinHandle<()>)>,
}

impl RowsAhead {
    /// Starts before the first step of an epoch in this order. `kept` is what else is looked up by cell, so many numbers each.
    pub(super) fn start(counts: &Csr, kept: Option<(Stored<f32>, usize)>, order: &Order) -> Self {
        let counts = counts.clone();
        let kept = kept.filter(|(rows, _)| rows.is_spilled());
        if !counts.is_spilled() && kept.is_none() {
            return Self { counts, running: None };
        }
        counts.expect(Access::Random);
        let (sender, receiver) = sync_channel(STEPS_AHEAD);
        let (rows, order) = (counts.clone(), order.clone());
        let ask = move || {
            for cells in order.minibatches() {
                for &cell in cells {
                    rows.will_need(cell);
                    if let Some((kept, width)) = &kept {
                        kept.will_need(cell * width..(cell + 1) * width);
                    }
                }
                // The epoch is over when nobody receives.
                if sender.send(()).is_err() {
                    return;
                }
            }
        };
        // Without the thread everything goes on, more slowly where the disk is waited for.
        let thread = thread::Builder::new().name("rows ahead".to_owned()).spawn(ask).ok();
        Self { counts, running: thread.map(|thread| (receiver, thread)) }
    }

    /// A step begins.
    pub(super) fn step(&self) {
        if let Some((asked, _)) = &self.running {
            // A step does not wait for the asking.
            let _ = asked.try_recv();
        }
    }
}

impl Drop for RowsAhead {
    fn drop(&mut self) {
        if let Some((asked, thread)) = self.running.take() {
            drop(asked);
            let _ = thread.join();
            self.counts.expect(Access::Sequential);
        }
    }
}

/// Minibatches asked for beyond the one that is computed.
const STEPS_AHEAD: usize = 16;
