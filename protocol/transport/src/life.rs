//! How a connection ends, for the transports whose streams are pipes or bytes on a socket: the first end counts, both sides
//! learn of it, and every stream ends with it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};

use crate::{
    BoxFuture, End,
    error::Error,
    stream::{Outgoing, Stream},
};

/// Which end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Dialler,
    Listener,
}

/// Why a connection is over.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// One side ended it.
    By(Side, End),
    /// It broke: [`Error::Lost`], or what else there is to say.
    Lost(Error),
}

/// Where the end of a connection is written, once.
pub(crate) type Ending = watch::Sender<Option<Ended>>;

/// The first end counts.
pub(crate) fn end(connection: &Ending, how: Ended) {
    connection.send_if_modified(|ended| {
        let is_first = ended.is_none();
        ended.get_or_insert(how);
        is_first
    });
}

/// Waits for the end, whoever made it.
pub(crate) async fn ended(connection: &Ending) -> Option<Ended> {
    connection.subscribe().wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone())
}

/// One side's hold on a connection, shared with its streams: the last to be dropped ends the connection.
pub(crate) struct Life {
    pub(crate) side: Side,
    pub(crate) ended: Ending,
    // While it is here, somebody is interested in the end.
    seen: watch::Receiver<Option<Ended>>,
}

impl Life {
    pub(crate) fn new(side: Side, ended: &Ending) -> Self {
        Self { side, ended: ended.clone(), seen: ended.subscribe() }
    }

    /// A stream over a pipe, which ends with the connection.
    pub(crate) fn stream(self: &Arc<Self>, pipe: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Stream {
        let (reader, writer) = tokio::io::split(pipe);
        Stream::new(
            Box::new(Cuttable { inner: writer, over: self.over(), _life: self.clone() }),
            Box::new(Cuttable { inner: reader, over: self.over(), _life: self.clone() }),
        )
    }

    /// Waits for the end, and says how it looks from this side.
    pub(crate) fn over(&self) -> BoxFuture<'static, Error> {
        let (mut seen, side) = (self.seen.clone(), self.side);
        Box::pin(async move {
            match seen.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
                Ok(Some(Ended::By(by, _))) if by == side => Error::Closed { reason: "by this side".to_owned() },
                Ok(Some(Ended::By(_, End::Closed { reason }))) => Error::Closed { reason },
                Ok(Some(Ended::By(_, End::Refused { reason }))) => Error::Refused { reason },
                Ok(Some(Ended::Lost(error))) => error,
                Ok(None) | Err(_) => dropped(),
            }
        })
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        end(&self.ended, Ended::By(self.side, End::Closed { reason: DROPPED.to_owned() }));
    }
}

/// What is left to say of a connection that nobody holds any more.
pub(crate) fn dropped() -> Error {
    Error::Closed { reason: DROPPED.to_owned() }
}

/// A pipe that ends with its connection.
struct Cuttable<T> {
    inner: T,
    over: BoxFuture<'static, Error>,
    _life: Arc<Life>,
}

impl<T> Cuttable<T> {
    fn check(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        match self.over.as_mut().poll(cx) {
            Poll::Ready(error) => {
                self.over = Box::pin(std::future::ready(error.clone()));
                Err(error.into())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Cuttable<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Cuttable<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, bytes).map_err(|_| Error::StreamReset.into())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(|_| Error::StreamReset.into())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx).map_err(|_| Error::StreamReset.into())
    }
}

impl<T: AsyncWrite + Send + Unpin> Outgoing for Cuttable<T> {}

const DROPPED: &str = "dropped by the peer";
