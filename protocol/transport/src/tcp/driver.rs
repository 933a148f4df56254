//! Drives yamux.

use std::task::{Context, Poll};

use archipelago_common::text::printable;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::Compat;

use super::{
    conversation::PLACES,
    socket::{Bytes, Pulse, Socket},
};
use crate::{REASON_CHARS, error::Error, life::Side};

/// Somebody who wants a stream.
pub(super) type Open = oneshot::Sender<yamux::Stream>;

/// yamux, with those who want streams of it and those who take the peer's.
pub(super) struct Driver<S> {
    yamux: yamux::Connection<Compat<Socket<S>>>,
    to_open: mpsc::Receiver<Open>,
    wanted: Option<Open>,
    arrived: mpsc::Sender<yamux::Stream>,
}

impl<S: Bytes> Driver<S> {
    pub(super) fn new(
        socket: Compat<Socket<S>>,
        side: Side,
        to_open: mpsc::Receiver<Open>,
        arrived: mpsc::Sender<yamux::Stream>,
    ) -> Self {
        let mode = match side {
            Side::Dialler => yamux::Mode::Client,
            Side::Listener => yamux::Mode::Server,
        };
        Self { yamux: yamux::Connection::new(socket, config(), mode), to_open, wanted: None, arrived }
    }

    /// Drives until this future is dropped. What ends yamux is told to `pulse`, as if the socket had ended.
    pub(super) async fn run(mut self, pulse: &Pulse) {
        let detail = std::future::poll_fn(|cx| self.poll(cx)).await;
        pulse.note_gone(Error::Lost { detail: printable(&detail, REASON_CHARS) });
        std::future::pending().await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            if self.wanted.is_none()
                && let Poll::Ready(wanted) = self.to_open.poll_recv(cx)
            {
                self.wanted = wanted;
            }
            if let Some(wanted) = self.wanted.take() {
                match self.yamux.poll_new_outbound(cx) {
                    Poll::Ready(Ok(stream)) => {
                        // Whoever wanted it may have gone, and it goes as well.
                        let _ = wanted.send(stream);
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                    Poll::Pending => self.wanted = Some(wanted),
                }
            }
            match self.yamux.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    if self.arrived.try_send(stream).is_err() {
                        return Poll::Ready("the peer opened more streams than it may".to_owned());
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(error.to_string()),
                Poll::Ready(None) => return Poll::Ready("the peer ended without a word".to_owned()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS);
    config.set_max_connection_receive_window(Some(CONNECTION_WINDOW));
    config
}

/// Both sides' streams, control, and those that one side has dropped and the other not yet.
const STREAMS: usize = 2 * PLACES + PLACES / 2;
/// Bytes in flight on one connection: 256 KiB for each stream, and the rest for those that are quick.
const CONNECTION_WINDOW: usize = 64 << 20;
