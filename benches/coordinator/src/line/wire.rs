//! A long line between two network namespaces, emulated: packets wait, some are lost, and only so many pass in a second. What
//! `tc netem` does where the kernel has it; this needs a TUN device only.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use tun_rs::{DeviceBuilder, SyncDevice};

/// What the line is like.
#[derive(Clone, Copy)]
pub(super) struct Line {
    /// Bits that pass in a second, each way.
    pub(super) rate: f64,
    /// From one end to the other and back.
    pub(super) round_trip: Duration,
    /// The share of packets that is lost, each way, at random.
    pub(super) loss: f64,
    /// How long a packet waits for its turn at most; one that would wait longer is lost.
    pub(super) queue: Duration,
}

/// Makes both ends, devices with these names in the caller's namespace, and carries what is sent into either until the process ends.
/// A device may be moved to another namespace afterwards.
pub(super) fn lay(line: Line, names: [&str; 2]) -> Result<()> {
    let end = |name: &str| anyhow::Ok(Arc::new(DeviceBuilder::new().name(name).build_sync()?));
    let [near, far] = [end(names[0])?, end(names[1])?];
    for (seed, from, to) in [(1, near.clone(), far.clone()), (2, far, near)] {
        let (sender, waiting) = mpsc::channel();
        thread::spawn(move || take_in(&from, line, seed, &sender));
        thread::spawn(move || give_out(&to, &waiting));
    }
    Ok(())
}

/// A packet, and when it is at the other end.
type Due = (Instant, Vec<u8>);

fn take_in(from: &SyncDevice, line: Line, seed: u64, waiting: &mpsc::Sender<Due>) {
    let (mut rng, mut free, mut packet) = (ChaCha8Rng::seed_from_u64(seed), Instant::now(), vec![0; LARGEST_PACKET]);
    while let Ok(size) = from.recv(&mut packet) {
        let now = Instant::now();
        let is_lost = f64::from(rng.next_u32()) < line.loss * f64::from(u32::MAX);
        if is_lost || free.saturating_duration_since(now) > line.queue {
            continue;
        }
        free = free.max(now) + Duration::from_secs_f64(size as f64 * 8.0 / line.rate);
        if waiting.send((free + line.round_trip / 2, packet[..size].to_vec())).is_err() {
            return;
        }
    }
}

fn give_out(to: &SyncDevice, waiting: &mpsc::Receiver<Due>) {
    for (due, packet) in waiting {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A device that is full loses it, as a real one would.
        let _ = to.send(&packet);
    }
}

/// An IP packet of the devices' size, which is Ethernet's.
const LARGEST_PACKET: usize = 1_500;
