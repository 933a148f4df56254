//! The bytes of the log and of the state, kept in `testdata/golden`: what an earlier build wrote is read by this one.
//!
//! `UPDATE=1` writes the files of new commands and of a new format of the state. A changed file is a changed format:
//! that needs a new number and a way to read the old one, not a new file.

use std::{collections::BTreeSet, path::PathBuf};

use archipelago_cluster::{Body, Cluster, Command, Selection};
use archipelago_common::task::Asks;

use crate::script::Script;

/// One command of each kind, all of them carried out.
const LIFE: &str = "
    @1000 coordinator/1 tick
    operator/anna add-site charite
    operator/anna add-site pasteur
    operator/anna publish-reference atlas anna/lung/ref=r
    operator/anna publish-task atlas publish=at-close allow=charite,pasteur deadline=900000 embeddings=full min-cells=5 lease=60000
    operator/anna publish-task atlas lease=60000
    site/charite claim 1
    site/charite renew 1 1 40 loss=512.5
    site/pasteur claim 1
    site/pasteur give-up 1 1 out of disk
    site/charite submit 1 1 charite/lung/10x=c1 cells=3000 embeddings=e
    operator/anna close-task 1
    site/charite claim 2
    site/charite submit 2 1 charite/lung/b2=c2 cells=200
    operator/anna cancel-task 2
    site/charite withdraw atlas charite/lung/b2
    operator/anna withdraw atlas charite
    operator/anna revoke-site pasteur";

/// What came with format 2, after [`LIFE`].
const MORE: &str = "
    coordinator/1 adopt-members 1@h1:1 2@h2:1 3@h3:1
    operator/anna add-member 4@h4:1
    operator/anna promote-member 4
    operator/anna remove-member 2
    operator/anna publish-task atlas lease=60000 coverage=0.5 elbo=-900";

/// What came with format 3, after [`MORE`].
const LATER: &str = "
    operator/anna publish-reference grown axes=donor parts=models,counts anna/lung/ref=r anna/lung@donor/d1=d anna/lung+models/m=m
    operator/anna publish-task grown lease=60000
    site/charite claim 4
    site/charite submit 4 1 charite/lung/10x=c1 charite/lung@donor/d2=c2 charite/lung+counts/T=c3
    site/charite withdraw grown charite/lung+counts/T
    operator/anna publish-task atlas lease=60000 train=asked
    site/charite derive grown totals t1
    coordinator/1 raise-edition 2
    coordinator/1 introduce 1=77
    coordinator/1 agree-on-time 1=2000 3=2001 4=2002
    operator/anna set-clock 2000";

/// What came with format 4, after [`LATER`].
const LATEST: &str = "
    coordinator/1 raise-edition 3
    coordinator/1 grant charite 4096 1000000";

/// What came with format 5, after [`LATEST`].
const TRUSTED: &str = "
    coordinator/1 raise-edition 6
    operator/anna invite north invite 100000
    invited:invite ask own
    operator/anna approve north own
    operator/anna invite south another 100000
    operator/anna refuse south not yet
    operator/anna publish-reference signed-atlas signed=900 anna/lung/ref=r
    operator/anna publish-task signed-atlas signed=950 lease=60000";

/// What came with format 6, after [`TRUSTED`].
const RENEWED: &str = "
    coordinator/1 raise-edition 7
    site/north renew-certificate fresh
    operator/anna approve north fresh
    coordinator/1 note site/north fresh 2000000
    coordinator/1 note operator/anna annas 3000000
    operator/anna revoke operator/ben has left
    operator/anna revoke auditor/eve shut=eves
    site/north renew-certificate later";

/// What came with format 7, after [`RENEWED`].
const ROLES: &str = "
    coordinator/1 raise-edition 8
    enroller/eva add-site west
    publisher+auditor/ben publish-task atlas lease=60000 min-cells=30
    operator/anna revoke administrator/joe has left
    administrator/adam demand signatures
    administrator/adam demand two-to-publish
    operator/anna propose with=annas publish-reference second signed=960 anna/lung/ref=r
    publisher/ben approve-proposal 1 with=bens
    operator/anna propose with=annas publish-reference third signed=970 anna/lung/ref=r
    operator/anna propose with=annas lift two-to-publish
    operator/cleo decline-proposal 3 it stays
    site/north anchor 0 r1 r2
    site/charite erase atlas charite/lung/10x";

/// The latest format of the state; see `snapshot.rs`.
const STATE: u32 = 7;

