//! The coordinators that a program was with last, in a file: at its next start it goes to no other cluster.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use archipelago_common::{NodeId, fs, limits};
use archipelago_protocol::Known;
use tracing::warn;

/// What is kept of the coordinators, and where; nowhere, if nobody said where.
pub(crate) struct KnownFile {
    path: Option<PathBuf>,
    coordinators: BTreeMap<NodeId, String>,
}

impl KnownFile {
    /// What is known so far. A file that cannot be read is as good as none, and said.
    pub(crate) fn open(path: Option<PathBuf>) -> Self {
        let coordinators = path.as_deref().and_then(read).unwrap_or_default();
        Self { path, coordinators }
    }

    /// What a session must know, whose configuration names these.
    pub(crate) fn of(&self, configured: &BTreeMap<NodeId, String>) -> Known {
        let is_known = |(node, address): &(&NodeId, &String)| self.coordinators.get(node) == Some(address);
        let strangers = configured.iter().filter(|each| !is_known(each)).map(|(node, _)| *node).collect();
        Known { coordinators: self.coordinators.clone(), strangers }
    }

    /// The coordinators have said who they are.
    pub(crate) fn learn(&mut self, coordinators: &BTreeMap<NodeId, String>) {
        if self.coordinators == *coordinators {
            return;
        }
        self.coordinators.clone_from(coordinators);
        let Some(path) = &self.path else { return };
        let text: String = coordinators.iter().map(|(node, address)| format!("{node}={address}\n")).collect();
        if let Err(error) = fs::write_atomic(path, text.as_bytes()) {
            warn!(%error, "the coordinators are not remembered");
        }
    }
}

fn read(path: &Path) -> Option<BTreeMap<NodeId, String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            warn!(path = %path.display(), %error, "the coordinators that were known are not");
            return None;
        }
    };
    let one = |line: &str| -> Option<(NodeId, String)> {
        let (node, address) = line.split_once('=')?;
        (address.len() <= limits::ADDRESS_BYTES).then_some((node.parse().ok()?, address.to_owned()))
    };
    let read: Option<_> = text.lines().map(one).collect();
    if read.is_none() {
        warn!(path = %path.display(), "not a list of coordinators; it will be written anew");
    }
    read
}
