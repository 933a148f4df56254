//! The rules by which commands are carried out. Coordinators of two builds apply the same log, so a rule may change only at
//! an entry that all of them know: the leader raises the edition once every member says that it knows the next one.

use archipelago_common::{Principal, codec};
use serde::{Deserialize, Serialize};

use crate::{Cluster, Outcome, Refusal, site};

/// A set of rules; later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub enum Edition {
    /// Of all builds up to format 2 of the state.
    #[default]
    First,
    /// Withdrawals stop nobody's work, answers are remembered for each asker, growth is refused before it hurts, and
    /// time moves in steps that a majority's clocks agree on.
    Second,
    /// All that is carried out is chained ([`crate::Cluster::marks`]), and what sites upload in a day is counted.
    Third,
    /// Tasks may ask for annotations.
    Fourth,
    /// Tasks may say how many steps are taken, and how much the KL term weighs.
    Fifth,
    /// Sites come in by invitations, and publishers sign references and tasks.
    Sixth,
    /// Sites renew their certificates over their sessions, everybody's end is known, and everybody can be shut out.
    Seventh,
    /// People have some of an operator's roles, and two persons do together what is demanded so. Tasks may say how strongly a query is drawn
    /// to the reference. Acts are recorded, logs of sites anchored, and blobs erased.
    Eighth,
}

impl Edition {
    /// The latest that this build knows.
    pub const LATEST: Self = Self::Eighth;

    /// By its number, for coordinators that tell one another what they know.
    pub fn of_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::First),
            2 => Some(Self::Second),
            3 => Some(Self::Third),
            4 => Some(Self::Fourth),
            5 => Some(Self::Fifth),
            6 => Some(Self::Sixth),
            7 => Some(Self::Seventh),
            8 => Some(Self::Eighth),
            _ => None,
        }
    }

    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            Self::First => 1,
            Self::Second => 2,
            Self::Third => 3,
            Self::Fourth => 4,
            Self::Fifth => 5,
            Self::Sixth => 6,
            Self::Seventh => 7,
            Self::Eighth => 8,
        }
    }
}

impl Cluster {
    /// The state with which a new cluster begins.
    pub fn founded() -> Self {
        let mut founded = Self { edition: Edition::LATEST, ..Self::default() };
        founded.begin_chain();
        founded.begin_acts();
        founded
    }

    /// The rules by which commands are carried out now.
    pub fn edition(&self) -> Edition {
        self.edition
    }

    pub(crate) fn raise_edition(&mut self, principal: &Principal, edition: Edition) -> Result<Outcome, Refusal> {
        site::require_coordinator(principal)?;
        if edition > self.edition {
            self.edition = edition;
            self.requests.regroup();
            // As builds count that know no later fields: all apply the same entry.
            let since_third = (&self.chain, &self.uploads, &self.enrolments, &self.certified, &self.signatures);
            let since_seventh = (&self.met, &self.renewed, &self.revoked, &self.revoked_keys);
            let since_eighth = (&self.demands, &self.proposals, &self.acts, &self.anchors, &self.erasures);
            let later = codec::size(&(since_third, since_seventh, since_eighth)) - codec::size(&());
            self.n_bytes = codec::size(self) - later;
            self.begin_chain();
            self.begin_acts();
        }
        Ok(Outcome::Members)
    }
}
