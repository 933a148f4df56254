//! Many streams over one socket.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::{
    conversation::{Conversation, PLACES},
    driver::{Driver, Open},
    pipe::Pipes,
    socket::{Bytes, Pulse, Socket},
};
use crate::{
    BoxFuture, End, Timing,
    error::{Error, Result},
    life::{Ended, Ending, Life, Side, dropped, end},
    stream::Stream,
};

/// The streams of one connection. One task drives it, until the connection is over.
pub(super) struct Mux {
    opens: mpsc::Sender<Open>,
    incoming: Mutex<mpsc::Receiver<yamux::Stream>>,
    pipes: Arc<Pipes>,
    life: Arc<Life>,
}

impl Mux {
    /// Begins on a socket whose peer has proven who it is, and waits until a dialler is let in. `alive` is dropped when all is
    /// over.
    pub(super) async fn start<S: Bytes>(
        socket: S,
        side: Side,
        timing: Timing,
        alive: Option<mpsc::Sender<()>>,
    ) -> Result<Self> {
        let (pulse, ending) = (Pulse::new(), Ending::new(None));
        let (opens, to_open) = mpsc::channel(1);
        let (arrived, incoming) = mpsc::channel(PLACES + 1);
        let (says, said) = mpsc::unbounded_channel();
        let driver = Driver::new(Socket::new(socket, pulse.clone()).compat(), side, to_open, arrived);
        let pipes = Arc::new(Pipes::new(PLACES, says));
        // Dropped with this future, it ends the task.
        let life = Arc::new(Life::new(side, &ending));
        let conversation = Conversation { side, timing, pulse, ending, pipes: pipes.clone(), said };
        let (ready, begun) = oneshot::channel();
        let for_control = opens.clone();
        tokio::spawn(async move {
            conversation.run(driver, for_control, incoming, ready).await;
            drop(alive);
        });
        let incoming = begun.await.map_err(|_| dropped())??;
        Ok(Self { opens, incoming: Mutex::new(incoming), pipes, life })
    }

    pub(super) async fn open(&self) -> Result<Stream> {
        let place = tokio::select! {
            biased;
            error = self.over() => return Err(error),
            place = self.pipes.place() => place,
        };
        match open(&self.opens).await {
            Some(stream) => Ok(self.stream(stream, place)),
            None => Err(self.over().await),
        }
    }

    pub(super) async fn accept(&self) -> Result<Stream> {
        let mut incoming = self.incoming.lock().await;
        let stream = tokio::select! {
            biased;
            error = self.over() => return Err(error),
            stream = incoming.recv() => stream,
        };
        match stream {
            Some(stream) => Ok(self.stream(stream, None)),
            None => Err(self.over().await),
        }
    }

    pub(super) fn close(&self, how: End) {
        end(&self.life.ended, Ended::By(self.life.side, how));
    }

    pub(super) fn over(&self) -> BoxFuture<'static, Error> {
        self.life.over()
    }

    pub(super) fn ending(&self) -> Ending {
        self.life.ended.clone()
    }

    fn stream(&self, stream: yamux::Stream, place: Option<OwnedSemaphorePermit>) -> Stream {
        self.life.stream(self.pipes.hold(stream, place))
    }
}

/// A new stream of the driver's; `None` if it drives no more.
pub(super) async fn open(opens: &mpsc::Sender<Open>) -> Option<yamux::Stream> {
    let (wanted, opened) = oneshot::channel();
    opens.send(wanted).await.ok()?;
    opened.await.ok()
}
