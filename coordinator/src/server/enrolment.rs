//! What the leader reads in signing requests and certificates before it proposes: the state machine knows fingerprints only.

use archipelago_cluster::Body;
use archipelago_common::{Principal, SiteId, enrolment::CertifiedKey, signature::Signature};
use archipelago_protocol::message::{Refusal, RequestKey};
use archipelago_transport::ca::{Asked, Certified};

use super::course::{self, Step};

/// The course of a request to have a key certified. Whoever made it has the key, and it is for the site that is invited.
pub(super) fn request(who: Principal, key: RequestKey, request: String) -> Step {
    let asked = match Asked::read(&request) {
        Ok(asked) => asked,
        Err(detail) => return refuse(format!("the signing request cannot be used: {detail}")),
    };
    Step::Peek(Box::new(move |cluster, _| {
        // Of an invitation that this node does not know yet, or no more, the state machine speaks better.
        let record = match &who {
            Principal::Invited(invitation) => cluster.enrolment(invitation),
            _ => None,
        };
        match record.map(|record| Principal::Site(record.site.clone()).to_string()) {
            Some(expected) if asked.name != expected => refuse(format!(
                "the signing request is for `{:.80}`, but the invitation is for `{expected}`; make the request for that, or \
                 ask for another invitation",
                asked.name
            )),
            _ => course::command(who, key, Body::RequestCertificate { key: asked.key, request }),
        }
    }))
}

/// The course of a site's request to have another key certified. The operator checks the signature, who does not believe what
/// coordinators say; here it is seen to be the site's own.
pub(super) fn renew(who: Principal, key: RequestKey, request: String, signature: Box<Signature>) -> Step {
    let asked = match Asked::read(&request) {
        Ok(asked) if asked.name == who.to_string() => asked,
        Ok(asked) => return refuse(format!("the signing request is for `{:.80}`, expected `{who}`", asked.name)),
        Err(detail) => return refuse(format!("the signing request cannot be used: {detail}")),
    };
    match signature.chain.first().map(|leaf| Certified::of_der(leaf)) {
        Some(Ok(signed)) if signed.identity.principal == who => {
            course::command(who, key, Body::RenewCertificate { key: asked.key, request, signature })
        }
        Some(Ok(signed)) => refuse(format!("it is signed by `{}`, expected `{who}`", signed.identity.principal)),
        Some(Err(detail)) => refuse(format!("the certificate that it is signed with cannot be used: {detail}")),
        None => refuse("it is signed with no certificate".to_owned()),
    }
}

/// The course of an approval. The certificate is read for whom it is and of which key; the site checks who signed it.
pub(super) fn approve(who: Principal, key: RequestKey, site: SiteId, certificate: String) -> Step {
    let expected = Principal::Site(site.clone());
    match Certified::read(&certificate) {
        Ok(Certified { identity, key: of, expires_unix_s }) if identity.principal == expected => {
            let expires_ms = u64::try_from(expires_unix_s).unwrap_or_default().saturating_mul(1_000);
            let certified = CertifiedKey { key: of, expires_ms };
            course::command(who, key, Body::ApproveSite { site, certified, certificate })
        }
        Ok(certified) => {
            refuse(format!("the certificate is of `{}`, expected `{expected}`", certified.identity.principal))
        }
        Err(detail) => refuse(format!("the certificate cannot be used: {detail}")),
    }
}

fn refuse(reason: String) -> Step {
    Step::Done(Err(Refusal::Invalid { reason }))
}

#[cfg(test)]
mod tests {
    use archipelago_cluster::{Cluster, Command};
    use archipelago_common::{Fingerprint, signature::Statement};
    use archipelago_transport::{
        Credentials,
        ca::{Authority, Validity, signing_request},
    };

    use super::*;

    const KEY: RequestKey = RequestKey([7; 16]);

    /// What becomes of a step on a cluster in which `north` is invited.
    fn after(step: Step) -> Result<Body, String> {
        let mut cluster = Cluster::founded();
        let (site, invitation) = ("north".parse().unwrap(), Fingerprint::of(b"invitation"));
        let body = Body::Invite { site, invitation, expires_ms: 100_000 };
        cluster
            .apply(&Command { key: [1; 16], principal: "operator/anna".parse().unwrap(), now_ms: 1_000, body })
            .outcome
            .unwrap();
        match step {
            Step::Peek(look) => after_look(look(&cluster, 1_000)),
            other => after_look(other),
        }
    }

