//! A transport that misbehaves on purpose and by seed: it delays, stops streams short and cuts connections.
//!
//! It wraps another transport and spoils what this side sends and dials; the same seed spoils the same bytes. For
//! tests and simulations of everything above: whoever survives this survives a hospital's network.

use std::{
    ops::Range,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use archipelago_common::{Identity, NodeId, enrolment::CertifiedKey};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use tokio::{
    io::AsyncWrite,
    sync::watch,
    time::{Sleep, sleep},
};

use crate::{
    BoxFuture, Connection, End, Link, Listener, Transport, Way,
    error::{Error, Result},
    stream::{Outgoing, Stream, Writer},
};

/// What goes wrong, and how often. The default is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Every write waits up to this long.
    pub max_delay: Duration,
    /// A connection is cut, in the middle of whatever it is, when this side has sent some number of bytes from this
    /// range. Empty is never.
    pub cut_after_bytes: Range<u64>,
    /// A stream that this side opens or accepts ends after some number of sent bytes from this range, as if finished.
    /// Empty is never.
    pub truncate_after_bytes: Range<u64>,
}

/// A transport around another; see the module.
pub struct FaultyTransport<T> {
    inner: T,
    chaos: Arc<Chaos>,
}

struct Chaos {
    faults: Faults,
    rng: Mutex<ChaCha8Rng>,
    /// Counts up with every [`FaultyTransport::cut_all`].
    cuts: watch::Sender<u64>,
}

impl<T: Transport> FaultyTransport<T> {
    /// `inner` with faults drawn from `seed`.
    pub fn new(inner: T, faults: Faults, seed: u64) -> Self {
        let chaos = Chaos { faults, rng: Mutex::new(ChaCha8Rng::seed_from_u64(seed)), cuts: watch::channel(0).0 };
        Self { inner, chaos: Arc::new(chaos) }
    }

    /// Cuts every connection that this side has.
    pub fn cut_all(&self) {
        self.chaos.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl<T: Transport> Transport for FaultyTransport<T> {
    fn identity(&self) -> &Identity {
        self.inner.identity()
    }

    fn dial<'a>(&'a self, address: &'a str, node: NodeId) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(async move {
            self.chaos.pause().await;
            self.inner.dial(address, node).await.map(|connection| self.chaos.wrap(connection))
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listener>> {
        Box::pin(async move {
            let mut inner = self.inner.listen(address).await?;
            let address = inner.address().to_owned();
            let (sender, accepted) = tokio::sync::mpsc::channel(1);
            let (closing, closed) = tokio::sync::oneshot::channel::<String>();
            let chaos = self.chaos.clone();
            let task = tokio::spawn(async move {
                let mut closed = closed;
                loop {
                    tokio::select! {
                        reason = &mut closed => {
                            // An error means that the listener was dropped, which ends nothing but itself.
                            return if let Ok(reason) = reason { inner.close(&reason).await };
                        }
                        connection = inner.accept() => {
                            let Some(connection) = connection else { return };
                            if sender.send(chaos.wrap(connection)).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
            let shutdown = move |reason: String| -> BoxFuture<'static, ()> {
                Box::pin(async move {
                    // The task has ended if nobody takes the reason; then there is nothing to close.
                    let _ = closing.send(reason);
                    let _ = task.await;
                })
            };
            Ok(Listener::new(address, accepted, Box::new(shutdown)))
        })
    }
}

impl Chaos {
    fn wrap(self: &Arc<Self>, inner: Connection) -> Connection {
        let cut_after_bytes = self.faults.cut_after_bytes.clone();
        let budget = Arc::new(AtomicU64::new(self.draw(cut_after_bytes)));
        let mut cuts = self.cuts.subscribe();
        let watched = inner.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = watched.closed() => {}
                Ok(()) = cuts.changed() => watched.close(CUT),
            }
        });
        Connection::new(FaultyLink { inner, budget, chaos: self.clone() })
    }

    /// A number from the range, or one that is never reached.
    fn draw(&self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return u64::MAX;
        }
        range.start + lock(&self.rng).next_u64() % (range.end - range.start)
    }

    fn delay(&self) -> Option<Pin<Box<Sleep>>> {
        let max_us = u64::try_from(self.faults.max_delay.as_micros()).unwrap_or(u64::MAX);
        (max_us > 0).then(|| Box::pin(sleep(Duration::from_micros(self.draw(0..max_us)))))
    }

    async fn pause(&self) {
        if let Some(delay) = self.delay() {
            delay.await;
        }
    }
}

struct FaultyLink {
    inner: Connection,
    budget: Arc<AtomicU64>,
    chaos: Arc<Chaos>,
}

impl FaultyLink {
    fn wrap(&self, stream: Stream) -> Stream {
        let (writer, reader) = stream.into_raw();
        let truncate_after_bytes = self.chaos.faults.truncate_after_bytes.clone();
        let writer = FaultyWriter {
            inner: writer,
            connection: self.inner.clone(),
            budget: self.budget.clone(),
            left: self.chaos.draw(truncate_after_bytes),
            delay: None,
            chaos: self.chaos.clone(),
        };
        Stream::new(Box::new(writer), reader)
    }
}

impl Link for FaultyLink {
    fn way(&self) -> Way {
        self.inner.way()
    }

    fn peer(&self) -> &Identity {
        self.inner.peer()
    }

    fn certified(&self) -> Option<CertifiedKey> {
        self.inner.certified()
    }

    fn remote(&self) -> String {
        self.inner.remote()
    }

    fn round_trip(&self) -> Duration {
        self.inner.round_trip()
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(async { self.inner.open_stream().await.map(|stream| self.wrap(stream)) })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream>> {
        Box::pin(async { self.inner.accept_stream().await.map(|stream| self.wrap(stream)) })
    }

    fn close(&self, end: End) {
        match end {
            End::Closed { reason } => self.inner.close(&reason),
            End::Refused { reason } => self.inner.refuse(&reason),
        }
    }

    fn closed(&self) -> BoxFuture<'_, Error> {
        Box::pin(self.inner.closed())
    }
}

struct FaultyWriter {
    inner: Writer,
    connection: Connection,
    /// Bytes that the connection may still send.
    budget: Arc<AtomicU64>,
    /// Bytes that this stream may still send.
    left: u64,
    delay: Option<Pin<Box<Sleep>>>,
    chaos: Arc<Chaos>,
}

impl AsyncWrite for FaultyWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.delay.is_none() {
            self.delay = self.chaos.delay();
        }
        if let Some(delay) = &mut self.delay {
            ready!(delay.as_mut().poll(cx));
        }
        if self.left == 0 {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            return Poll::Ready(Err(Error::StreamReset.into()));
        }
        let budget = self.budget.load(Ordering::Relaxed);
        if budget == 0 {
            self.connection.close(CUT);
            return Poll::Ready(Err(Error::Lost { detail: CUT.to_owned() }.into()));
        }
        let n_allowed = (bytes.len() as u64).min(self.left).min(budget) as usize;
        let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &bytes[..n_allowed]))?;
        self.delay = None;
        self.left -= n as u64;
        let spend = |budget: u64| Some(budget.saturating_sub(n as u64));
        // The closure always returns a value, so the update cannot fail.
        let _ = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Outgoing for FaultyWriter {}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

