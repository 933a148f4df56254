//! Who may ask for what, asked of a real coordinator: every request of the protocol, by everybody.

use std::{collections::BTreeMap, path::Path};

use archipelago_protocol::{
    frame,
    message::{FromCoordinator, Refusal, Reply, Request, RequestKey, ToCoordinator},
};
use archipelago_transport::{
    Credentials, Stream,
    ca::{Authority, Validity},
};

use crate::{
    certificates::{begin_session, runtime},
    consortium::Consortium,
};

/// The requests by their names, as the protocol's tests keep them.
fn all_requests() -> BTreeMap<String, Request> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/testdata/v1");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named = files.filter_map(|path| {
        let name = path.file_stem()?.to_str()?.strip_prefix("request-")?.to_owned();
        match frame::decode(&std::fs::read(&path).unwrap()).unwrap() {
            ToCoordinator::Request { body, .. } => Some((name, body)),
            ToCoordinator::Ping => None,
        }
    });
    named.collect()
}

/// The table of the page for governance: by request and role, whether it says yes.
fn table() -> BTreeMap<(String, String), bool> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/governance.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, table) = page.split_once("<!-- made by a test: roles -->\n").unwrap();
    let (table, _) = table.split_once("<!-- end -->").unwrap();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let mut lines = table.lines();
    let roles = cells(lines.next().unwrap());
    let mut table = BTreeMap::new();
    for row in lines.skip(1).map(cells) {
        for (role, cell) in roles.iter().zip(&row).skip(1) {
            table.insert((row[0].replace(' ', "-"), role.clone()), cell == "yes");
        }
    }
    table
}

/// What a coordinator answers to one request after another in one session.
pub(crate) struct Session(pub(crate) Stream);

impl Session {
    fn ask(&mut self, id: u64, body: Request) -> Result<Reply, Refusal> {
        self.try_ask(id, body).expect("the session stands")
    }

    /// The answer; none where the session has ended.
    pub(crate) fn try_ask(&mut self, id: u64, body: Request) -> Option<Result<Reply, Refusal>> {
        let key = RequestKey(rand::random());
        runtime().block_on(async {
            let request = ToCoordinator::Request { id, key, body };
            self.0.send_frame(&frame::encode(&request).unwrap()).await.ok()?;
            loop {
                let frame = self.0.recv_frame(1 << 26).await.ok()??;
                match frame::decode(&frame).unwrap() {
                    FromCoordinator::Response { id: of, result } if of == id => return Some(result),
                    _ => {}
                }
            }
        })
    }
}

#[test]
fn a_running_coordinator_refuses_what_the_table_of_roles_does_not_allow_and_nothing_else() {
    let consortium = Consortium::new(1);
    let invited = invite(&consortium);
    let table = table();
    // In this order nobody is shut out by the examples before their turn.
    for who in [
        "site/charite",
        "publisher/paul",
        "auditor/eve",
        "enroller/ed",
        "administrator/adam",
        "operator/olga",
        "publisher+enroller/pia",
        "invited",
    ] {
        let credentials = match who {
            "invited" => invited.clone(),
            _ => {
                consortium.issue(who, "them");
                let credentials = consortium.credentials("them");
                std::fs::remove_dir_all(consortium.path("them")).unwrap();
                credentials
            }
        };
        if who == "site/charite" {
            consortium.ask(&["site", "add", "charite"]);
        }
        let roles: Vec<_> = who.split('/').next().unwrap().split('+').map(str::to_owned).collect();
        let connection = consortium.dial(credentials);
        let mut session = Session(begin_session(&connection));
        for (id, (name, request)) in (1..).zip(all_requests()) {
            let may = roles.iter().any(|role| table[&(name.clone(), role.clone())]);
            let answer = session.ask(id, request);
            let is_refused = matches!(answer, Err(Refusal::Forbidden { .. }));
            assert_eq!(is_refused, !may, "`{name}` by {who}: {answer:?}");
        }
    }
    // A coordinator has no session in which it could ask.
    assert!(all_requests().keys().all(|name| !table[&(name.clone(), "coordinator".to_owned())]));
    let connection = consortium.dial(consortium.credentials("node1"));
    let mut stream = begin_session(&connection);
    let answer = runtime().block_on(async { stream.recv_frame(1 << 20).await });
    assert!(!matches!(answer, Ok(Some(_))), "a coordinator was answered");
}

/// Whoever comes with an invitation of the site `charite`.
fn invite(consortium: &Consortium) -> Credentials {
    let authority = Authority::load(&consortium.path("ca/ca.pem"), &consortium.path("ca/ca.key")).unwrap();
    let (invitation, issued) = authority.invite(Validity::days(1)).unwrap();
    let connection = consortium.dial(consortium.credentials("anna"));
    let mut session = Session(begin_session(&connection));
    // A new leader compares clocks first.
    let now_ms = (1..).find_map(|id| match session.ask(id, Request::ShowTime) {
        Ok(Reply::Time(now_ms)) => Some(now_ms),
        Err(Refusal::Busy { .. } | Refusal::NotLeader { .. }) => {
            std::thread::sleep(std::time::Duration::from_millis(50));
            None
        }
        answer => panic!("{answer:?}"),
    });
    let (site, expires_ms) = ("north".parse().unwrap(), now_ms.unwrap() + 3_600_000);
    session.ask(0, Request::Invite { site, invitation, expires_ms }).unwrap();
    Credentials::from_pem(authority.certificate(), &issued.certificate, &issued.key).unwrap()
}
