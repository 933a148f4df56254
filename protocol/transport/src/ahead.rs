//! Frames that are received while whoever wants them is still at work on the one before.

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
};

use crate::{
    error::{Error, Result},
    stream::RecvHalf,
};

/// The receiving half of a stream of large frames, read by a task of its own: one frame waits here, one more is on its way in.
/// Dropping this drops the half.
pub struct Ahead {
    frames: mpsc::Receiver<Result<Option<Frame>>>,
    /// The last frame's share of what all streams of the peer may hold.
    held: Option<OwnedSemaphorePermit>,
    // Ends when this is dropped.
    _task: JoinSet<()>,
}

struct Frame {
    bytes: Vec<u8>,
    held: Option<OwnedSemaphorePermit>,
}

impl RecvHalf {
    /// Receives frames of at most `limit` bytes ahead of whoever asks for them.
    pub fn ahead(mut self, limit: usize) -> Ahead {
        let (sender, frames) = mpsc::channel(1);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let received = self.recv_frame(limit).await;
                let is_last = !matches!(received, Ok(Some(_)));
                let frame = received.map(|bytes| bytes.map(|bytes| Frame { bytes, held: self.take_held() }));
                if sender.send(frame).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ahead { frames, held: None, _task: task }
    }
}

impl Ahead {
    /// The next frame, or `None` when the peer has finished. Safe to cancel. The last frame's share of the peer's room is given
    /// back, as by [`RecvHalf::recv_frame`].
    ///
    /// # Errors  as [`RecvHalf::recv_frame`]; after one, [`Error::StreamReset`]
    pub async fn recv_frame(&mut self) -> Result<Option<Vec<u8>>> {
        self.held = None;
        let received = self.frames.recv().await.unwrap_or(Err(Error::StreamReset))?;
        Ok(received.map(|Frame { bytes, held }| {
            self.held = held;
            bytes
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{io::AsyncWriteExt as _, sync::Semaphore};

    use super::*;
    use crate::stream::Stream;

    fn frames(n: u8) -> Vec<u8> {
        (0..n).flat_map(|i| [&[0, 0, 32, 0][..], &[i; 8 << 10]].concat()).collect()
    }

    fn received(bytes: &[u8]) -> RecvHalf {
        Stream::new(Box::new(tokio::io::sink()), Box::new(std::io::Cursor::new(bytes.to_vec()))).recv
    }

    #[tokio::test]
    async fn frames_come_in_order_and_the_end_is_told_from_a_torn_frame() {
        let whole = frames(5);
        let mut ahead = received(&whole).ahead(8 << 10);
        for i in 0..5 {
            assert_eq!(ahead.recv_frame().await.unwrap().unwrap(), vec![i; 8 << 10]);
        }
        assert!(ahead.recv_frame().await.unwrap().is_none());
        let mut torn = received(&whole[..whole.len() - 1]).ahead(8 << 10);
        for _ in 0..4 {
            torn.recv_frame().await.unwrap().unwrap();
        }
        assert!(matches!(torn.recv_frame().await, Err(Error::Truncated { .. })));
        assert!(matches!(torn.recv_frame().await, Err(Error::StreamReset)));
        let mut large = received(&whole).ahead(100);
        assert!(matches!(large.recv_frame().await, Err(Error::FrameTooLarge { .. })));
    }

    #[tokio::test]
    async fn what_is_ahead_is_bounded_by_the_room_that_all_streams_share() {
        let (mut theirs, ours) = tokio::io::duplex(1 << 20);
        theirs.write_all(&frames(5)).await.unwrap();
        let mut recv = Stream::new(Box::new(tokio::io::sink()), Box::new(ours)).recv;
        let room = Arc::new(Semaphore::new(16));
        recv.share_room(room.clone());
        let mut ahead = recv.ahead(8 << 10);
        for i in 0..5 {
            assert_eq!(ahead.recv_frame().await.unwrap().unwrap()[0], i, "there is room for two at a time");
        }
        drop(ahead);
        // The task ends at its next step.
        while room.available_permits() < 16 {
            tokio::task::yield_now().await;
        }
    }
}
