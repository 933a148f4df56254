//! Who a peer is, as its certificate says it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    enrolment::Fingerprint,
    error::{Error, Result},
    id::{Name, NodeId, SiteId, shorten},
    role::{Role, Roles},
};

/// A role and a name. Read from a verified certificate, never from a message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Principal {
    /// A member of the Raft group.
    Coordinator(NodeId),
    /// An institution that owns data.
    Site(SiteId),
    /// Someone who has every role.
    Operator(Name),
    /// Someone who may read everything and change nothing.
    Auditor(Name),
    /// Whoever has the key of this invitation: may ask, once, to become the site that is invited, and hear what came of it.
    Invited(Fingerprint),
    /// Someone who has some of the roles. Since edition 8 and protocol 9.
    Officer(Roles, Name),
}

impl Principal {
    /// The role, in one word; of an officer all of them.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Coordinator(_) => "coordinator",
            Self::Site(_) => "site",
            Self::Operator(_) => "operator",
            Self::Auditor(_) => "auditor",
            Self::Invited(_) => "invited",
            Self::Officer(roles, _) => roles.as_str(),
        }
    }

    /// Whether this is somebody who has a role.
    pub fn may(&self, role: Role) -> bool {
        match self {
            Self::Operator(_) => true,
            Self::Officer(roles, _) => roles.contains(role),
            Self::Auditor(_) => role == Role::Auditor,
            Self::Coordinator(_) | Self::Site(_) | Self::Invited(_) => false,
        }
    }

    /// The name of a person, whatever their roles: who has two certificates is one person still.
    pub fn person(&self) -> Option<&Name> {
        match self {
            Self::Operator(name) | Self::Auditor(name) | Self::Officer(_, name) => Some(name),
            Self::Coordinator(_) | Self::Site(_) | Self::Invited(_) => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator(node) => write!(f, "{}/{node}", self.role()),
            Self::Site(site) => write!(f, "{}/{site}", self.role()),
            Self::Operator(name) | Self::Auditor(name) | Self::Officer(_, name) => write!(f, "{}/{name}", self.role()),
            Self::Invited(key) => write!(f, "{}/{key}", self.role()),
        }
    }
}

impl FromStr for Principal {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('/') {
            Some(("coordinator", node)) => node.parse().map(Self::Coordinator),
            Some(("site", site)) => site.parse().map(Self::Site),
            Some(("operator", name)) => Name::parse("operator name", name).map(Self::Operator),
            Some(("auditor", name)) => Name::parse("auditor name", name).map(Self::Auditor),
            Some(("invited", key)) => key.parse().map(Self::Invited),
            other => match other.and_then(|(roles, name)| Some((Roles::of_name(roles)?, name))) {
                Some((roles, name)) => Name::parse("officer's name", name).map(|name| Self::Officer(roles, name)),
                None => Err(Error::InvalidName { what: "role", found: shorten(text), expected: ROLES }),
            },
        }
    }
}

/// A principal of one consortium: the URI `archipelago://<consortium>/<role>/<name>` of a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The consortium, which is also the name of its certificate authority.
    pub consortium: Name,
    /// Who it is there.
    pub principal: Principal,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.consortium, self.principal)
    }
}

impl FromStr for Identity {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let Some((consortium, principal)) = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')) else {
            return Err(Error::InvalidName {
                what: "identity",
                found: shorten(text),
                expected: "`archipelago://<consortium>/<role>/<name>`",
            });
        };
        Ok(Self { consortium: Name::parse("consortium name", consortium)?, principal: principal.parse()? })
    }
}

const ROLES: &str = "`coordinator/<number>`, `site/<name>`, `operator/<name>`, `auditor/<name>`, or `publisher/<name>`, `enroller/<name>`, \
    `administrator/<name>` and several of those roles in that order: `publisher+enroller+auditor+administrator/<name>`";
const SCHEME: &str = "archipelago://";

#[cfg(test)]
mod tests {
    use super::*;

    const INVITED: &str = "invited/00aa-11bb-22cc-33dd-44ee-55ff-6677-8899";

    #[test]
    fn identities_round_trip_as_uris() {
        let officers = ["publisher/ben", "enroller+administrator/eva"];
        for text in ["coordinator/3", "site/charite", "operator/anna.k", "auditor/dpo", INVITED].iter().chain(&officers)
        {
            let uri = format!("archipelago://lung/{text}");
            assert_eq!(uri.parse::<Identity>().unwrap().to_string(), uri);
        }
        for bad in [
            "",
            "archipelago://lung",
            "https://lung/site/a",
            "archipelago://lung/site/../a",
            "archipelago://lung/root/a",
            "archipelago://lung/enroller+publisher/a",
            "archipelago://lung/publisher+operator/a",
            "archipelago://lung/publisher/../a",
            "archipelago://lung/coordinator/0",
            "archipelago://lung/invited/north",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
