//! A site's process dies, kill -9, while it holds a task.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use archipelago_client::{ClientConfig, Patience};
use archipelago_common::{TaskId, limits, record::Progress};
use archipelago_protocol::message::{Reply, Request};
use archipelago_transport::{Credentials, Timing, net::Network};

use crate::consortium::{Consortium, wait_until};

/// Where the child finds its credentials and whom it should call.
const HOME: &str = "ARCHIPELAGO_TEST_SITE";

/// The site's process: this very test, started by [`a_dead_workers_task_is_offered_again`] with [`HOME`] set. It claims
/// task 1 and renews its lease until it is killed. Without a parent it has nothing to do.
#[test]
fn site_process() {
    let Ok(home) = std::env::var(HOME) else { return };
    let (folder, coordinators) = home.split_once('|').unwrap();
    let home = std::path::Path::new(folder);
    let credentials = Credentials::load(&home.join("ca.pem"), &home.join("cert.pem"), &home.join("key.pem")).unwrap();
    let address = |part: &str| {
        let (node, address) = part.split_once('=').unwrap();
        (node.parse().unwrap(), address.to_owned())
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let coordinators = coordinators.split(',').map(address).collect();
        let software = "test".to_owned();
        let config = ClientConfig {
            coordinators,
            credentials,
            software,
            patience: Patience::Forever,
            known: None,
            network: Network::default(),
        };
        let client = archipelago_client::Client::connect(config).await.unwrap();
        let task = TaskId(1);
        let Reply::Assigned { epoch, .. } = client.request(Request::Claim { task }).await.unwrap() else { panic!() };
        loop {
            let progress = Progress { epochs_done: 1, epochs_planned: 9, loss: None };
            client.request(Request::Renew { task, epoch, progress }).await.unwrap();
            tokio::time::sleep(Duration::from_millis(limits::SHORTEST_LEASE_MS / 3)).await;
        }
    });
}

fn start_site(consortium: &Consortium) -> Child {
    let home = format!("{}|{}", consortium.path("north").display(), consortium.peers());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "dead_worker::site_process", "--nocapture"]).env(HOME, home);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_dead_workers_task_is_offered_again() {
    let consortium = Consortium::new(3);
    consortium.write_reference("reference");
    consortium.ask(&["reference", "publish", "lung", "reference"]);
    for site in ["north", "south"] {
        consortium.ask(&["site", "add", site]);
        consortium.issue(&format!("site/{site}"), site);
    }
    consortium.ask(&["task", "publish", "lung", "--epochs", "1", "--lease", "1"]);
    let assignment = || consortium.ask(&["task", "show", "1"])["assignments"]["north"].clone();
    let mut worker = start_site(&consortium);
    wait_until("the site is at work and has renewed", 20, || !assignment()["progress"].is_null());
    worker.kill().unwrap();
    worker.wait().unwrap();
    wait_until("its lease has lapsed", 20, || assignment()["state"] == "lapsed");

    // An absent site holds up nobody, and comes back under the next epoch.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let claim = |site: &str| {
        let client = runtime.block_on(consortium.client(site)).unwrap();
        match runtime.block_on(client.request(Request::Claim { task: TaskId(1) })).unwrap() {
            Reply::Assigned { epoch, .. } => epoch,
            reply => panic!("{reply:?}"),
        }
    };
    assert_eq!(claim("south"), 1);
    assert_eq!(claim("north"), 2);
}

/// What the scenario shows with a lease of a second, the defaults promise in this time.
#[test]
fn the_defaults_detect_a_dead_worker_in_15_seconds_and_offer_its_task_again_in_30() {
    assert!(Timing::default().idle_timeout <= Duration::from_secs(15));
    // A lease lapses, and the leader looks four times a second. An election may come between.
    let (look, election) = (Duration::from_millis(250), Duration::from_secs(3));
    assert!(Duration::from_millis(limits::LEASE_MS) + look + election <= Duration::from_secs(30));
    // Of the renewals, two may be lost before a lease is.
    assert!(3 * limits::RENEWAL_INTERVAL_MS.min(limits::LEASE_MS / 3) <= limits::LEASE_MS);
}
