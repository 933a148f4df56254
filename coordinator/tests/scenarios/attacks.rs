//! The attack table: who tries what, and what must happen. Real processes and real certificates; one consortium for all of it.
//!
//! `UPDATE=1` writes docs/attacks.md. What a site defends itself against is beside its worker: `worker/tests/cli/traps.rs` and
//! `tests/end_to_end`.

mod strangers;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use archipelago_client::{Client, Source};
use archipelago_common::{
    BlobRef, Columns, DType, Digest, Fingerprint, NodeId, Principal, StateDict, TaskId, Tensor, Version, VersionId,
    act::Anchored,
    limits,
    record::Progress,
    task::{SurgeryTask, TrainSpec},
};
use archipelago_protocol::{
    frame,
    message::{Hello, PutReply, Request, StreamOpen, Withdrawal},
    version,
};
use archipelago_transport::{
    Transport as _,
    ca::{Authority, Validity, signing_request},
    net::{NetTransport, Network},
};
use time::OffsetDateTime;
use tokio::runtime::Runtime;

use crate::{
    consortium::{Consortium, columns, key},
    life::{claim, submission, upload},
};

/// Where attacks are tried: one node, an operator `anna`, sites `north` and `south`, of which north has done task 1 and has claimed
/// task 2, and people and things that have no business there.
struct Ground {
    consortium: Consortium,
    runtime: Runtime,
    /// The first version of `lung`.
    first: Version,
    /// What north handed in.
    columns: BlobRef,
    /// Sessions, by the folder with the credentials.
    sessions: BTreeMap<&'static str, Client>,
}

/// A line of the table.
struct Attack {
    who: &'static str,
    tries: &'static str,
    /// What is found in the answer.
    must: &'static str,
    with: fn(&Ground) -> String,
}

const fn attack(who: &'static str, tries: &'static str, must: &'static str, with: fn(&Ground) -> String) -> Attack {
    Attack { who, tries, must, with }
}

