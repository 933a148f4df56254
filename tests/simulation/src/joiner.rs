//! Two who have the same invitation, each with a key of its own: one of them comes in, and never the other after it.

use archipelago_common::{
    Fingerprint, Principal, SiteId,
    enrolment::{EnrolmentRecord, EnrolmentState},
};
use archipelago_protocol::message::{Refusal, Reply, Request};

use crate::peer::{Act, Heard, View};

/// The site that comes in by an invitation.
pub(crate) const INVITED: &str = "harbour";

/// The two signing requests for it, and the certificates that answer them. Fixed, because making them takes chance from elsewhere
/// than the seed.
const KEYS: [(&str, &str); 2] = [
    (include_str!("../testdata/harbour-a.request.pem"), include_str!("../testdata/harbour-a.pem")),
    (include_str!("../testdata/harbour-b.request.pem"), include_str!("../testdata/harbour-b.pem")),
];

/// The key of the invitation.
pub(crate) fn invitation() -> Fingerprint {
    Fingerprint::of(b"the invitation of the simulation")
}

/// Whoever comes with it.
pub(crate) fn invited() -> Principal {
    Principal::Invited(invitation())
}

pub(crate) fn site() -> SiteId {
    INVITED.parse().expect("the name above is sound")
}

/// What an operator says to a request that waits.
pub(crate) fn approval(record: &EnrolmentRecord) -> Option<Request> {
    let EnrolmentState::Asked { request: waiting, .. } = &record.state else { return None };
    let (_, certificate) = KEYS.iter().find(|(request, _)| request == waiting)?;
    Some(Request::ApproveSite { site: record.site.clone(), certificate: (*certificate).to_owned() })
}

/// One of the two.
pub(crate) struct Joiner {
    request: &'static str,
    /// The key that waits, since this one was told so.
    told: Option<Fingerprint>,
    is_refused: bool,
}

impl Joiner {
    /// Both of them.
    pub(crate) fn both() -> [Self; 2] {
        KEYS.map(|(request, _)| Self { request, told: None, is_refused: false })
    }

    pub(crate) fn hear(&mut self, view: &mut View<'_>, heard: Heard) -> Vec<Act> {
        match heard {
            Heard::Started => vec![Act::Wake(view.chance.within(100..4_000))],
            Heard::Time if view.is_calm => Vec::new(),
            Heard::Time if self.is_refused || self.told.is_some() && !view.chance.one_in(4) => {
                vec![Act::Ask(Request::ShowEnrolment)]
            }
            Heard::Time => vec![Act::Ask(Request::RequestCertificate { request: self.request.to_owned() })],
            Heard::Answer(request, answer) => {
                let mut acts = self.judge(&request, *answer);
                acts.push(Act::Wake(view.chance.within(200..3_000)));
                acts
            }
            Heard::TasksChanged | Heard::Uploaded(..) => Vec::new(),
        }
    }

    fn judge(&mut self, request: &Request, answer: Result<Reply, Refusal>) -> Vec<Act> {
        let record = match answer {
            Ok(Reply::Enrolment(record)) => *record,
            Err(Refusal::Conflict { .. }) if matches!(request, Request::RequestCertificate { .. }) => {
                self.is_refused = true;
                return vec![Act::Judge(match self.told {
                    Some(_) => Err("invitations: its request was taken, and asked again it is refused".to_owned()),
                    None => Ok("invitations that were used already"),
                })];
            }
            _ => return Vec::new(),
        };
        let (key, is_in) = match &record.state {
            EnrolmentState::Asked { key, .. } => (*key, false),
            EnrolmentState::Approved { key, .. } => (*key, true),
            EnrolmentState::Invited | EnrolmentState::Refused { .. } | EnrolmentState::Renewing { .. } => {
                return Vec::new();
            }
        };
        if matches!(request, Request::RequestCertificate { .. }) && self.told.is_none() {
            self.told = Some(key);
            return vec![Act::Judge(Ok("requests for a certificate taken"))];
        }
        match self.told {
            Some(told) if told != key => {
                let why = format!("invitations: was told that {told} waits, and then that it is {key}");
                vec![Act::Judge(Err(why))]
            }
            Some(_) if is_in => vec![Act::Judge(Ok("certificates fetched"))],
            _ => Vec::new(),
        }
    }
}
