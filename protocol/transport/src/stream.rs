//! Bidirectional streams of length-delimited frames, the same over every transport.
//!
//! A frame is its length as four big-endian bytes and that many bytes. A length over the receiver's limit is refused
//! before anything is allocated for it.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::{Error, Result, from_io};

/// The bytes that leave.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;
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
            recv: RecvHalf { reader, header: [0; HEADER], header_len: 0, body: Vec::new() },
        }
    }

    /// Sends one frame; see [`SendHalf::send_frame`].
    ///
    /// # Errors  the connection's or stream's end
    pub async fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.send.send_frame(frame).await
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
        let header = u32::try_from(frame.len())
            .map_err(|_| Error::FrameTooLarge { found: frame.len() as u64, limit: u32::MAX.into() })?
            .to_be_bytes();
        self.writer.write_all(&header).await.map_err(from_io)?;
        self.writer.write_all(frame).await.map_err(from_io)?;
        self.writer.flush().await.map_err(from_io)
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
}

impl RecvHalf {
    /// Receives one frame of at most `limit` bytes, or `None` when the peer has finished. Safe to cancel: the next
    /// call goes on where the dropped one stopped.
    ///
    /// # Errors  [`Error::FrameTooLarge`], [`Error::Truncated`], the connection's or stream's end
    pub async fn recv_frame(&mut self, limit: usize) -> Result<Option<Vec<u8>>> {
        while self.header_len < HEADER {
            let n = self.reader.read(&mut self.header[self.header_len..]).await.map_err(from_io)?;
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
        while self.body.len() < size {
            let missing = size - self.body.len();
            // Memory grows with what has arrived, not with what was announced.
            self.body.reserve(missing.min(GROWTH.max(self.body.len())));
            let n = (&mut self.reader).take(missing as u64).read_buf(&mut self.body).await.map_err(from_io)?;
            if n == 0 {
                return Err(Error::Truncated { found: self.body.len() as u64, expected: size as u64 });
            }
        }
        self.header_len = 0;
        Ok(Some(std::mem::take(&mut self.body)))
    }
}

const HEADER: usize = 4;
const GROWTH: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

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
