//! Questions whose answers come in pages, asked until there are no more.

use std::collections::BTreeMap;

use archipelago_common::{
    BlobRef, ConditionKey, Name, SiteId, TaskId, Version, VersionId,
    act::{Act, Erasure},
    contact::SiteContact,
    enrolment::{CertifiedKey, EnrolmentRecord},
    proposal::Proposal,
    record::{
        AssignmentHead, AssignmentRecord, AssignmentState, Change, Page, ReferenceHead, ReferenceHistory, SiteRecord,
        Stage, Submission, SubmittedCondition, TaskHead, TaskRecord,
    },
    signature::{Signature, Subject},
    standing::Standing,
};
use archipelago_protocol::message::{Refusal, Reply, Request, Which};

use crate::{Client, ClientError, Result};

impl Client {
    /// All references, without their histories.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn references(&self) -> Result<Vec<ReferenceHead>> {
        let ask = |after: Option<&ReferenceHead>| Request::ListReferenceHeads { after: after.map(|r| r.name.clone()) };
        self.all(ask, |reply| match reply {
            Reply::ReferenceHeads(page) => Ok(page),
            other => Err(other),
        })
        .await
    }

    /// One reference, without its history.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn reference(&self, name: &Name) -> Result<ReferenceHead> {
        match self.request(Request::ShowReferenceHead { name: name.clone() }).await? {
            Reply::ReferenceHead(head) => Ok(*head),
            other => Err(unexpected(&other)),
        }
    }

    /// The publisher's signature of a reference or a task, as it comes: verify it. None where nobody signed, and from coordinators
    /// of an earlier version, which know none.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn signature(&self, of: Subject) -> Result<Option<Signature>> {
        match self.request(Request::ShowSignature { of }).await {
            Ok(Reply::Signature(signature)) => Ok(signature.map(|signature| *signature)),
            Ok(other) => Err(unexpected(&other)),
            Err(ClientError::Refused(Refusal::Invalid { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a version holds; of one owner only, where one is named.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn conditions(
        &self,
        reference: &Name,
        version: VersionId,
        owner: Option<&SiteId>,
    ) -> Result<BTreeMap<ConditionKey, BlobRef>> {
        let ask = |after: Option<&(ConditionKey, BlobRef)>| Request::ListConditions {
            reference: reference.clone(),
            version,
            owner: owner.cloned(),
            after: after.map(|(key, _)| key.clone()),
        };
        Ok(self.all(ask, conditions).await?.into_iter().collect())
    }

    /// One version of a reference, whole.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn version(&self, reference: &ReferenceHead, version: VersionId) -> Result<Version> {
        let columns = self.conditions(&reference.name, version, None).await?;
        Ok(Version { base: reference.base, columns })
    }

    /// A reference with its whole history.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn history(&self, name: &Name) -> Result<ReferenceHistory> {
        let head = self.reference(name).await?;
        let mut changes: Vec<Change> = Vec::new();
        while (changes.len() as u64) < head.n_changes {
            let from = changes.len() as u64;
            let page = match self.request(Request::ListChanges { reference: name.clone(), from }).await? {
                Reply::Changes(page) if !page.items.is_empty() => page,
                other => return Err(unexpected(&other)),
            };
            for (mut change, has_more) in page.items {
                if has_more {
                    let change_idx = changes.len() as u64;
                    let ask = |after: Option<&(ConditionKey, BlobRef)>| Request::ListChanged {
                        reference: name.clone(),
                        change: change_idx,
                        after: after.map(|(key, _)| key.clone()),
                    };
                    change.columns = self.all(ask, conditions).await?.into_iter().collect();
                }
                changes.push(change);
            }
        }
        // The reference may have gone on meanwhile.
        changes.truncate(usize::try_from(head.n_changes).unwrap_or(usize::MAX));
        Ok(ReferenceHistory { head, changes })
    }

    /// The tasks that the asker may see, without what sites made of them.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn tasks(&self, which: Which) -> Result<Vec<TaskHead>> {
        let ask = |after: Option<&TaskHead>| Request::ListTaskHeads { which, after: after.map(|task| task.id) };
        self.all(ask, |reply| match reply {
            Reply::TaskHeads(page) => Ok(page),
            other => Err(other),
        })
        .await
    }

    /// One task, with all that sites made of it as far as the asker may see it.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn task(&self, id: TaskId) -> Result<TaskRecord> {
        let head = match self.request(Request::ShowTaskHead { task: id }).await? {
            Reply::TaskHead(head) => *head,
            other => return Err(unexpected(&other)),
        };
        let mut assignments = BTreeMap::new();
        for (site, assignment) in self.assignments(id).await? {
            let AssignmentHead { epoch, stage, lease_until_ms, progress } = assignment;
            let state = match stage {
                Stage::Assigned => AssignmentState::Assigned,
                Stage::Lapsed => AssignmentState::Lapsed,
                Stage::GivenUp { reason } => AssignmentState::GivenUp { reason },
                Stage::Accepted { at_ms, version, trained, .. } => {
                    let conditions = self.submitted(id, &site).await?;
                    let submission = Submission { task: id, epoch, version: trained, conditions };
                    AssignmentState::Accepted { submission, at_ms, version }
                }
            };
            assignments.insert(site, AssignmentRecord { epoch, state, lease_until_ms, progress });
        }
        let TaskHead { id, task, publisher, published_ms, state, .. } = head;
        Ok(TaskRecord { id, task, publisher, published_ms, state, assignments })
    }

    /// How every site stands that ever claimed a task, without what it handed in.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn assignments(&self, id: TaskId) -> Result<Vec<(SiteId, AssignmentHead)>> {
        let ask = |after: Option<&(SiteId, AssignmentHead)>| Request::ListAssignments {
            task: id,
            after: after.map(|(site, _)| site.clone()),
        };
        let assignments = self.all(ask, |reply| match reply {
            Reply::Assignments(page) => Ok(page),
            other => Err(other),
        });
        assignments.await
    }

    /// All sites.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn sites(&self) -> Result<Vec<SiteRecord>> {
        let ask = |after: Option<&SiteRecord>| Request::ListSitesAfter { after: after.map(|site| site.site.clone()) };
        self.all(ask, |reply| match reply {
            Reply::SitePage(page) => Ok(page),
            other => Err(other),
        })
        .await
    }

    /// All invitations that are open or were answered lately.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn enrolments(&self) -> Result<Vec<EnrolmentRecord>> {
        let ask =
            |after: Option<&EnrolmentRecord>| Request::ListEnrolments { after: after.map(|record| record.invitation) };
        self.all(ask, |reply| match reply {
            Reply::Enrolments(page) => Ok(page),
            other => Err(other),
        })
        .await
    }

    /// What one person has proposed and another is to approve, and what was lately.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn proposals(&self) -> Result<Vec<Proposal>> {
        let ask = |after: Option<&Proposal>| Request::ListProposals { after: after.map(|proposal| proposal.number) };
        self.all(ask, |reply| match reply {
            Reply::Proposals(page) => Ok(page),
            other => Err(other),
        })
        .await
    }

    /// How everybody stands of whom anything is known.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn standings(&self) -> Result<Vec<Standing>> {
        let ask =
            |after: Option<&Standing>| Request::ListStandings { after: after.map(|standing| standing.who.clone()) };
        self.all(ask, |reply| match reply {
            Reply::Standings(page) => Ok(page),
            other => Err(other),
        })
        .await
    }

    /// What was done after this act, as far as the coordinators remember it: the first that comes may be a later one.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn acts(&self, after: u64) -> Result<Vec<Act>> {
        let ask = |last: Option<&Act>| Request::ListActs { after: last.map_or(after, |act| act.seq) };
        self.all(ask, |reply| match reply {
            Reply::Acts(page) => Ok(page),
            other => Err(other),
        })
        .await
    }

    /// The receipts of everything that was erased.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn erasures(&self) -> Result<Vec<Erasure>> {
        let ask = |last: Option<&Erasure>| Request::ListErasures {
            after: last.map(|erasure| (erasure.reference.clone(), erasure.key.clone())),
        };
        self.all(ask, |reply| match reply {
            Reply::Erasures(page) => Ok(page),
            other => Err(other),
        })
        .await
    }

    /// Which sites the leader hears, or has heard since it started.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn contacts(&self) -> Result<BTreeMap<SiteId, SiteContact>> {
        let ask =
            |last: Option<&SiteContact>| Request::ListContacts { after: last.map(|contact| contact.site.clone()) };
        let all = self.all(ask, |reply| match reply {
            Reply::Contacts(page) => Ok(page),
            other => Err(other),
        });
        Ok(all.await?.into_iter().map(|contact| (contact.site.clone(), contact)).collect())
    }

    /// The keys of all sites that came in by an invitation, and until when they are certified.
    ///
    /// # Errors  as [`Self::request`]
    pub async fn keys(&self) -> Result<BTreeMap<SiteId, CertifiedKey>> {
        let ask =
            |after: Option<&(SiteId, CertifiedKey)>| Request::ListKeys { after: after.map(|(site, _)| site.clone()) };
        let all = self.all(ask, |reply| match reply {
            Reply::Keys(page) => Ok(page),
            other => Err(other),
        });
        Ok(all.await?.into_iter().collect())
    }

    async fn submitted(&self, task: TaskId, site: &SiteId) -> Result<BTreeMap<ConditionKey, SubmittedCondition>> {
        let ask = |after: Option<&(ConditionKey, SubmittedCondition)>| Request::ListSubmitted {
            task,
            site: site.clone(),
            after: after.map(|(key, _)| key.clone()),
        };
        let all = self.all(ask, |reply| match reply {
            Reply::Submitted(page) => Ok(page),
            other => Err(other),
        });
        Ok(all.await?.into_iter().collect())
    }

    /// Asks for page after page.
    async fn all<T>(
        &self,
        ask: impl Fn(Option<&T>) -> Request,
        read: fn(Reply) -> Result<Page<T>, Reply>,
    ) -> Result<Vec<T>> {
        let mut all: Vec<T> = Vec::new();
        loop {
            let page = read(self.request(ask(all.last())).await?).map_err(|other| unexpected(&other))?;
            let is_last = !page.more || page.items.is_empty();
            all.extend(page.items);
            if is_last {
                return Ok(all);
            }
        }
    }
}

fn conditions(reply: Reply) -> Result<Page<(ConditionKey, BlobRef)>, Reply> {
    match reply {
        Reply::Conditions(page) => Ok(page),
        other => Err(other),
    }
}

fn unexpected(reply: &Reply) -> ClientError {
    // The kind only: an answer may be long.
    let text = format!("{reply:?}");
    ClientError::UnexpectedReply { found: text.split([' ', '(', '{']).next().unwrap_or_default().to_owned() }
}