#[test]
fn every_command_has_the_bytes_it_always_had() {
    let mut script = Script::after(LIFE);
    script.run(MORE);
    script.run(LATER);
    script.run(LATEST);
    script.run(TRUSTED);
    script.run(RENEWED);
    script.run(ROLES);
    let mut names = BTreeSet::new();
    for command in &script.log {
        let name = format!("command-{}.bin", name(&command.body));
        // The first of each kind.
        if names.insert(name.clone()) {
            let bytes = command.to_bytes().unwrap();
            check(&name, &bytes);
            assert_eq!(&Command::from_bytes(&bytes).unwrap(), command);
        }
    }
    let files = std::fs::read_dir(dir()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files.filter(|file| file.starts_with("command-")).collect();
    assert_eq!(files, names, "every kind of command has its file, and every file its kind");
}

/// What can be said since, in the same format of commands and state.
#[test]
fn a_task_that_does_not_ask_for_everything_has_the_bytes_it_always_had() {
    let mut script = Script::after(LIFE);
    script.run("operator/anna publish-task atlas lease=60000 asks=parts");
    script.run("operator/anna publish-reference trees parts=tree-annotations anna/lung/ref=r");
    script.run("operator/anna publish-task trees lease=60000 asks=annotations");
    let tasks = script.log.iter().filter_map(|command| match &command.body {
        Body::PublishTask(task) if task.asks != Asks::Both => Some((command, task.asks)),
        _ => None,
    });
    let tasks: Vec<_> = tasks.collect();
    assert_eq!(tasks.iter().map(|(_, asks)| *asks).collect::<Vec<_>>(), [Asks::Parts, Asks::Annotations]);
    for (command, asks) in tasks {
        let bytes = command.to_bytes().unwrap();
        check(&format!("task-for-{asks}.bin"), &bytes);
        assert_eq!(&Command::from_bytes(&bytes).unwrap(), command);
    }
    assert_eq!(Cluster::restore(&script.cluster.snapshot().unwrap()).unwrap(), script.cluster);
}

#[test]
fn a_state_of_every_format_is_read_and_the_latest_is_written() {
    let mut script = Script::first_edition();
    let read = |format: u32| {
        let bytes = std::fs::read(dir().join(format!("state-{format}.bin"))).unwrap();
        Cluster::restore(&bytes).unwrap_or_else(|error| panic!("format {format}: {error}"))
    };
    script.run(LIFE);
    assert_eq!(read(1), script.cluster);
    script.run(MORE);
    assert_eq!(read(2), script.cluster);
    script.run(LATER);
    assert_eq!(read(3), script.cluster);
    script.run(LATEST);
    assert_eq!(read(4), script.cluster);
    script.run(TRUSTED);
    assert_eq!(read(5), script.cluster);
    script.run(RENEWED);
    assert_eq!(read(6), script.cluster);
    script.run(ROLES);
    check(&format!("state-{STATE}.bin"), &script.cluster.snapshot().unwrap());
    assert_eq!(read(STATE), script.cluster);
}

fn check(file: &str, bytes: &[u8]) {
    let path = dir().join(file);
    if !path.exists() && std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(std::fs::read(&path).is_ok_and(|kept| kept == bytes), "`{file}` has other bytes, or is missing");
}

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/golden")
}

fn name(body: &Body) -> &'static str {
    match body {
        Body::Tick => "tick",
        Body::AddSite { .. } => "add-site",
        Body::RevokeSite { .. } => "revoke-site",
        Body::PublishReference { .. } => "publish-reference",
        Body::PublishTask(task) if !task.train.is_in_first_layout() => "publish-task-asked",
        Body::PublishTask(_) => "publish-task",
        Body::CloseTask { .. } => "close-task",
        Body::CancelTask { .. } => "cancel-task",
        Body::Claim { .. } => "claim",
        Body::Renew { .. } => "renew",
        Body::GiveUp { .. } => "give-up",
        Body::Submit(_) => "submit",
        Body::Withdraw { selection: Selection::Keys(_), .. } => "withdraw-keys",
        Body::Withdraw { selection: Selection::Site(_), .. } => "withdraw-site",
        Body::AdoptMembers { .. } => "adopt-members",
        Body::AddMember { .. } => "add-member",
        Body::PromoteMember { .. } => "promote-member",
        Body::RemoveMember { .. } => "remove-member",
        Body::PublishGatedTask { .. } => "publish-gated-task",
        Body::PublishLaidOutReference { .. } => "publish-laid-out-reference",
        Body::Derive { .. } => "derive",
        Body::RaiseEdition { .. } => "raise-edition",
        Body::Introduce { .. } => "introduce",
        Body::AgreeOnTime { .. } => "agree-on-time",
        Body::SetClock { .. } => "set-clock",
        Body::Grant { .. } => "grant",
        Body::Invite { .. } => "invite",
        Body::RequestCertificate { .. } => "request-certificate",
        Body::ApproveSite { .. } => "approve-site",
        Body::RefuseSite { .. } => "refuse-site",
        Body::PublishSignedReference { .. } => "publish-signed-reference",
        Body::PublishSignedTask { .. } => "publish-signed-task",
        Body::RenewCertificate { .. } => "renew-certificate",
        Body::NoteCertificate { .. } => "note-certificate",
        Body::Revoke { .. } => "revoke",
        Body::Demand { .. } => "demand",
        Body::Propose { .. } => "propose",
        Body::ApproveProposal { .. } => "approve-proposal",
        Body::DeclineProposal { .. } => "decline-proposal",
        Body::Anchor { .. } => "anchor",
        Body::Erase { .. } => "erase",
    }
}