    fn after_look(step: Step) -> Result<Body, String> {
        match step {
            Step::Propose(proposal, _) => Ok(proposal.body),
            Step::Done(Err(refusal)) => Err(refusal.to_string()),
            _ => panic!("neither proposed nor refused"),
        }
    }

    fn asks(pem: &str) -> Result<Body, String> {
        after(request(Principal::Invited(Fingerprint::of(b"invitation")), KEY, pem.to_owned()))
    }

    fn approves(certificate: &str) -> Result<Body, String> {
        after(approve("operator/anna".parse().unwrap(), KEY, "north".parse().unwrap(), certificate.to_owned()))
    }

    #[test]
    fn a_request_is_for_the_site_that_is_invited_and_made_by_whoever_has_the_key() {
        let (_, north) = signing_request(&"site/north".parse().unwrap()).unwrap();
        let Ok(Body::RequestCertificate { key, .. }) = asks(&north) else { panic!("it is proposed") };
        assert_eq!(key, Asked::read(&north).unwrap().key);
        for other in ["site/south", "operator/north", "coordinator/1"] {
            let (_, request) = signing_request(&other.parse().unwrap()).unwrap();
            let refused = asks(&request).unwrap_err();
            assert!(
                refused.contains(&format!("is for `{other}`, but the invitation is for `site/north`")),
                "{refused}"
            );
        }
        // One bit of the signature, which is at the end.
        let mut changed: Vec<_> = north.lines().map(str::to_owned).collect();
        let last = changed.len() - 2;
        let flipped = if changed[last].starts_with('A') { "B" } else { "A" };
        changed[last].replace_range(..1, flipped);
        for bad in [changed.join("\n").as_str(), "", "nonsense", &north[..100], &"x".repeat(9_000)] {
            let refused = asks(bad).unwrap_err();
            assert!(refused.contains("the signing request cannot be used"), "{refused}");
        }
    }

    #[test]
    fn a_renewal_is_asked_for_and_signed_by_the_site_itself() {
        let (authority, _) = Authority::create("lung".parse().unwrap(), Validity::days(10)).unwrap();
        let credentials = |who: &str| {
            let issued = authority.issue(&who.parse().unwrap(), Validity::days(1)).unwrap();
            Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key).unwrap()
        };
        let request_of = |who: &str| signing_request(&who.parse().unwrap()).unwrap().1;
        let renews = |request: &str, signer: &str| {
            let statement = Statement::of_renewal(&"north".parse().unwrap(), request, 1_000);
            let signature = Box::new(credentials(signer).sign(&statement).unwrap());
            // In the edition of a new cluster nothing stands in the way.
            match renew("site/north".parse().unwrap(), KEY, request.to_owned(), signature) {
                Step::Read(look) => after_look(look(&Cluster::founded(), 1_000)),
                other => after_look(other),
            }
        };
        let own = request_of("site/north");
        let Ok(Body::RenewCertificate { key, .. }) = renews(&own, "site/north") else { panic!("it is proposed") };
        assert_eq!(key, Asked::read(&own).unwrap().key);
        let refused = renews(&request_of("site/south"), "site/north").unwrap_err();
        assert!(refused.contains("is for `site/south`, expected `site/north`"), "{refused}");
        for other in ["site/south", "operator/anna"] {
            let refused = renews(&own, other).unwrap_err();
            assert!(refused.contains(&format!("it is signed by `{other}`, expected `site/north`")), "{refused}");
        }
        assert!(renews("nonsense", "site/north").unwrap_err().contains("the signing request cannot be used"));
    }

    #[test]
    fn a_certificate_is_of_the_site_that_is_approved() {
        let (authority, _) = Authority::create("lung".parse().unwrap(), Validity::days(10)).unwrap();
        let (_, request) = signing_request(&"site/north".parse().unwrap()).unwrap();
        let sign = |who: &str| authority.sign_request(&request, &who.parse().unwrap(), Validity::days(1)).unwrap();
        let Ok(Body::ApproveSite { certified, .. }) = approves(&sign("site/north")) else { panic!("it is proposed") };
        assert_eq!(certified.key, Asked::read(&request).unwrap().key, "certificate and request speak of one key");
        for other in ["site/south", "operator/anna"] {
            let refused = approves(&sign(other)).unwrap_err();
            assert!(refused.contains(&format!("is of `{other}`, expected `site/north`")), "{refused}");
        }
        for bad in ["", &request, &"x".repeat(9_000)] {
            let refused = approves(bad).unwrap_err();
            assert!(refused.contains("the certificate cannot be used"), "{refused}");
        }
    }
}
