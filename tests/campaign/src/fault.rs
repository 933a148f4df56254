//! What can happen, and in which order it does.

use std::fmt;

use rand_chacha::ChaCha8Rng;

use crate::{network::Way, payload};

/// To whom it happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Victim {
    /// The coordinator that leads.
    Leader,
    /// One that does not.
    Follower,
    /// All three at once.
    AllNodes,
    /// A site.
    Site,
    /// The operator's command that publishes a reference.
    Publisher,
}

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Blow {
    /// kill -9, and a start on the old data.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Stop,
    /// Datagrams are lost, this way, until healed.
    Cut(Way),
}

/// In the middle of what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Window {
    /// Whatever happens to go on.
    Any,
    /// A site uploads a blob of many chunks.
    Upload,
    /// A site downloads a base of many chunks.
    Download,
    /// A submission is on its way, its answer has not come.
    Submit,
    /// A submission is committed and its answer cannot reach the site.
    Reply,
    /// A task is being closed and its submissions merged.
    Merge,
    /// The operator's command uploads and publishes a reference.
    Publish,
}

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fault {
    /// What.
    pub blow: Blow,
    /// To whom.
    pub victim: Victim,
    /// When.
    pub window: Window,
}

impl Fault {
    /// Processes that it kills.
    pub fn n_kills(self) -> u32 {
        match (self.blow, self.victim) {
            (Blow::Kill, Victim::AllNodes) => 3,
            (Blow::Kill, _) => 1,
            (Blow::Stop | Blow::Cut(_), _) => 0,
        }
    }

    /// Whether the time to the next acknowledged write is the failover of `failover_ms`.
    pub fn is_leader_kill(self) -> bool {
        self.blow == Blow::Kill && self.victim == Victim::Leader
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blow = match self.blow {
            Blow::Kill => "kill",
            Blow::Stop => "stop",
            Blow::Cut(Way::Both) => "cut off",
            Blow::Cut(Way::Out) => "mute",
            Blow::Cut(Way::In) => "deafen",
        };
        let victim = match self.victim {
            Victim::Leader => "leader",
            Victim::Follower => "follower",
            Victim::AllNodes => "all coordinators",
            Victim::Site => "site",
            Victim::Publisher => "publisher",
        };
        let window = match self.window {
            Window::Any => "at any time",
            Window::Upload => "mid-upload",
            Window::Download => "mid-download",
            Window::Submit => "mid-submission",
            Window::Reply => "between commit and reply",
            Window::Merge => "mid-merge",
            Window::Publish => "mid-publish",
        };
        write!(f, "{blow} {victim} {window}")
    }
}

/// Faults without end: a deck in which each stands as often as it matters, shuffled anew each time it is used up.
#[derive(Debug)]
pub struct Schedule {
    rng: ChaCha8Rng,
    faults: Vec<Fault>,
    deck: Vec<Fault>,
}

impl Schedule {
    /// The schedule of a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: payload::rng(seed, "schedule"), faults: deck(), deck: Vec::new() }
    }

    /// The same without cuts, for a network that cannot make them; an answer is held back by one, too.
    #[must_use]
    pub fn without_cuts(mut self) -> Self {
        self.faults.retain(|fault| !matches!(fault.blow, Blow::Cut(_)) && fault.window != Window::Reply);
        self
    }

    /// The next fault.
    pub fn next_fault(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = self.faults.clone();
            for i in (1..self.deck.len()).rev() {
                self.deck.swap(i, payload::below(&mut self.rng, i as u64 + 1) as usize);
            }
        }
        self.deck.pop().expect("a new deck is not empty")
    }
}

fn deck() -> Vec<Fault> {
    use {Blow::*, Victim::*, Window::*};
    let often = [
        (Kill, Leader, Upload),
        (Kill, Leader, Submit),
        (Kill, Leader, Reply),
        (Kill, Leader, Merge),
        (Kill, Leader, Publish),
    ];
    let once = [
        (Kill, Leader, Any),
        (Kill, Leader, Download),
        (Kill, Follower, Upload),
        (Kill, Follower, Submit),
        (Kill, Follower, Merge),
        (Kill, Follower, Publish),
        (Kill, AllNodes, Submit),
        (Kill, Site, Upload),
        (Kill, Site, Upload),
        (Kill, Site, Download),
        (Kill, Site, Submit),
        (Kill, Site, Reply),
        (Kill, Publisher, Publish),
        (Stop, Leader, Submit),
        (Stop, Leader, Merge),
        (Stop, Follower, Upload),
        (Stop, Site, Upload),
        (Cut(Way::Both), Leader, Submit),
        (Cut(Way::Out), Leader, Submit),
        (Cut(Way::In), Leader, Submit),
        (Cut(Way::Both), Follower, Upload),
        (Cut(Way::Both), Site, Upload),
    ];
    let fault = |(blow, victim, window)| Fault { blow, victim, window };
    often.into_iter().chain(often).chain(once).map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_and_a_deck_holds_every_window() {
        let draw = |seed| {
            let mut schedule = Schedule::new(seed);
            (0..deck().len()).map(|_| schedule.next_fault()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut uncut = Schedule::new(1).without_cuts();
        let needs_none = |fault: Fault| !matches!(fault.blow, Blow::Cut(_)) && fault.window != Window::Reply;
        assert!((0..deck().len()).all(|_| needs_none(uncut.next_fault())));
        for window in [Window::Upload, Window::Download, Window::Submit, Window::Reply, Window::Merge, Window::Publish]
        {
            assert!(draw(3).iter().any(|fault| fault.window == window), "{window:?}");
        }
    }
}
