//! Election timeouts that differ between nodes and elections, and are the same again when a run is repeated.
//!
//! Raft draws them from the thread's random numbers, so no run of several nodes could be replayed. Each is therefore
//! replaced by one that is computed from the node, its run, the term and how often its clock has run out: spread as
//! evenly, but known.

use std::ops::Range;

/// The timeouts of one run of a node.
pub(crate) struct Timeouts {
    run: u64,
    span: Range<usize>,
    n_passed: u64,
}

impl Timeouts {
    /// Timeouts within `span`, in ticks, for the run that these numbers tell from others.
    pub(crate) fn new(run: [u64; 3], span: Range<usize>) -> Self {
        Self { run: run.into_iter().fold(0, |seed, number| mix(seed ^ number)), span, n_passed: 0 }
    }

    /// A timeout has passed: the next one is another.
    pub(crate) fn pass(&mut self) {
        self.n_passed += 1;
    }

    /// The timeout that counts now.
    pub(crate) fn ticks(&self, term: u64) -> usize {
        let drawn = mix(mix(self.run ^ term) ^ self.n_passed) % self.span.len().max(1) as u64;
        self.span.start + drawn as usize
    }
}

/// Spreads a number over all 64 bits (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn timeouts_fill_their_span_and_repeat_with_their_run() {
        let draw = |node| {
            let mut timeouts = Timeouts::new([0, node, 1], 15..24);
            (1..100)
                .map(|term| {
                    timeouts.pass();
                    timeouts.ticks(term)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!(draw(1).into_iter().collect::<BTreeSet<_>>(), (15..24).collect());
    }
}
