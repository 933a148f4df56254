//! Rules that can be broken on purpose, to show that the simulation notices when one is.
//!
//! Without the feature `mutations` nothing in here can be switched, and [`is_broken`] is `false` at compile time. No
//! crate but the simulation turns the feature on, and `tests/tidy.rs` sees to that.

/// A rule of the coordinator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// What a node promises is fsynced before it says so.
    FsyncBeforePromise,
    /// Term and vote are durable: nobody votes twice in one term.
    DurableVote,
    /// What the snapshot holds is not applied again after a start.
    ApplyOnce,
    /// A result from an epoch that is over is refused.
    Fencing,
    /// A lease that is over is over.
    LeaseEnds,
    /// A repeated request gets its first answer and no second effect.
    AnswerOnce,
    /// A condition that is present with other columns is not overwritten.
    NoCollision,
    /// A blob counts as durable when a majority has it.
    BlobMajority,
    /// What a submission that waits for its task's close names is kept, as is every earlier version.
    KeepNamedBlobs,
    /// A leader answers a read when a majority has confirmed that it still leads.
    ReadIndex,
    /// Nobody pushes another's answers out of the memory of requests.
    OwnMemory,
    /// A withdrawal ends nobody else's work.
    WorkOutlivesWithdrawal,
    /// A fact is 0 or 1 in every version: columns in which it is noised are refused.
    FactsStay,
    /// What is handed in for a part a second time is there once.
    PartOnce,
    /// A pool adds up to the same bytes in every order.
    PoolOrder,
    /// A node whose log was founded anew is not the member of its id.
    OneLife,
    /// One clock alone moves time by small steps only.
    SmallSteps,
    /// What a disk has spoilt is found before it is sent.
    SendWhatCame,
    /// Every blob is read now and then, so that what a disk has spoilt is found.
    Scrub,
    /// Data sets join a tree by the places that they were given.
    TreePlaces,
    /// A cluster begins when all its founders were founded with the same list of members.
    OneFounding,
    /// A founder whose log holds nothing does not vote before every founder has taken it for one.
    FoundersFirst,
    /// A node that a majority contradicts stops.
    MinorityStops,
    /// What a site was granted of its day is kept, whoever leads and whatever restarts.
    DayStays,
    /// An answer ends where it is full, and says that there is more.
    PagesEnd,
    /// The pages of a version are of that version, whatever is merged between them.
    PagesOfVersion,
    /// An invitation is used once: a second key that comes with it is refused.
    InvitationOnce,
    /// A copy of a blob counts when it has been read and is what came.
    CountWhatIsRead,
    /// Whoever was revoked has nothing carried out any more.
    RevokedAreSilent,
    /// What two persons are demanded for is approved by another than proposed it.
    TwoPersons,
    /// Where signatures are demanded, nothing is published without one.
    SignedOnly,
    /// What was erased is named no more, also after a start.
    ErasedIsUnnamed,
    /// What is named by something else is not erased.
    NamedStays,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::FsyncBeforePromise,
        Self::DurableVote,
        Self::ApplyOnce,
        Self::Fencing,
        Self::LeaseEnds,
        Self::AnswerOnce,
        Self::NoCollision,
        Self::BlobMajority,
        Self::KeepNamedBlobs,
        Self::ReadIndex,
        Self::OwnMemory,
        Self::WorkOutlivesWithdrawal,
        Self::FactsStay,
        Self::PartOnce,
        Self::PoolOrder,
        Self::OneLife,
        Self::SmallSteps,
        Self::SendWhatCame,
        Self::Scrub,
        Self::TreePlaces,
        Self::OneFounding,
        Self::FoundersFirst,
        Self::MinorityStops,
        Self::DayStays,
        Self::PagesEnd,
        Self::PagesOfVersion,
        Self::InvitationOnce,
        Self::CountWhatIsRead,
        Self::RevokedAreSilent,
        Self::TwoPersons,
        Self::SignedOnly,
        Self::ErasedIsUnnamed,
        Self::NamedStays,
    ];
}

#[cfg(feature = "mutations")]
mod switch {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Breaks one rule, or none, for everything that runs on this thread.
    pub fn set_broken(rule: Option<Rule>) {
        BROKEN.set(rule);
    }

    /// Whether a rule is broken on purpose.
    pub fn is_broken(rule: Rule) -> bool {
        BROKEN.get() == Some(rule)
    }
}

#[cfg(feature = "mutations")]
pub use switch::{is_broken, set_broken};

/// Whether a rule is broken on purpose: never, in a build without the feature.
#[cfg(not(feature = "mutations"))]
#[inline]
pub const fn is_broken(_: Rule) -> bool {
    false
}
