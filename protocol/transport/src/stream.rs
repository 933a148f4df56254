//! Bidirectional streams of length-delimited frames, the same over every transport.
//!
//! A frame is its length as four big-endian bytes and that many bytes. A length over the receiver's limit is refused
//! before anything is allocated for it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::error::{Error, Result, from_io};

/// The bytes that leave.
pub(crate) type Writer = Box<dyn Outgoing>;

/// What bytes are written to.
pub(crate) trait Outgoing: AsyncWrite + Send + Unpin {
    /// Takes all of the bytes. They are shared, so that a transport need not copy them to keep them.
    fn poll_take(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<std::io::Result<()>> {
        while !bytes.is_empty() {
            match ready!(self.as_mut().poll_write(cx, bytes))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                n => bytes.advance(n),
            }
        }
        Poll::Ready(Ok(()))
    }
}
/// The bytes that arrive.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// One stream of a connection. Dropping it gives up both directions.
pub struct Stream {
    /// The half that sends.
    pub send: SendHalf,
    /// The half that receives.
    pub recv: RecvHalf,
}

impl Stream {
    pub(crate) fn new(writer: Writer, reader: Reader) -> Self {
        Self {
            send: SendHalf { writer },
            recv: RecvHalf {
                reader,
                header: [0; HEADER],
                header_len: 0,
                body: Vec::new(),
                begun: None,
                frame_time: FRAME_TIME,
                room: None,
                held: None,
            },
        }
    }

    /// Sends one frame; see [`SendHalf::send_frame`].
    ///
    /// # Errors  the connection's or stream's end
    pub async fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.send.send_frame(frame).await
    }

    /// Sends one frame that is in several pieces; see [`SendHalf::send_pieces`].
    ///
    /// # Errors  the connection's or stream's end
    pub async fn send_pieces(&mut self, pieces: &[Bytes]) -> Result<()> {
        self.send.send_pieces(pieces).await
    }

    /// Receives one frame; see [`RecvHalf::recv_frame`].
    ///
    /// # Errors  [`Error::FrameTooLarge`], [`Error::Truncated`], the connection's or stream's end
    pub async fn recv_frame(&mut self, limit: usize) -> Result<Option<Vec<u8>>> {
        self.recv.recv_frame(limit).await
    }

    /// Says that no more frames follow from this side.
    ///
    /// # Errors  the connection's or stream's end
    pub async fn finish(&mut self) -> Result<()> {
        self.send.finish().await
    }

    /// Both halves, for two tasks.
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }

    pub(crate) fn into_raw(self) -> (Writer, Reader) {
        (self.send.writer, self.recv.reader)
    }
}

/// The sending half of a stream.
pub struct SendHalf {
    writer: Writer,
}

impl SendHalf {
    /// Sends one frame and waits until the transport has taken it. Not safe to cancel: a dropped future may leave
    /// half a frame behind, after which the stream is of no use.
    ///
    /// # Errors  [`Error::FrameTooLarge`] for more than `u32::MAX` bytes, the connection's or stream's end
    pub async fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.begin(frame.len()).await?;
        self.writer.write_all(frame).await.map_err(from_io)?;
        self.writer.flush().await.map_err(from_io)
    }

    /// The same of a frame that is in several pieces. Transports that keep what they send until it has arrived keep these, and
    /// no copies.
    ///
    /// # Errors  as [`Self::send_frame`]
    pub async fn send_pieces(&mut self, pieces: &[Bytes]) -> Result<()> {
        self.begin(pieces.iter().map(Bytes::len).sum()).await?;
        for piece in pieces {
            let mut piece = piece.clone();
            std::future::poll_fn(|cx| Pin::new(&mut *self.writer).poll_take(cx, &mut piece)).await.map_err(from_io)?;
        }
        self.writer.flush().await.map_err(from_io)
    }

    async fn begin(&mut self, size: usize) -> Result<()> {
        let header = u32::try_from(size)
            .map_err(|_| Error::FrameTooLarge { found: size as u64, limit: u32::MAX.into() })?
            .to_be_bytes();
        self.writer.write_all(&header).await.map_err(from_io)
    }

    /// Says that no more frames follow.
    ///
    /// # Errors  the connection's or stream's end
    pub async fn finish(&mut self) -> Result<()> {
        self.writer.shutdown().await.map_err(from_io)
    }
}