#[test]
fn every_attack_ends_as_the_table_says_and_leaves_nothing_behind() {
    let ground = Ground::new();
    let before = ground.state();
    let mut wrong = Vec::new();
    for Attack { who, tries, must, with } in ATTACKS {
        let found = with(&ground);
        if !found.contains(must) {
            wrong.push(format!("{who}: {tries}\n    expected `{must}`\n    found    `{found}`"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} attacks:\n{}", wrong.len(), ATTACKS.len(), wrong.join("\n"));
    assert!(ATTACKS.len() >= 40, "{} attacks", ATTACKS.len());
    assert_eq!(ground.state(), before, "something was changed");
}

#[test]
fn the_documentation_lists_every_attack() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/attacks.md");
    let lines: String = (1..)
        .zip(ATTACKS)
        .map(|(n, Attack { who, tries, must, .. })| {
            format!("| {n} | {who} | {tries} | {} |\n", must.replace('|', "\\|"))
        })
        .collect();
    let text = format!("{INTRODUCTION}\n| | Who | Tries | Is told, or comes to |\n|---|---|---|---|\n{lines}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "run with UPDATE=1");
}

const INTRODUCTION: &str = "# Attacks

Each line is tried against a running coordinator with real certificates, in `make test`: what whoever attacks is told, or how the attempt
ends. Afterwards references, sites, members and tasks are as they were. The table is written by the test
(`coordinator/tests/scenarios/attacks.rs`, `UPDATE=1`). A certificate that is over, or not valid yet, is refused by one's own program here; that a
coordinator ends a session with it is in `coordinator/tests/scenarios/certificates.rs`.

What is tried against a site is tested beside its worker: crafted references and tasks (`worker/tests/cli/traps.rs`), forged and older
ones (`worker/tests/cli/forged.rs`), half handshakes and silent connections (`coordinator/src/server`), whole lists of requests by role (`protocol/tests/golden/roles.rs`).
";

const ATTACKS: &[Attack] = &[
    // Who one is.
    attack("nobody", "speaks plain HTTP to the port of the sessions", "no answer", |g| g.http()),
    attack("nobody", "sends noise to the port of the sessions", "no answer", |g| g.noise()),
    attack("nobody", "speaks TLS and shows no certificate", "CertificateRequired", |g| {
        strangers::without_certificate(&g.address())
    }),
    attack("an operator of another authority that has the same name", "lists sites", "authority", |g| {
        g.command("forged", &["site", "list"])
    }),
    attack("an operator of another consortium", "lists sites", "the peer is", |g| {
        g.command("liver", &["site", "list"])
    }),
    attack("an operator whose certificate has expired", "lists sites", "expired", |g| {
        g.command("expired", &["site", "list"])
    }),
    attack("an operator whose certificate is not valid yet", "lists sites", "not valid", |g| {
        g.command("early", &["site", "list"])
    }),
    attack("an operator who was revoked", "enrols a site", "was revoked", |g| {
        g.command("ben", &["site", "add", "west"])
    }),
    attack("a site that was revoked", "lists tasks", "was revoked", |g| g.ask("east", Request::ListTasks)),
    attack("a site that is not enrolled", "lists tasks", "is not enrolled", |g| g.ask("west", Request::ListTasks)),
    attack("a coordinator that is no member", "begins a session", "closed", |g| {
        g.open("nine", control(version::NEWEST))
    }),
    attack("a site", "speaks Raft", "closed", |g| g.open("south", StreamOpen::Raft)),
    attack("a site", "opens streams without end", "closed, and others are served", |g| g.open_without_end("south")),
    attack("an operator", "speaks Raft", "closed", |g| g.open("anna", StreamOpen::Raft)),
    attack("an auditor", "speaks Raft", "closed", |g| g.open("eva", StreamOpen::Raft)),
    // What one may ask.
    attack("a site", "enrols another", "not permitted", |g| {
        g.ask("south", Request::AddSite { site: "west".parse().unwrap() })
    }),
    attack("a site", "revokes another", "not permitted", |g| {
        g.ask("south", Request::RevokeSite { site: "north".parse().unwrap() })
    }),
    attack("a site", "invites another", "not permitted", |g| g.ask("south", invite("west", u64::MAX))),
    attack("a site", "approves itself under another key", "not permitted", |g| {
        g.ask("south", Request::ApproveSite { site: "south".parse().unwrap(), certificate: g.read("south/cert.pem") })
    }),
    attack("a site", "publishes a reference", "not permitted", |g| g.ask("south", g.reference("skin", "south"))),
    attack("a site", "publishes a task", "not permitted", |g| g.ask("south", g.task())),
    attack("a site", "closes a task", "not permitted", |g| g.ask("south", Request::CloseTask { task: TaskId(2) })),
    attack("a site", "sets the clock", "not permitted", |g| g.ask("south", Request::SetClock { now_ms: 0 })),
    attack("a site", "takes a coordinator out", "not permitted", |g| {
        g.ask("south", Request::RemoveMember { node: NodeId::new(1).unwrap() })
    }),
    attack("a site", "reads the names of all sites", "not permitted", |g| {
        g.ask("south", Request::ListSitesAfter { after: None })
    }),
    attack("a site", "withdraws another's conditions by its name", "not permitted", |g| {
        g.ask("south", withdraw_site("north"))
    }),
    attack("a site", "withdraws another's condition by its key", "may not withdraw", |g| {
        let what = Withdrawal::Keys(vec![key(NORTH)]);
        g.ask("south", Request::Withdraw { reference: "lung".parse().unwrap(), what })
    }),
    attack("a site", "erases another's condition", "may not withdraw", |g| {
        let what = Withdrawal::Keys(vec![key(NORTH)]);
        g.ask("south", Request::Erase { reference: "lung".parse().unwrap(), what })
    }),
    attack("an auditor", "withdraws a condition", "not permitted", |g| g.ask("eva", withdraw_site("north"))),
    attack("an auditor", "enrols a site", "not permitted", |g| {
        g.ask("eva", Request::AddSite { site: "west".parse().unwrap() })
    }),
    attack("an auditor", "claims a task", "not permitted", |g| g.ask("eva", Request::Claim { task: TaskId(2) })),
    attack("an auditor", "uploads a blob", "not permitted", |g| g.put("eva", b"of an auditor")),
    attack("an operator", "claims a task", "not permitted", |g| g.ask("anna", Request::Claim { task: TaskId(2) })),
    attack("an operator", "hands in as a site", "not permitted", |g| {
        g.ask("anna", Request::Submit(submission(TaskId(2), 1, g.first.id(), NORTH, g.columns)))
    }),
    attack("an operator", "anchors a site's log", "not permitted", |g| {
        g.ask("anna", Request::Anchor { after: Anchored::default(), hashes: vec![Digest::of(b"x")] })
    }),
    attack("an operator", "revokes themselves", "another operator is to say this", |g| {
        g.ask("anna", Request::Revoke { who: "operator/anna".parse().unwrap(), key: None, reason: String::new() })
    }),
    // Invitations.
    attack("whoever has an invitation", "lists references", "an invitation is there to ask for a certificate", |g| {
        g.ask("invited", Request::ListReferenceHeads { after: None })
    }),
    attack("whoever has an invitation that was used", "asks for another key", "was used", |g| {
        g.ask("invited", g.request("guest"))
    }),
    attack("whoever has an invitation that has expired", "asks for a certificate", "expired", |g| {
        g.ask("late", g.request("late"))
    }),
    attack("whoever makes up a key", "asks as if it were invited", "authority", |g| {
        g.ask("guessed", g.request("guessed"))
    }),
    attack("whoever has a key that nobody invited", "asks for a certificate", "not known here", |g| {
        g.ask("uninvited", g.request("guest"))
    }),
    attack("an operator", "invites for ever", "at most", |g| g.ask("anna", invite("west", u64::MAX))),
    attack("an operator", "invites under the name of a site that was revoked", "was revoked", |g| {
        g.ask("anna", invite("east", g.soon_ms()))
    }),
    // Work.
    attack("a site", "hands in under another's key", "not in the namespace of site", |g| {
        g.ask("south", Request::Submit(submission(TaskId(1), 1, g.first.id(), NORTH, g.columns)))
    }),
    attack("a site", "hands in with an epoch that is over", "epoch", |g| {
        g.ask("north", Request::Submit(submission(TaskId(2), 0, g.first.id(), "north/pbmc/b2", g.columns)))
    }),
    attack("a site", "hands in for a version that never was", "version", |g| {
        let never = VersionId(Digest::of(b"never"));
        g.ask("north", Request::Submit(submission(TaskId(2), 1, never, "north/pbmc/b2", g.columns)))
    }),
    attack("a site", "hands in for a task that it has not claimed", "claim", |g| {
        g.ask("south", Request::Submit(submission(TaskId(2), 1, g.first.id(), "south/pbmc/b1", g.columns)))
    }),
    attack("a site", "claims a task that is closed", "closed", |g| g.ask("south", Request::Claim { task: TaskId(3) })),
    attack("a site", "keeps a lease that is another's", "claimed", |g| {
        let progress = Progress { epochs_done: 1, epochs_planned: 2, loss: None };
        g.ask("south", Request::Renew { task: TaskId(2), epoch: 1, progress })
    }),
    attack("a site", "names columns that it never uploaded", "have not been uploaded", |g| {
        g.hand_in("north", "north/pbmc/b2", BlobRef::of(b"never uploaded"))
    }),
    attack("a site", "hands in a tensor that nobody asked for", "`extra`", |g| {
        g.hand_in_columns([("w", vec![1.0, 1.0]), ("extra", vec![1.0])])
    }),
    attack("a site", "hands in columns of another shape", "expected F32[2]", |g| {
        g.hand_in_columns([("w", vec![1.0, 1.0, 1.0])])
    }),
    attack("a site", "hands in numbers that are none", "finite", |g| g.hand_in_columns([("w", vec![f32::NAN, 1.0])])),
    attack("a site", "hands in numbers beyond the task's norm", "norm", |g| {
        g.hand_in_columns([("w", vec![1e30, 1.0])])
    }),
    attack("a site", "hands in bytes that are no columns", "north/pbmc/b2", |g| {
        let blob = g.runtime.block_on(put(g.session("north"), b"no columns")).unwrap();
        g.hand_in("north", "north/pbmc/b2", blob)
    }),
    attack("a site", "gives up with a reason of a megabyte", "more than the limit of", |g| {
        g.ask("north", Request::GiveUp { task: TaskId(2), epoch: 1, reason: "x".repeat(1 << 20) })
    }),
    // References and blobs.
    attack("an operator", "publishes over a reference that is there", "is there already", |g| {
        g.ask("anna", g.reference("lung", "anna"))
    }),
    attack("an operator", "publishes conditions in a site's name", "not in the namespace of its publisher", |g| {
        let columns = [(key(NORTH), g.columns)].into();
        let version = Version { base: g.first.base, columns };
        g.ask("anna", Request::PublishReference { name: "skin".parse().unwrap(), version })
    }),
    attack("an operator", "publishes a base that is no base", "not one of our references", |g| {
        let version = Version { base: g.columns, columns: BTreeMap::new() };
        g.ask("anna", Request::PublishReference { name: "skin".parse().unwrap(), version })
    }),
    attack("an operator", "publishes a task on a version that never was", "version", |g| {
        let never = VersionId(Digest::of(b"never"));
        g.ask(
            "anna",
            Request::PublishTask(Box::new(SurgeryTask::new("lung".parse().unwrap(), never, TrainSpec::default()))),
        )
    }),
    attack("a site", "uploads other bytes than it says", "are not the blob", |g| {
        let bytes = b"other bytes than it says";
        let blob = BlobRef { size: bytes.len() as u64, ..BlobRef::of(b"what it says") };
        let put = g.session("north").put_blob(blob, Source::Bytes(bytes), |_| ());
        told(g.runtime.block_on(put))
    }),
    attack("a site", "announces a blob beyond every limit", "Refused", |g| {
        let blob = BlobRef { digest: Digest::of(b"huge"), size: limits::BLOB_BYTES + 1 };
        g.open("north", StreamOpen::Put(blob))
    }),
    attack("a site", "downloads what it guesses the digest of", "is not open to", |g| {
        g.get("south", BlobRef { digest: Digest::of(b"a guess"), size: 7 })
    }),
    attack("a site", "downloads what another has withdrawn", "is not open to", |g| g.get("south", g.columns)),
    // The wire.
    attack("a site", "begins with a frame that is none", "closed", |g| g.send("north", b"\xff\xff\xff\xff")),
    attack("a site", "begins with a frame beyond every limit", "closed", |g| {
        g.send("north", &vec![7; limits::FRAME_BYTES + 1])
    }),
    attack("a site", "begins with nothing", "closed", |g| g.send("north", b"")),
    attack("a site", "speaks protocol 0", "closed", |g| g.open("north", control(0))),
    attack("a site", "asks for a list as of a task that is not there", "there is no task 999", |g| {
        g.ask("north", Request::ListAssignments { task: TaskId(999), after: None })
    }),
    attack("a site", "gives a reason with escapes of a terminal", "\\u{1b}[2J", |g| {
        let _ = g.ask("south", Request::Claim { task: TaskId(4) });
        let reason = "\u{1b}[2Jrun this: \nrm".to_owned();
        let _ = g.ask("south", Request::GiveUp { task: TaskId(4), epoch: 1, reason });
        let shown = g.consortium.command(&["task", "show", "4"]).args(g.files("anna")).output().unwrap();
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        if text.contains('\u{1b}') { "the terminal is commanded".to_owned() } else { text }
    }),
    attack("a site", "names its program with a line of a log", "one line", |g| {
        let software = "worker\n2026-01-01T00:00:00Z  INFO forged".to_owned();
        g.open("north", StreamOpen::Control(Hello { protocol: version::NEWEST, software }));
        let log = std::fs::read_to_string(g.consortium.path("node1.log")).unwrap();
        let is_forged = log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z  INFO forged"));
        if is_forged { "a line of its own".to_owned() } else { "one line".to_owned() }
    }),
];

impl Ground {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let consortium = Consortium::new(1);
        let first = consortium.write_reference("reference").version().clone();
        consortium.ask(&["reference", "publish", "lung", "reference"]);
        for (who, folder) in [
            ("site/north", "north"),
            ("site/south", "south"),
            ("site/east", "east"),
            ("site/west", "west"),
            ("auditor/eva", "eva"),
            ("operator/ben", "ben"),
            ("coordinator/9", "nine"),
        ] {
            consortium.issue(who, folder);
            if ["north", "south", "east"].contains(&folder) {
                consortium.ask(&["site", "add", folder]);
            }
        }
        for _ in 1..=4 {
            consortium.ask(&["task", "publish", "lung", "--epochs", "1"]);
        }
        consortium.ask(&["task", "close", "3"]);
        let mut ground = Self { consortium, runtime, first, columns: BlobRef::of(b""), sessions: BTreeMap::new() };
        ground.columns = ground.runtime.block_on(async {
            let north = ground.consortium.client("north").await.unwrap();
            let epoch = claim(&north, TaskId(1)).await;
            let blob = upload(&north, &columns(2.0)).await;
            north.request(Request::Submit(submission(TaskId(1), epoch, ground.first.id(), NORTH, blob))).await.unwrap();
            let again = Request::Submit(submission(TaskId(1), epoch, ground.first.id(), NORTH, blob));
            north.request(again).await.unwrap();
            claim(&north, TaskId(2)).await;
            claim(&ground.consortium.client("south").await.unwrap(), TaskId(1)).await;
            north.request(withdraw_site("north")).await.unwrap();
            blob
        });
        ground.forge();
        for folder in ["north", "south", "anna", "eva"] {
            let session = ground.runtime.block_on(ground.consortium.client(folder)).unwrap();
            ground.sessions.insert(folder, session);
        }
        ground.consortium.ask(&["revoke", "operator/ben"]);
        ground.consortium.ask(&["site", "revoke", "east"]);
        ground
    }

    /// Certificates that nobody should have, each beside the consortium's own authority.
    fn forge(&self) {
        let consortium = &self.consortium;
        let authority = Authority::load(&consortium.path("ca/ca.pem"), &consortium.path("ca/ca.key")).unwrap();
        for (name, folder) in [("lung", "forged"), ("liver", "liver")] {
            let (other, _) = Authority::create(name.parse().unwrap(), Validity::days(1)).unwrap();
            let issued = other.issue(&"operator/anna".parse().unwrap(), Validity::days(1)).unwrap();
            self.put_credentials(folder, &issued);
            let mut own = vec![folder];
            if folder == "forged" {
                self.put_credentials("guessed", &other.invite(Validity::days(1)).unwrap().1);
                own.push("guessed");
            }
            // Their own program takes both authorities: what is asked is whether the coordinator does.
            for folder in own {
                let both = self.read("anna/ca.pem") + other.certificate();
                std::fs::write(consortium.path(folder).join("ca.pem"), both).unwrap();
            }
        }
        let (now, hour) = (OffsetDateTime::now_utc(), Duration::from_secs(3_600));
        let operator: Principal = "operator/cleo".parse().unwrap();
        let past = Validity { not_before: now - 2 * hour, not_after: now - hour };
        self.put_credentials("expired", &authority.issue(&operator, past).unwrap());
        let future = Validity { not_before: now + hour, not_after: now + 2 * hour };
        self.put_credentials("early", &authority.issue(&operator, future).unwrap());
        // Invitations: one that is used, one that is over, one that nobody gave.
        for (folder, lives_ms) in [("invited", 60_000), ("late", 1_500)] {
            let (invitation, issued) = authority.invite(Validity::days(1)).unwrap();
            self.put_credentials(folder, &issued);
            let site = if folder == "invited" { "guest" } else { "late" };
            let request =
                Request::Invite { site: site.parse().unwrap(), invitation, expires_ms: self.now_ms() + lives_ms };
            self.runtime.block_on(async {
                let anna = self.consortium.client("anna").await.unwrap();
                anna.request(request).await.unwrap();
                if folder == "invited" {
                    let guest = self.consortium.client(folder).await.unwrap();
                    guest.request(self.request("guest")).await.unwrap();
                } else {
                    tokio::time::sleep(Duration::from_millis(lives_ms + 500)).await;
                }
            });
        }
        self.put_credentials("uninvited", &authority.invite(Validity::days(1)).unwrap().1);
    }

    fn put_credentials(&self, folder: &str, issued: &archipelago_transport::ca::Issued) {
        let home = self.consortium.path(folder);
        std::fs::create_dir_all(&home).unwrap();
        issued.write(&home.join("cert.pem"), &home.join("key.pem")).unwrap();
        std::fs::copy(self.consortium.path("anna/ca.pem"), home.join("ca.pem")).unwrap();
    }

    /// What must be the same afterwards.
    fn state(&self) -> String {
        let asked =
            [&["reference", "show", "lung"][..], &["site", "list"], &["members", "list"], &["task", "show", "2"]];
        asked.iter().map(|args| self.consortium.ask(args)["changes"].to_string() + &self.names(args)).collect()
    }

    fn names(&self, args: &[&str]) -> String {
        let shown = self.consortium.ask(args);
        let sites =
            shown.as_array().into_iter().flatten().map(|one| one["site"].to_string() + &one["revoked_ms"].to_string());
        sites.collect::<String>() + &shown["state"].to_string()
    }

    fn session(&self, folder: &str) -> &Client {
        &self.sessions[folder]
    }

    /// What a request comes to.
    fn ask(&self, folder: &'static str, request: Request) -> String {
        self.runtime.block_on(async {
            match self.sessions.get(folder) {
                Some(session) => told(session.request(request).await),
                None => match self.consortium.client(folder).await {
                    Ok(session) => told(session.request(request).await),
                    Err(error) => error.to_string(),
                },
            }
        })
    }

    /// What a command comes to.
    fn command(&self, folder: &str, args: &[&str]) -> String {
        let output = self.consortium.command(args).args(self.files(folder)).args(["--timeout", "10"]).output().unwrap();
        match output.status.success() {
            true => "done".to_owned(),
            false => String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn files(&self, folder: &str) -> Vec<String> {
        let file = |name: &str| format!("{folder}/{name}.pem");
        let peers = self.consortium.peers().to_owned();
        let flags = ["--coordinators", "--ca", "--cert", "--key"].map(str::to_owned);
        flags
            .into_iter()
            .zip([peers, file("ca"), file("cert"), file("key")])
            .flat_map(|(flag, value)| [flag, value])
            .collect()
    }

    /// What a stream comes to that begins so.
    fn open(&self, folder: &str, open: StreamOpen) -> String {
        self.send(folder, &frame::encode(&open).unwrap())
    }

    /// What a stream comes to that begins with these bytes: what is answered, and how it ends.
    fn send(&self, folder: &str, bytes: &[u8]) -> String {
        self.runtime.block_on(async {
            let node = NodeId::new(1).unwrap();
            let transport = NetTransport::new(self.consortium.credentials(folder), Network::default());
            let connection = match transport.dial(&self.consortium.addresses()[&node], node).await {
                Ok(connection) => connection,
                Err(error) => return error.to_string(),
            };
            let Ok(mut stream) = connection.open_stream().await else { return "closed".to_owned() };
            // Whoever is cut off while it sends hears of it when it reads.
            let _ = stream.send_frame(bytes).await;
            let _ = stream.finish().await;
            let answered = tokio::time::timeout(WAIT, stream.recv_frame(limits::FRAME_BYTES)).await;
            match answered {
                Ok(Ok(Some(frame))) => match frame::decode::<PutReply>(&frame) {
                    Ok(reply) => format!("answered: {reply:?}"),
                    Err(_) => format!("answered: {}", String::from_utf8_lossy(&frame)),
                },
                Ok(Ok(None)) => "closed".to_owned(),
                Ok(Err(error)) => format!("closed: {error}"),
                Err(_) => "nothing".to_owned(),
            }
        })
    }

    /// What becomes of whoever opens streams and keeps to no limit, and whether anybody else notices.
    fn open_without_end(&self, folder: &str) -> String {
        let ended = strangers::streams_without_end(&self.address(), &self.consortium.path(folder));
        match self.runtime.block_on(self.session("anna").sites()) {
            Ok(_) => format!("{ended}, and others are served"),
            Err(error) => format!("{ended}, and others are not served: {error}"),
        }
    }

    fn address(&self) -> String {
        self.consortium.addresses()[&NodeId::new(1).unwrap()].clone()
    }

    /// What a plain connection gets.
    fn raw(&self, bytes: &[u8]) -> String {
        let Ok(mut stream) = TcpStream::connect(self.address()) else {
            return "no answer".to_owned();
        };
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.take(1 << 16).read_to_end(&mut answer);
        // An alert of TLS is seven bytes, and says nothing of the consortium.
        if answer.len() <= 7 {
            "no answer".to_owned()
        } else {
            format!("answered: {}", String::from_utf8_lossy(&answer))
        }
    }

    fn http(&self) -> String {
        self.raw(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")
    }

    fn noise(&self) -> String {
        self.raw(&[0x5a; 4_096])
    }

    fn put(&self, folder: &'static str, bytes: &[u8]) -> String {
        told(self.runtime.block_on(put(self.session(folder), bytes)))
    }

    fn get(&self, folder: &str, blob: BlobRef) -> String {
        let path = self.consortium.path("downloaded");
        told(self.runtime.block_on(self.session(folder).get_blob(blob, &path, |_| ())))
    }

    fn hand_in(&self, folder: &'static str, key: &str, columns: BlobRef) -> String {
        let task = TaskId(2);
        self.ask(folder, Request::Submit(submission(task, 1, self.first.id(), key, columns)))
    }

    fn hand_in_columns<const N: usize>(&self, tensors: [(&str, Vec<f32>); N]) -> String {
        let tensors = tensors.map(|(name, values)| (name.to_owned(), Tensor::from_f32(&[values.len()], &values)));
        assert!(tensors.iter().all(|(_, tensor)| tensor.dtype() == DType::F32));
        let blob = self.runtime.block_on(upload(self.session("north"), &Columns(StateDict::from_iter(tensors))));
        self.hand_in("north", "north/pbmc/b2", blob)
    }

    fn reference(&self, name: &str, _by: &str) -> Request {
        Request::PublishReference { name: name.parse().unwrap(), version: self.first.clone() }
    }

    fn task(&self) -> Request {
        let task = SurgeryTask::new("lung".parse().unwrap(), self.first.id(), TrainSpec::default());
        Request::PublishTask(Box::new(task))
    }

    /// Somebody's own request for a certificate.
    fn request(&self, site: &str) -> Request {
        let (_, request) = signing_request(&format!("site/{site}").parse().unwrap()).unwrap();
        Request::RequestCertificate { request }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.consortium.path(file)).unwrap()
    }

    fn now_ms(&self) -> u64 {
        OffsetDateTime::now_utc().unix_timestamp() as u64 * 1_000
    }

    fn soon_ms(&self) -> u64 {
        self.now_ms() + 60_000
    }
}

fn told<T>(result: Result<T, archipelago_client::ClientError>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            error.to_string() + &cause.unwrap_or_default()
        }
    }
}

async fn put(client: &Client, bytes: &[u8]) -> Result<BlobRef, archipelago_client::ClientError> {
    let blob = BlobRef::of(bytes);
    client.put_blob(blob, Source::Bytes(bytes), |_| ()).await.map(|()| blob)
}

fn control(protocol: u16) -> StreamOpen {
    StreamOpen::Control(Hello { protocol, software: "test".to_owned() })
}

fn invite(site: &str, expires_ms: u64) -> Request {
    Request::Invite { site: site.parse().unwrap(), invitation: Fingerprint::of(b"another"), expires_ms }
}

fn withdraw_site(site: &str) -> Request {
    Request::Withdraw { reference: "lung".parse().unwrap(), what: Withdrawal::Site(site.parse().unwrap()) }
}

/// The condition that north has handed in.
const NORTH: &str = "north/pbmc/b1";
/// Longest wait for an answer that may not come.
const WAIT: Duration = Duration::from_secs(20);
