//! An operator who enrols site after site, until another one shuts them out; and who goes on asking.

use archipelago_common::Principal;
use archipelago_protocol::message::Request;

use crate::peer::{Act, Heard, View};

/// Who is shut out.
pub(crate) fn leaver() -> Principal {
    LEAVER.parse().expect("the name below is sound")
}

/// How the names of the sites begin that this one enrols, and nobody else.
pub(crate) const ANNEX: &str = "annex-";
pub(crate) const LEAVER: &str = "operator/carl";

/// Asks for one site after the other.
#[derive(Default)]
pub(crate) struct Leaver {
    n_enrolled: u64,
}

impl Leaver {
    pub(crate) fn hear(&mut self, view: &mut View<'_>, heard: Heard) -> Vec<Act> {
        match heard {
            Heard::Started => vec![Act::Wake(view.chance.within(500..3_000))],
            Heard::Time if view.is_calm => Vec::new(),
            Heard::Time => {
                let site = format!("{ANNEX}{}", self.n_enrolled).parse();
                site.map_or_else(|_| Vec::new(), |site| vec![Act::Ask(Request::AddSite { site })])
            }
            Heard::Answer(_, answer) => {
                self.n_enrolled += u64::from(answer.is_ok());
                vec![Act::Wake(view.chance.within(500..3_000))]
            }
            Heard::TasksChanged | Heard::Uploaded(..) => Vec::new(),
        }
    }
}
