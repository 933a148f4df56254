//! `doctor`: what is wrong between an operator and the coordinators, step by step.

use archipelago_client::{Client, doctor};
use archipelago_common::{
    enrolment::{EnrolmentRecord, EnrolmentState},
    finding::{Findings, in_words},
    health::OfNode,
};
use archipelago_protocol::message::{Reply, Request};
use clap::Args;

use super::{Connection, requests, runtime, status::health_line};
use crate::{error::Result, output::Output};

/// Look at everything on the way to the coordinators, and say what is wrong and what to type.
///
/// Names, UDP, TCP, proxy and certificates on the way to each; own certificate and key; clock; how each coordinator is. It changes
/// nothing. Ends with 1 if something does not work.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator doctor --config operator.toml")]
pub struct DoctorArgs {
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  [`archipelago_common::finding::Unwell`] if something does not work
pub fn run(args: &DoctorArgs, output: &Output) -> Result<()> {
    let findings = runtime()?.block_on(look(args));
    output.show(&findings, &findings);
    Ok(findings.outcome()?)
}

async fn look(args: &DoctorArgs) -> Findings {
    let mut findings = Findings::default();
    let config = match args.connection.resolve() {
        Ok(config) => config,
        Err(error) => {
            findings.fail("configuration", in_words(&error), error.hint());
            return findings;
        }
    };
    let (certificate, key) = (config.certificate.clone(), config.key.clone());
    let client = match args.connection.client(config) {
        Ok(client) => client,
        Err(error) => {
            findings.fail("certificate", in_words(&error), error.hint());
            return findings;
        }
    };
    doctor::look_at_credentials(&client.credentials, &certificate, &key, &mut findings);
    let Some(client) = doctor::look(client, &mut findings).await else { return findings };
    look_at_requests(&client, &mut findings).await;
    // Sites may not ask, auditors and operators may.
    if let Ok(Reply::Health(health)) = client.request(Request::ShowHealth).await {
        for of_node in &health {
            let (what, found) = (format!("coordinator {}, health", of_node.node), health_line(of_node));
            match of_node {
                OfNode { answer: Some(health), .. } if health.state.advice().is_none() => findings.ok(what, found),
                _ => findings.fail(what, found, None::<String>),
            }
        }
    }
    findings
}

/// Who waits for an operator's word.
async fn look_at_requests(client: &Client, findings: &mut Findings) {
    // Coordinators of before protocol 7 know of none.
    let Ok(records) = client.enrolments().await else { return };
    let waiting = records.iter().filter(|record| requests::is_waiting(record));
    let (renewing, new): (Vec<_>, Vec<_>) =
        waiting.partition(|record| matches!(record.state, EnrolmentState::Renewing { .. }));
    let asking = |records: &[&EnrolmentRecord], what: &str| {
        let sites: Vec<_> = records.iter().map(|record| record.site.as_str()).collect();
        (!sites.is_empty()).then(|| format!("asking {what}: {}", sites.join(", ")))
    };
    let found: Vec<_> =
        [asking(&new, "to be let in"), asking(&renewing, "for another certificate")].into_iter().flatten().collect();
    match found.is_empty() {
        true => findings.ok("requests", "nobody asks for anything"),
        false => findings.warn("requests", found.join("; "), "look at them with `archipelago-coordinator requests`"),
    }
}
