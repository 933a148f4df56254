//! `/metrics`, `/healthz` and `/readyz` over plain HTTP. Bind it to a management network.
//!
//! One request a connection, read within a time and a size, so many connections at once: whoever opens more, or sends half
//! a request and waits, takes nothing that the node needs.

use std::{sync::Arc, time::Duration};

use archipelago_common::health::NodeState;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::Executor;
use crate::{
    clock,
    error::{Error, Result},
    ops::{
        consortium::{self, Around, Names},
        metrics,
    },
};

/// Opens the port.
///
/// # Errors  [`Error::Ops`]
pub async fn listen(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|source| Error::Ops { address: address.to_owned(), source })
}

/// Answers until the node ends.
pub async fn run(listener: TcpListener, executor: Executor, names: Names) {
    metrics::register_all();
    metrics::STARTED.set((clock::now_ms() / 1_000) as i64);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Descriptors may be short for a moment; that must not end the node.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // One too many is closed at once.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let executor = executor.clone();
        tokio::spawn(async move {
            // Who is too slow is left.
            let _ = timeout(PATIENCE, serve(stream, &executor, names)).await;
            drop(place);
        });
    }
}

async fn serve(mut stream: TcpStream, executor: &Executor, names: Names) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES || (&mut stream).take(HEAD_PIECE).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = answer(target(&head), executor, names).await;
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

/// What a GET asks for; none for anything else.
fn target(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    (method == "GET").then(|| target.split('?').next().unwrap_or_default())
}

async fn answer(target: Option<&str>, executor: &Executor, names: Names) -> (&'static str, Vec<u8>) {
    match target {
        None => ("405 Method Not Allowed", b"only GET\n".to_vec()),
        Some("/metrics") => {
            let around = around(executor, names);
            // A node too busy to be looked at still shows what it last noted.
            let _ = executor.raft().peek(move |cluster| consortium::note(cluster, &around)).await;
            (OK, metrics::render())
        }
        Some("/healthz") => (OK, health(executor).into_bytes()),
        Some("/readyz") => match readiness(executor) {
            Ok(text) => (OK, text.into_bytes()),
            Err(text) => ("503 Service Unavailable", text.into_bytes()),
        },
        Some(_) => ("404 Not Found", b"there are /metrics, /healthz and /readyz\n".to_vec()),
    }
}

fn around(executor: &Executor, names: Names) -> Around {
    Around {
        now_ms: executor.now_ms().unwrap_or_else(clock::now_ms),
        heard: executor.contacts().all(),
        leads_since_ms: executor.contacts().leads_since_ms(executor.raft().view().is_leader()),
        names,
    }
}

/// The process answers: that is health. What else is wrong it says, but to start it anew would not help.
fn health(executor: &Executor) -> String {
    match executor.condition().state() {
        NodeState::Serving => "ok\n".to_owned(),
        state => format!("ok, but {state}: {}\n", state.advice().unwrap_or_default()),
    }
}

/// Ready is who takes new work, knows a leader and has applied what it knows to be committed.
fn readiness(executor: &Executor) -> Result<String, String> {
    let (view, state) = (executor.raft().view(), executor.condition().state());
    if state != NodeState::Serving {
        return Err(format!("{state}: {}\n", state.advice().unwrap_or_default()));
    }
    match view.leader {
        None => Err("no leader is known\n".to_owned()),
        Some(_) if view.applied < view.committed => Err(format!("{} entries behind\n", view.committed - view.applied)),
        Some(leader) => Ok(format!("ready; node {leader} leads\n")),
    }
}

const OK: &str = "200 OK";
/// Connections at once: a scraper, a balancer and some people.
const CONNECTIONS: usize = 64;
/// Bytes of a request's head.
const HEAD_BYTES: usize = 8 << 10;
const HEAD_PIECE: u64 = 1 << 10;
/// From the first byte of a request to the last of its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::test_cluster::TestCluster;

    async fn ask(address: &str, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // One that was closed at once takes nothing.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn half_a_request_holds_nothing_for_long_and_never_more_than_its_place() {
        let (_cluster, node) = TestCluster::single().await;
        let listener = listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(run(listener, node.executor.clone(), Names::Withheld));
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
        assert!(ask(&address, &get("/readyz")).await.starts_with("HTTP/1.1 200 OK"));
        assert!(ask(&address, &get("/metrics")).await.contains("archipelago_raft_is_leader"));
        assert!(ask(&address, &get("/healthz?verbose")).await.ends_with("ok\n"));
        assert!(ask(&address, &get("/elsewhere")).await.contains("404"));
        assert!(ask(&address, "POST /metrics HTTP/1.1\r\n\r\n").await.contains("405"));
        assert_eq!(ask(&address, &"x".repeat(HEAD_BYTES + 10)).await, "", "a head without an end");

        let mut halves = Vec::new();
        for _ in 0..4 * CONNECTIONS {
            let mut half = TcpStream::connect(&address).await.unwrap();
            let _ = half.write_all(b"GET /readyz HT").await;
            halves.push(half);
        }
        assert_eq!(ask(&address, &get("/readyz")).await, "", "all places are taken");
        let freed = tokio::time::Instant::now() + PATIENCE + Duration::from_secs(5);
        while ask(&address, &get("/readyz")).await.is_empty() {
            assert!(tokio::time::Instant::now() < freed, "the places were not given back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
