//! The page for a browser, asked over HTTP while the consortium goes on.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use archipelago_common::TaskId;
use archipelago_protocol::message::Request;

use crate::{
    consortium::{Consortium, columns, wait_until},
    life::{claim, submission, upload},
};

/// A page that is served to whoever has the credentials in a folder.
struct Page {
    address: String,
    process: Child,
}

impl Page {
    fn of(consortium: &Consortium, credentials: &str) -> Self {
        let address = Consortium::free_address();
        let file = |name: &str| format!("{credentials}/{name}.pem");
        let process = consortium
            .command(&["page", "--listen", &address, "--coordinators", consortium.peers()])
            .args(["--ca", &file("ca"), "--cert", &file("cert"), "--key", &file("key")])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let page = Self { address, process };
        wait_until("the page is served", 20, || page.ask("GET", "/", &page.address).is_some());
        page
    }

    /// Status line, headers and body of an answer.
    fn ask(&self, method: &str, path: &str, host: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    }

    #[track_caller]
    fn get(&self, path: &str) -> String {
        let answer = self.ask("GET", path, &self.address).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        answer
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One node with the task 1 on `lung`, and site `north`.
fn small() -> Consortium {
    let consortium = Consortium::new(1);
    consortium.write_reference("reference");
    consortium.ask(&["reference", "publish", "lung", "reference"]);
    consortium.ask(&["task", "publish", "lung"]);
    consortium.issue("site/north", "north");
    consortium.ask(&["site", "add", "north"]);
    consortium
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sites_do_is_there_and_what_they_write_commands_nothing() {
    let consortium = small();
    (0..200).for_each(|number| {
        consortium.ask(&["site", "add", &format!("site-{number}")]);
    });
    let north = consortium.client("north").await.unwrap();
    let version = serde_json::from_value(consortium.ask(&["reference", "show", "lung"])["current"].clone()).unwrap();
    let epoch = claim(&north, TaskId(1)).await;
    let blob = upload(&north, &columns(1.0)).await;
    let hostile = "north/pbmc/<script>alert(1)</script>";
    north.request(Request::Submit(submission(TaskId(1), epoch, version, hostile, blob))).await.unwrap();
    consortium.ask(&["task", "publish", "lung"]);
    let epoch = claim(&north, TaskId(2)).await;
    let reason = "\"><img src=x onerror=alert(2)>\u{202e}txt".to_owned();
    north.request(Request::GiveUp { task: TaskId(2), epoch, reason }).await.unwrap();

    let page = Page::of(&consortium, "anna");
    let home = page.get("/");
    for there in ["north", "site-0", "site-199", "online since", "task 2", "gave it back", "scvi on"] {
        assert!(home.contains(there), "{there}: {home}");
    }
    let (task, reference, site) = (page.get("/tasks/1"), page.get("/references/lung"), page.get("/sites/north"));
    assert!(task.contains("1 condition accepted") && task.contains("What was handed in"), "{task}");
    assert!(reference.contains("1 condition merged for") || reference.contains("<circle"), "{reference}");
    assert!(site.contains("What left it") && site.contains("1, "), "{site}");
    let (events, of_task) = (page.get("/events?site=north"), page.get("/events?task=2"));
    assert!(events.contains("handed in for task 1") && !events.contains("site-7"), "{events}");
    assert!(of_task.contains("gave up task 2") && !of_task.contains("handed in for task 1"), "{of_task}");
    for shown in [&home, &task, &reference, &site, &events, &of_task, &page.get("/tasks/2"), &page.get("/tasks")] {
        assert!(!shown.contains("<script>alert") && !shown.contains("<img") && !shown.contains('\u{202e}'), "{shown}");
    }
    assert!(task.contains("&lt;script&gt;") && page.get("/tasks/2").contains("&lt;img"), "it is shown as it is");
}

#[test]
fn nobody_else_gets_at_it_and_nothing_can_be_done_on_it() {
    let consortium = small();
    let page = Page::of(&consortium, "anna");
    let home = page.get("/");
    assert!(home.contains("content-security-policy: default-src 'none';") && home.contains("no-store"), "{home}");
    let port = page.address.rsplit_once(':').unwrap().1;
    for (host, status) in [
        (page.address.clone(), "200"),
        (format!("localhost:{port}"), "200"),
        (format!("lung.evil.example:{port}"), "421"),
        ("127.0.0.1".to_owned(), "421"),
    ] {
        let answer = page.ask("GET", "/", &host).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
    assert!(page.ask("POST", "/", &page.address).unwrap().starts_with("HTTP/1.1 405"));
    for nowhere in ["/nothing", "/tasks/99", "/references/liver", "/sites/nobody"] {
        let answer = page.ask("GET", nowhere, &page.address).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{nowhere}: {answer}");
    }
    let refused = consortium.command(&["page", "--listen", "0.0.0.0:0", "--config", "nothing.toml"]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is reached from other machines"));
}

#[test]
fn a_certificate_sees_what_it_may() {
    let consortium = small();
    consortium.issue("publisher/paul", "paul");
    consortium.issue("auditor/eve", "eve");
    let (of_publisher, of_auditor) = (Page::of(&consortium, "paul").get("/"), Page::of(&consortium, "eve").get("/"));
    assert!(
        of_auditor.contains("<strong>leads</strong>") && of_auditor.contains("published a task on"),
        "{of_auditor}"
    );
    assert!(of_publisher.contains("it takes that of an administrator or an auditor"), "{of_publisher}");
    assert!(of_publisher.contains("it takes an auditor's") && of_publisher.contains("/sites/north"), "{of_publisher}");
}

#[test]
fn it_goes_on_while_leaders_die_and_says_when_nobody_answers() {
    let mut consortium = Consortium::new(3);
    consortium.ask(&["site", "add", "north"]);
    let page = Page::of(&consortium, "anna");
    assert!(page.get("/").contains("/sites/north"));
    let leader = consortium.leader();
    consortium.kill(leader);
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        // Whoever looks meanwhile sees what was there.
        let home = page.get("/");
        assert!(home.contains("/sites/north") && Instant::now() < until, "{home}");
        if home.contains("not heard</strong>") && home.contains("<strong>leads</strong>") {
            break;
        }
    }
    let left: Vec<u64> = consortium.nodes().filter(|node| *node != leader).collect();
    left.iter().for_each(|node| consortium.kill(*node));
    wait_until("it is said that nobody answers", 30, || page.get("/").contains("No coordinator answers."));
    assert!(page.get("/").contains("/sites/north"), "what was seen last stays");
    left.iter().for_each(|node| consortium.start(*node));
    wait_until("somebody answers again", 30, || !page.get("/").contains("No coordinator answers."));
}
