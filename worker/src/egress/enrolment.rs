//! The line of a site that is invited and not in yet, which has nothing of its data to say.
//!
//! The client is private to this file. What leaves is the invitation's own identity and a request to have a key certified.

use archipelago_client::{Client, ClientConfig, ClientError};
use archipelago_common::enrolment::EnrolmentRecord;
use archipelago_protocol::message::{Reply, Request};

use crate::error::{Error, Result};

/// Whoever comes with an invitation, at the coordinators' door.
pub struct Invited {
    client: Client,
}

impl Invited {
    /// Starts a session under the invitation's identity.
    ///
    /// # Errors  [`Error::Client`] without any coordinator, or when none answers in time
    pub async fn connect(config: ClientConfig) -> Result<Self> {
        Ok(Self { client: Client::connect(config).await? })
    }

    /// Hands a signing request in, as PEM; the same one again is answered as before.
    ///
    /// # Errors  [`Error::Client`], the coordinators' refusal among them
    pub async fn ask(&self, request: String) -> Result<EnrolmentRecord> {
        self.record(Request::RequestCertificate { request }).await
    }

    /// What came of it.
    ///
    /// # Errors  as [`Self::ask`]
    pub async fn look(&self) -> Result<Answer> {
        match self.record(Request::ShowEnrolment).await {
            Err(Error::Client(error)) if may_pass(&error) => Ok(Answer::Later(error)),
            answer => answer.map(Answer::Record),
        }
    }

    async fn record(&self, request: Request) -> Result<EnrolmentRecord> {
        match self.client.request(request).await? {
            Reply::Enrolment(record) => Ok(*record),
            other => Err(Error::UnexpectedReply { found: format!("{other:?}").chars().take(40).collect() }),
        }
    }
}

/// What a look at an invitation gave.
pub enum Answer {
    /// Where it stands.
    Record(EnrolmentRecord),
    /// Nobody answered, which may pass.
    Later(ClientError),
}

/// Whether coordinators that do not answer may do so later. One that says no means it.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::TimedOut { .. } => true,
        ClientError::Unreachable { tried } => tried.0.iter().any(|attempt| attempt.said.is_transient()),
        _ => false,
    }
}
