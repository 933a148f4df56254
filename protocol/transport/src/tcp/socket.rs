//! The bytes of one TCP connection, as the multiplexer sees them: their end is told to us and hidden from it.
//!
//! yamux ends all streams as if they were finished when its socket ends. So it never learns of it: whoever reads a stream must
//! be able to tell an end from a loss, and a peer's last words, which came before, must be read first.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use archipelago_common::text::printable;
use tokio::{
    io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf},
    sync::watch,
    time::Instant,
};

use crate::{REASON_CHARS, error::Error, tls};

/// What carries the bytes.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Bytes for T {}

/// When the peer was last heard, and how its socket ended.
#[derive(Clone)]
pub(super) struct Pulse {
    begun: Instant,
    heard_ms: Arc<AtomicU64>,
    gone: watch::Sender<Option<Error>>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), heard_ms: Arc::default(), gone: watch::Sender::new(None) }
    }

    /// Waits until the socket has ended, and says how.
    pub(super) async fn gone(&self) -> Error {
        let mut gone = self.gone.subscribe();
        match gone.wait_for(Option::is_some).await.map(|gone| gone.clone()) {
            Ok(Some(error)) => error,
            // The sender is here.
            Ok(None) | Err(_) => ended(),
        }
    }

    /// Waits until the peer has said nothing for `limit`.
    pub(super) async fn silent(&self, limit: Duration) {
        loop {
            let until = self.begun + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)) + limit;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    pub(super) fn note_gone(&self, error: Error) {
        self.gone.send_if_modified(|gone| {
            let is_first = gone.is_none();
            gone.get_or_insert(error);
            is_first
        });
    }

    fn note_heard(&self) {
        // A connection does not live for half a billion years.
        let heard = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(heard, Ordering::Relaxed);
    }
}

/// A socket that is silent where it has ended.
pub(super) struct Socket<S> {
    /// A frame's header and its body leave as one record.
    inner: BufWriter<S>,
    pulse: Pulse,
}

impl<S: Bytes> Socket<S> {
    pub(super) fn new(inner: S, pulse: Pulse) -> Self {
        Self { inner: BufWriter::with_capacity(BUFFER_BYTES, inner), pulse }
    }

    /// Keeps an error to ourselves. Nobody is woken: there is nothing more to come.
    fn hide<T>(&self, error: &std::io::Error) -> Poll<std::io::Result<T>> {
        self.pulse.note_gone(from_socket(error));
        Poll::Pending
    }
}

impl<S: Bytes> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let n_before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() == n_before && buf.remaining() > 0 => {
                self.pulse.note_gone(ended());
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                self.pulse.note_heard();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => self.hide(&error),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: Bytes> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write(cx, bytes) {
            Poll::Ready(Err(error)) => self.hide(&error),
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match Pin::new(&mut self.inner).poll_flush(cx) {
            Poll::Ready(Err(error)) => self.hide(&error),
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// What an error of a TLS socket means; an alert is the peer's word on our certificate.
pub(super) fn from_socket(error: &std::io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => Error::Refused { reason: tls::alert(u8::from(*alert)).to_owned() },
        Some(other) => Error::BadPeer { detail: printable(&other.to_string(), REASON_CHARS) },
        None => Error::Lost { detail: printable(&error.to_string(), REASON_CHARS) },
    }
}

fn ended() -> Error {
    Error::Lost { detail: "the peer ended without a word".to_owned() }
}

/// Two frames of yamux.
const BUFFER_BYTES: usize = 36 << 10;