const CUT: &str = "cut by the faulty transport";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryNetwork;

    /// Sends frames of 10 bytes through a transport with these faults; returns how many arrive and how it ends.
    async fn check(faults: Faults, seed: u64) -> (u32, Error) {
        let network = MemoryNetwork::default();
        let transport = |text: &str| network.transport(text.parse().unwrap());
        let mut listener = transport("archipelago://lung/coordinator/1").listen("a:1").await.unwrap();
        let site = FaultyTransport::new(transport("archipelago://lung/site/a"), faults, seed);
        let sender = site.dial("a:1", NodeId::new(1).unwrap()).await.unwrap();
        let receiver = listener.accept().await.unwrap();
        let mut stream = sender.open_stream().await.unwrap();
        let sending = async move { while stream.send_frame(&[7; 10]).await.is_ok() {} };
        let receiving = async move {
            let mut stream = receiver.accept_stream().await.unwrap();
            let mut n_arrived = 0;
            loop {
                match stream.recv_frame(10).await {
                    Ok(Some(frame)) => assert_eq!(frame, [7; 10]),
                    Ok(None) => panic!("the stream ended in good order"),
                    Err(error) => return (n_arrived, error),
                }
                n_arrived += 1;
            }
        };
        tokio::join!(sending, receiving).1
    }

    #[tokio::test]
    async fn a_truncated_stream_ends_inside_a_frame() {
        // 14 bytes a frame, so 33 bytes end inside the third.
        let (n_arrived, error) = check(Faults { truncate_after_bytes: 33..34, ..Faults::default() }, 1).await;
        assert!(matches!((n_arrived, &error), (2, Error::Truncated { .. })), "{n_arrived} {error}");
    }

    #[tokio::test]
    async fn a_cut_ends_the_connection_and_a_seed_cuts_at_the_same_byte() {
        let faults = Faults { cut_after_bytes: 20_000..40_000, ..Faults::default() };
        let (_, error) = check(faults.clone(), 1).await;
        assert!(matches!(error, Error::Closed { .. }), "{error}");
        let draw = |seed| {
            let transport = FaultyTransport::new(
                MemoryNetwork::default().transport("archipelago://lung/site/a".parse().unwrap()),
                faults.clone(),
                seed,
            );
            transport.chaos.draw(faults.cut_after_bytes.clone())
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
