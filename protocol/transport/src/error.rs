//! What can go wrong between two peers, told apart by what a person would do about it.

use std::path::PathBuf;

use archipelago_common::principal::Principal;

/// The result of a transport operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A transport operation that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at an address.
    #[error("no answer from `{address}`: {detail}")]
    Unreachable {
        /// The address as it was given.
        address: String,
        /// How far it went.
        cause: Cause,
        /// What happened.
        detail: String,
    },
    /// The peer's certificate was not signed by this consortium's authority.
    #[error("the peer's certificate was not signed by the authority of consortium `{consortium}`")]
    UntrustedPeer {
        /// The consortium of this side.
        consortium: String,
    },
    /// The peer's certificate has expired.
    #[error("the peer's certificate has expired{clocks}")]
    PeerExpired {
        /// When it ended, and what this machine's clock shows; empty where the end is not known.
        clocks: String,
    },
    /// The peer's certificate is not valid yet.
    #[error("the peer's certificate is not valid yet{clocks}")]
    PeerNotYetValid {
        /// From when on it is, and what this machine's clock shows; empty where that is not known.
        clocks: String,
    },
    /// The peer's certificate is valid but names somebody else.
    #[error("the peer is `{found}`, expected `{expected}`")]
    WrongPeer {
        /// Who was meant to be there.
        expected: String,
        /// Who is.
        found: String,
    },
    /// The peer's certificate is malformed or proves nothing.
    #[error("the peer's certificate is not acceptable: {detail}")]
    BadPeer {
        /// Why.
        detail: String,
    },
    /// The peer does not let this side in.
    #[error("refused by the peer: {reason}")]
    Refused {
        /// In the peer's words.
        reason: String,
    },
    /// The connection was closed on purpose, by either side.
    #[error("the connection was closed: {reason}")]
    Closed {
        /// In the words of whoever closed it.
        reason: String,
    },
    /// The connection broke, or the peer fell silent.
    #[error("the connection was lost: {detail}")]
    Lost {
        /// What happened.
        detail: String,
    },
    /// The peer gave up one stream; the connection stands.
    #[error("the peer gave up the stream")]
    StreamReset,
    /// A frame is larger than the receiver allows; nothing was allocated for it.
    #[error("a frame has {found} bytes, more than the limit of {limit}")]
    FrameTooLarge {
        /// Its announced size.
        found: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame: {found} of {expected} bytes arrived")]
    Truncated {
        /// Bytes that arrived, of the length prefix or of the frame.
        found: u64,
        /// Bytes that were announced.
        expected: u64,
    },
    /// An address cannot be listened on.
    #[error("failed to listen on `{address}`: {detail}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// The operating system's word on it.
        detail: String,
    },
    /// A certificate or key file that cannot be read.
    #[error("{0}")]
    File(String),
    /// A certificate, key or signing request that does not say what it should.
    #[error("{what} `{}` is not usable: {detail}", path.display())]
    Credentials {
        /// `certificate`, `key`, `certificate of the authority`…
        what: &'static str,
        /// The file, or a word for where it came from.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// This side's own certificate has expired.
    #[error("certificate `{}` of `{principal}` expired on {expired_on}", path.display())]
    OwnExpired {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        principal: Principal,
        /// The day, as `YYYY-MM-DD`.
        expired_on: String,
    },
    /// A signature that proves nothing.
    #[error("the signature is not acceptable: {detail}")]
    Signature {
        /// Why.
        detail: String,
    },
    /// A certificate or key could not be made.
    #[error("failed to make {what}: {detail}")]
    Issue {
        /// What.
        what: &'static str,
        /// Why.
        detail: String,
    },
}

/// Where the way to an address ends: what a person looks at next depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The name is not known here.
    NoName,
    /// This machine knows no way there.
    NoRoute,
    /// The machine is there, and nothing listens on the port.
    Refused,
    /// Nothing came back at all.
    Silent,
    /// Over UDP nothing came back, and TCP was not tried.
    SilentUdp,
    /// The proxy opens no tunnel.
    Proxy,
    /// Something of this machine's own.
    Local,
}

impl Cause {
    /// What an operation of the system ended with.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Self::NoRoute,
            ErrorKind::TimedOut => Self::Silent,
            _ => Self::Local,
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::NoName => "check the host name in the configuration, and that this machine can look names up",
            Self::NoRoute => "check this machine's network; where only a proxy leads out, name it (docs/firewalls.md)",
            Self::Refused => {
                "check that the coordinator runs, and that the port in the configuration is the one it listens on"
            }
            Self::Silent => {
                "the machine is off, or a firewall drops what is sent to it: see docs/firewalls.md for what to open"
            }
            Self::SilentUdp => {
                "a firewall may drop UDP: let it out, or say `transport = \"auto\"` so that TCP is tried as well (docs/firewalls.md)"
            }
            Self::Proxy => {
                "check the proxy's address and password, and that it allows CONNECT to this host and port (docs/firewalls.md)"
            }
            Self::Local => "check this machine's network and the address in the configuration",
        }
    }
}

impl Error {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unreachable { cause, .. } => return Some(cause.hint()),
            Self::UntrustedPeer { .. } => "both sides must hold certificates of the same consortium authority",
            Self::PeerExpired { .. } => {
                "if this machine's clock is right, the peer's operator must issue a new certificate; else set it"
            }
            Self::PeerNotYetValid { .. } => "compare the clocks of both machines",
            Self::WrongPeer { .. } => "check which node id stands beside the address in the configuration",
            Self::Refused { .. } => "ask an operator of the consortium whether this identity is enrolled and valid",
            Self::OwnExpired { .. } => "ask an operator for a new certificate",
            Self::Listen { .. } => "another process may use the address; choose a free port",
            _ => return None,
        })
    }

    /// Whether trying again later can help without anybody changing a certificate or a configuration.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Closed { .. }
                | Self::Lost { .. }
                | Self::StreamReset
                | Self::Truncated { .. }
        )
    }
}

/// So that an error keeps its type on the way through `AsyncRead` and `AsyncWrite`; `from_io` takes it out again.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// The error that a stream's I/O error carries, or a lost connection.
pub(crate) fn from_io(error: std::io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.clone(),
        None => Error::Lost { detail: error.to_string() },
    }
}
