//! How long a connection may stay as it is before its peer must have gone on. A handshake has a deadline of its own
//! (`archipelago_transport::Timing`), and so has the first frame of a stream.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};

/// Deadlines by what a connection waits for.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Until a coordinator has said who it is.
    pub greeting: Duration,
    /// Until anything is asked for.
    pub first_stream: Duration,
    /// Since the last stream ended: whoever has no more to ask comes again when it has.
    pub idle: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { greeting: s(5), first_stream: s(10), idle: s(120) }
    }
}

/// What a connection waits for, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waiting {
    /// A coordinator's greeting.
    Greeting(Instant),
    /// The first stream.
    FirstStream(Instant),
    /// Streams are open, and have deadlines of their own.
    Nothing,
    /// The next stream.
    NextStream(Instant),
}

impl Deadlines {
    /// When a connection that waits for this is over; never, where nothing is waited for.
    pub(super) fn of(&self, waiting: Waiting) -> Option<Instant> {
        match waiting {
            Waiting::Greeting(since) => Some(since + self.greeting),
            Waiting::FirstStream(since) => Some(since + self.first_stream),
            Waiting::Nothing => None,
            Waiting::NextStream(since) => Some(since + self.idle),
        }
    }
}

impl Waiting {
    /// What is waited for while these streams are served.
    pub(super) fn after(streams: &JoinSet<()>) -> Self {
        if streams.is_empty() { Self::NextStream(Instant::now()) } else { Self::Nothing }
    }

    /// Why the connection is over, to its peer.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Greeting(_) => "this coordinator has not said who it is in time",
            Self::FirstStream(_) => "nothing was asked for in time",
            Self::Nothing | Self::NextStream(_) => "nothing was asked for any more",
        }
    }
}

/// Waits until then, or for ever.
pub(super) async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use archipelago_common::BlobRef;
    use archipelago_protocol::message::{GetReply, Hello, StreamOpen};
    use archipelago_transport::{Connection, Error};

    use super::*;
    use crate::{
        frames,
        links::begin,
        raft::node::Options,
        server::test_cluster::{LiveNode, TestCluster, wait_until},
    };

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(600);

    async fn single(deadlines: Deadlines) -> (TestCluster, LiveNode) {
        let mut cluster = TestCluster::new(1, Options::default());
        cluster.deadlines = deadlines;
        let node = cluster.start(1).await;
        wait_until("the node leads", || node.executor.raft().view().is_leader()).await;
        (cluster, node)
    }

    async fn dial(cluster: &TestCluster, who: &str) -> Connection {
        let (node, address) = cluster.addresses().pop_first().unwrap();
        cluster.transport(who).dial(&address, node).await.unwrap()
    }

    async fn end_of(connection: &Connection) -> String {
        let ended = tokio::time::timeout(Duration::from_secs(20), connection.closed()).await;
        match ended.expect("the connection ends") {
            Error::Closed { reason } => reason,
            other => panic!("{other}"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_state_has_a_deadline_of_its_own() {
        let first = Deadlines { greeting: LONG, first_stream: SHORT, idle: LONG };
        let (cluster, _node) = single(first).await;
        assert_eq!(end_of(&dial(&cluster, "operator/anna").await).await, "nothing was asked for in time");

        let idle = Deadlines { greeting: LONG, first_stream: LONG, idle: SHORT };
        let (cluster, _node) = single(idle).await;
        let connection = dial(&cluster, "operator/anna").await;
        let get = StreamOpen::Get { blob: BlobRef::of(b"x"), from_chunk: 0 };
        let mut stream = begin(&connection, &get).await.unwrap();
        frames::receive::<GetReply>(&mut stream).await.unwrap();
        drop(stream);
        assert_eq!(end_of(&connection).await, "nothing was asked for any more");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_coordinator_says_who_it_is_or_goes() {
        let (cluster, node) = single(Deadlines { greeting: SHORT, first_stream: LONG, idle: LONG }).await;
        let (own, addresses) = (node.executor.raft().view().node, cluster.addresses());
        let adopt = archipelago_cluster::Body::AdoptMembers { addresses };
        node.executor.execute_own(own, adopt).await.unwrap();
        let reason = end_of(&dial(&cluster, "coordinator/9").await).await;
        assert_eq!(reason, "this coordinator has not said who it is in time");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_has_a_session_may_be_silent() {
        let (cluster, _node) = single(Deadlines { greeting: SHORT, first_stream: SHORT, idle: SHORT }).await;
        let connection = dial(&cluster, "operator/anna").await;
        let hello = Hello { protocol: 3, software: "test".to_owned() };
        let _session = begin(&connection, &StreamOpen::Control(hello)).await.unwrap();
        // Several times as long as anybody else may be.
        let ended = tokio::time::timeout(5 * SHORT, connection.closed()).await;
        assert!(ended.is_err(), "{ended:?}");
    }
}
