//! One stream of a connection over TCP.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, WriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use super::control::Say;
use crate::{error::Error, stream::Outgoing};

/// The streams of one side. What yamux does not say when a stream is dropped, it says to the peer; and hears the same.
pub(super) struct Pipes {
    /// For each stream that is held here: what is told if the peer holds it no more.
    held: Mutex<BTreeMap<u32, oneshot::Sender<()>>>,
    /// For each stream that this side may open.
    places: Arc<Semaphore>,
    says: mpsc::UnboundedSender<Say>,
}

impl Pipes {
    /// Streams of a side that may open `limit` at once.
    pub(super) fn new(limit: usize, says: mpsc::UnboundedSender<Say>) -> Self {
        Self { held: Mutex::default(), places: Arc::new(Semaphore::new(limit)), says }
    }

    /// A place for one stream more, as soon as the peer has done with another; `None` never comes.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().acquire_owned().await.ok()
    }

    /// A stream of yamux, opened here if it has a place.
    pub(super) fn hold(self: &Arc<Self>, stream: yamux::Stream, place: Option<OwnedSemaphorePermit>) -> Pipe {
        let id = stream.id().val();
        let (sender, gone) = oneshot::channel();
        self.lock().insert(id, sender);
        let is_known = place.is_none();
        Pipe { stream: stream.compat(), id, gone: Some(gone), place, is_known, pipes: self.clone() }
    }

    /// The peer holds a stream no more. `is_ours`: whether this side opened it, and may open another.
    pub(super) fn peer_dropped(&self, id: u32, is_ours: bool) {
        if let Some(held) = self.lock().remove(&id) {
            // Nobody listens if it is being dropped here as well.
            let _ = held.send(());
        }
        if is_ours {
            self.places.add_permits(1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, oneshot::Sender<()>>> {
        self.held.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// One stream, until it is dropped.
pub(super) struct Pipe {
    stream: Compat<yamux::Stream>,
    id: u32,
    /// Whether the peer still reads; `None` once it is known not to.
    gone: Option<oneshot::Receiver<()>>,
    /// Given back by the peer when it has done with the stream, or here if it never heard of it.
    place: Option<OwnedSemaphorePermit>,
    /// Whether the peer has heard of it, or will.
    is_known: bool,
    pipes: Arc<Pipes>,
}

impl Pipe {
    fn is_read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.gone.as_mut().is_some_and(|gone| Pin::new(gone).poll(cx).is_ready()) {
            self.gone = None;
        }
        self.gone.is_some()
    }

    fn note_known(&mut self) {
        self.is_known = true;
        if let Some(place) = self.place.take() {
            place.forget();
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if !self.is_read(cx) {
            return Poll::Ready(Err(Error::StreamReset.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.note_known();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.note_known();
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Outgoing for WriteHalf<Pipe> {}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pipes.lock().remove(&self.id);
        if self.is_known {
            // Nobody is told where the connection is over.
            let _ = self.pipes.says.send(Say::Gone(self.id));
        }
    }
}