/// The receiving half of a stream.
pub struct RecvHalf {
    reader: Reader,
    // What has arrived of the frame under way, kept here so that a cancelled `recv_frame` loses nothing.
    header: [u8; HEADER],
    header_len: usize,
    body: Vec<u8>,
    /// When the frame under way began, and how long it may take.
    begun: Option<Instant>,
    frame_time: Duration,
    /// What all streams of the peer may hold, in KiB, if that is bounded.
    room: Option<Arc<Semaphore>>,
    /// This stream's share of it: for the frame under way, or the last one.
    held: Option<OwnedSemaphorePermit>,
}

impl RecvHalf {
    /// From now on large frames wait until there is room for them, in KiB, among all that share it. The last frame's share is
    /// given back when the next one is asked for, or with [`Self::take_held`].
    pub fn share_room(&mut self, room: Arc<Semaphore>) {
        self.room = Some(room);
    }

    /// The share that the last frame has; it is given back when this is dropped.
    pub fn take_held(&mut self) -> Option<OwnedSemaphorePermit> {
        self.held.take()
    }

    /// Receives one frame of at most `limit` bytes, or `None` when the peer has finished. Safe to cancel: the next
    /// call goes on where the dropped one stopped.
    ///
    /// # Errors  [`Error::FrameTooLarge`], [`Error::Truncated`], the connection's or stream's end; [`Error::Lost`] for a frame
    /// that was begun and does not come
    pub async fn recv_frame(&mut self, limit: usize) -> Result<Option<Vec<u8>>> {
        if self.begun.is_none() {
            self.held = None;
        }
        while self.header_len < HEADER {
            let reading = self.reader.read(&mut self.header[self.header_len..]);
            // Between two frames a peer may be silent for as long as it likes.
            let n = within(self.begun, self.frame_time, reading).await?;
            self.begun.get_or_insert_with(Instant::now);
            match (n, self.header_len) {
                (0, 0) => return Ok(None),
                (0, found) => return Err(Error::Truncated { found: found as u64, expected: HEADER as u64 }),
                _ => self.header_len += n,
            }
        }
        let size = u32::from_be_bytes(self.header) as usize;
        if size > limit {
            return Err(Error::FrameTooLarge { found: size as u64, limit: limit as u64 });
        }
        if let Some(room) = self.room.as_ref().filter(|_| size > SMALL && self.held.is_none()) {
            // At most a quarter of all there is, whatever is allowed here; the wait is not the peer's.
            let share = u32::try_from(size.div_ceil(1 << 10)).unwrap_or(u32::MAX);
            self.held = room.clone().acquire_many_owned(share).await.ok();
            self.begun = Some(Instant::now());
        }
        while self.body.len() < size {
            let missing = size - self.body.len();
            // Memory grows with what has arrived, not with what was announced.
            self.body.reserve(missing.min(GROWTH.max(3 * self.body.len())));
            let mut rest = (&mut self.reader).take(missing as u64);
            let n = within(self.begun, self.frame_time, rest.read_buf(&mut self.body)).await?;
            if n == 0 {
                return Err(Error::Truncated { found: self.body.len() as u64, expected: size as u64 });
            }
        }
        self.header_len = 0;
        self.begun = None;
        Ok(Some(std::mem::take(&mut self.body)))
    }
}

