//! Whom a download comes from: the coordinator of the session, and another where that one has been found wanting.

use std::collections::BTreeSet;

use archipelago_common::{NodeId, Principal};
use archipelago_transport::Connection;
use tracing::info;

use crate::{Client, error::Result};

/// The coordinators that may have a blob.
pub(crate) struct Sources<'a> {
    client: &'a Client,
    /// Those that did not have it, or had something else.
    doubted: BTreeSet<NodeId>,
    /// Those from which chunks have come.
    used: BTreeSet<NodeId>,
    /// A coordinator beside the session's.
    other: Option<Connection>,
}

impl<'a> Sources<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client, doubted: BTreeSet::new(), used: BTreeSet::new(), other: None }
    }

    /// Whoever is to be asked next. Once all have been asked, what the session's coordinator says counts.
    pub(crate) async fn connection(&mut self) -> Result<Connection> {
        let session = self.client.connection().await?;
        if !self.is_doubted(&session) {
            self.used.extend(node(&session));
            return Ok(session);
        }
        if let Some(other) = self.other.clone().filter(|other| !self.is_doubted(other)) {
            return Ok(other);
        }
        let addresses = self.client.view.borrow().addresses.clone();
        for (other, address) in addresses.iter() {
            if self.doubted.contains(other) {
                continue;
            }
            match self.client.transport.dial(address, *other).await {
                Ok(connection) => {
                    self.used.insert(*other);
                    self.other = Some(connection.clone());
                    return Ok(connection);
                }
                Err(error) => {
                    info!(node = %other, %error, "another coordinator cannot be asked");
                    self.doubted.insert(*other);
                }
            }
        }
        Ok(session)
    }

    /// One of them did not have the blob, or sent something else. Says whether there is another to ask.
    pub(crate) fn doubt(&mut self, connection: &Connection) -> bool {
        self.doubted.extend(node(connection));
        self.has_others()
    }

    /// All that have sent something of what was no blob in the end. Says whether there is another to ask.
    pub(crate) fn doubt_used(&mut self) -> bool {
        let had_any = !self.used.is_empty();
        self.doubted.append(&mut self.used);
        had_any && self.has_others()
    }

    /// Whether a connection is not the session's.
    pub(crate) fn is_other(&self, connection: &Connection) -> bool {
        self.other.as_ref().is_some_and(|other| node(other) == node(connection))
    }

    fn has_others(&self) -> bool {
        self.client.view.borrow().addresses.keys().any(|other| !self.doubted.contains(other))
    }

    fn is_doubted(&self, connection: &Connection) -> bool {
        node(connection).is_some_and(|node| self.doubted.contains(&node))
    }
}

fn node(connection: &Connection) -> Option<NodeId> {
    match connection.peer().principal {
        Principal::Coordinator(node) => Some(node),
        _ => None,
    }
}