/// A read of a frame that began then, if it did.
async fn within(
    begun: Option<Instant>,
    frame_time: Duration,
    reading: impl Future<Output = std::io::Result<usize>>,
) -> Result<usize> {
    match begun {
        None => reading.await.map_err(from_io),
        Some(begun) => {
            timeout_at(begun + frame_time, reading).await.map_err(|_| unfinished(frame_time))?.map_err(from_io)
        }
    }
}

fn unfinished(frame_time: Duration) -> Error {
    Error::Lost { detail: format!("a frame was not finished within {frame_time:?}") }
}

/// From the first to the last byte of a frame: 4 MiB in two minutes is 35 kB/s.
const FRAME_TIME: Duration = Duration::from_secs(120);
/// Frames up to this size take no room that is shared.
const SMALL: usize = 4 << 10;
const HEADER: usize = 4;
const GROWTH: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    impl Outgoing for tokio::io::Sink {}

    fn received(bytes: &[u8]) -> Stream {
        Stream::new(Box::new(tokio::io::sink()), Box::new(std::io::Cursor::new(bytes.to_vec())))
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_refused_by_its_length_alone() {
        let error = received(&[0xff; 4]).recv_frame(10).await.unwrap_err();
        assert!(matches!(error, Error::FrameTooLarge { found: 0xffff_ffff, limit: 10 }), "{error}");
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_told_from_an_end_between_frames() {
        assert!(received(&[]).recv_frame(10).await.unwrap().is_none());
        for bytes in [&[0, 0][..], &[0, 0, 0, 3], &[0, 0, 0, 3, 1, 2]] {
            let error = received(bytes).recv_frame(10).await.unwrap_err();
            assert!(matches!(error, Error::Truncated { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_frame_that_is_begun_and_not_finished_is_given_up_and_silence_between_frames_is_not() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let mut stream = Stream::new(Box::new(tokio::io::sink()), Box::new(theirs));
        let frame_time = Duration::from_millis(50);
        stream.recv.frame_time = frame_time;
        let begun = Instant::now();
        let later = async {
            tokio::time::sleep(5 * frame_time).await;
            ours.write_all(&[0, 0, 0, 3, 1]).await.unwrap();
        };
        let (error, ()) = tokio::join!(stream.recv_frame(10), later);
        assert!(error.unwrap_err().to_string().contains("was not finished"));
        assert!(begun.elapsed() >= 6 * frame_time);
    }

    #[tokio::test]
    async fn large_frames_of_one_peer_share_their_room_until_they_are_done_with() {
        let room = Arc::new(Semaphore::new(10));
        let frame = |size: u32| [&size.to_be_bytes()[..], &vec![7; size as usize]].concat();
        let mut streams = [received(&frame(8 << 10)), received(&frame(8 << 10)), received(&frame(100))];
        streams.iter_mut().for_each(|stream| stream.recv.share_room(room.clone()));
        let [one, two, small] = &mut streams;
        one.recv_frame(1 << 20).await.unwrap().unwrap();
        assert_eq!(room.available_permits(), 2);
        small.recv_frame(1 << 20).await.unwrap().unwrap();
        let mut waiting = Box::pin(two.recv_frame(1 << 20));
        tokio::select! {
            biased;
            frame = &mut waiting => panic!("{frame:?} had no room"),
            () = tokio::task::yield_now() => {}
        }
        drop(one.recv.take_held());
        assert_eq!(waiting.await.unwrap().unwrap().len(), 8 << 10);
    }

    #[tokio::test]
    async fn a_cancelled_receive_loses_nothing() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let mut stream = Stream::new(Box::new(tokio::io::sink()), Box::new(theirs));
        for piece in [&[0, 0][..], &[0, 3, 7], &[8]] {
            ours.write_all(piece).await.unwrap();
            tokio::select! {
                biased;
                frame = stream.recv_frame(10) => panic!("{frame:?} came early"),
                () = tokio::task::yield_now() => {}
            }
        }
        ours.write_all(&[9]).await.unwrap();
        assert_eq!(stream.recv_frame(10).await.unwrap().unwrap(), [7, 8, 9]);
    }
}
