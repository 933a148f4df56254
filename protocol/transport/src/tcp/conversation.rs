//! The course of one connection: a dialler is let in, both sides show that they are there, one of them says the last word.

use std::{sync::Arc, time::Duration};

use archipelago_common::limits;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    control::{FRAME_BYTES, Say},
    driver::{Driver, Open},
    mux::open,
    pipe::Pipes,
    socket::{Bytes, Pulse},
};
use crate::{
    FAREWELL, Timing,
    error::{Error, Result},
    life::{Ended, Ending, Side, dropped, end, ended},
    stream::{RecvHalf, SendHalf, Stream},
};

/// What one side of a connection knows of it.
pub(super) struct Conversation {
    pub(super) side: Side,
    pub(super) timing: Timing,
    pub(super) pulse: Pulse,
    pub(super) ending: Ending,
    pub(super) pipes: Arc<Pipes>,
    /// Which streams this side has dropped.
    pub(super) said: mpsc::UnboundedReceiver<Say>,
}

/// Streams that the peer opened.
type Incoming = mpsc::Receiver<yamux::Stream>;

impl Conversation {
    /// Runs until the connection is over and the peer knows, or a while has passed. `ready` is told when the dialler is in.
    pub(super) async fn run<S: Bytes>(
        mut self,
        driver: Driver<S>,
        opens: mpsc::Sender<Open>,
        incoming: Incoming,
        ready: oneshot::Sender<Result<Incoming>>,
    ) {
        let (pulse, ending) = (self.pulse.clone(), self.ending.clone());
        let too_late = async {
            ended(&ending).await;
            sleep(FAREWELL).await;
        };
        tokio::select! {
            () = self.converse(opens, incoming, ready) => {}
            () = driver.run(&pulse) => {}
            () = too_late => {}
        }
        // yamux is dropped now, and its streams look finished: they have to be over before. They are, where a side has ended
        // the connection.
        end(&ending, Ended::Lost(dropped()));
    }

    async fn converse(
        &mut self,
        opens: mpsc::Sender<Open>,
        mut incoming: Incoming,
        ready: oneshot::Sender<Result<Incoming>>,
    ) {
        let begun = tokio::select! {
            biased;
            begun = self.begin(&opens, &mut incoming) => begun,
            _ = ended(&self.ending) => return,
            error = self.pulse.gone() => Err(error),
        };
        drop(opens);
        let control = match begun {
            Ok(control) => control,
            Err(error) => {
                // Whoever waits for it may have given up.
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _ = ready.send(Ok(incoming));
        let (send, recv) = control.split();
        let Self { side, timing, pulse, ending, pipes, said } = self;
        let asked = Notify::new();
        let speak = speak(*side, *timing, ending, (said, &asked), send);
        let listen = listen(*side, *timing, ending, (pulse, pipes, &asked), recv);
        tokio::join!(speak, listen);
        if matches!(ended(ending).await, Some(Ended::By(by, _)) if by == *side) {
            // The peer hangs up when it has heard.
            pulse.gone().await;
        }
    }

    /// The control stream, as soon as the dialler is let in. The listener speaks first: a dialler that is not let in has then
    /// sent nothing that would keep it from hearing why.
    async fn begin(&self, opens: &mpsc::Sender<Open>, incoming: &mut Incoming) -> Result<Stream> {
        match self.side {
            Side::Listener => {
                let mut control = self.control(open(opens).await.ok_or_else(dropped)?);
                control.send_frame(&Say::Welcome.encode()).await?;
                Ok(control)
            }
            Side::Dialler => {
                let mut control = self.control(incoming.recv().await.ok_or_else(dropped)?);
                match control.recv_frame(FRAME_BYTES).await?.as_deref().and_then(Say::decode) {
                    Some(Say::Welcome) => Ok(control),
                    _ => Err(Error::BadPeer { detail: "it does not say what a coordinator says".to_owned() }),
                }
            }
        }
    }

    /// A stream that does not keep the connection alive.
    fn control(&self, stream: yamux::Stream) -> Stream {
        let (reader, writer) = tokio::io::split(self.pipes.hold(stream, None));
        Stream::new(Box::new(writer), Box::new(reader))
    }
}

/// Says which streams are dropped, that this side is there, and the last word if this side has it.
async fn speak(
    side: Side,
    timing: Timing,
    ending: &Ending,
    (said, asked): (&mut mpsc::UnboundedReceiver<Say>, &Notify),
    mut control: SendHalf,
) {
    let patience_ms = u32::try_from(timing.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let mut alive = interval(timing.keep_alive);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let say = tokio::select! {
            biased;
            over = ended(ending) => match over {
                Some(Ended::By(by, how)) if by == side => Say::Ends(how),
                _ => return,
            },
            Some(say) = said.recv() => say,
            // However often it was asked, one answer will do.
            () = asked.notified() => Say::Here,
            _ = alive.tick() => Say::Alive { patience_ms },
        };
        let is_last = matches!(say, Say::Ends(_));
        // That the socket has ended is noticed by whoever listens.
        if control.send_frame(&say.encode()).await.is_err() || is_last {
            return;
        }
    }
}

/// Hears the same from the peer, and notices when it is gone.
async fn listen(
    side: Side,
    timing: Timing,
    ending: &Ending,
    (pulse, pipes, asked): (&Pulse, &Pipes, &Notify),
    mut control: RecvHalf,
) {
    let lost = |error| end(ending, Ended::Lost(error));
    let mut patience = timing.idle_timeout;
    loop {
        let frame = tokio::select! {
            // What came before an end is heard before it.
            biased;
            frame = control.recv_frame(FRAME_BYTES) => frame,
            _ = ended(ending) => return,
            error = pulse.gone() => return lost(error),
            () = pulse.silent(patience) => {
                return lost(Error::Lost { detail: "the peer fell silent".to_owned() });
            }
        };
        let Ok(Some(frame)) = frame else {
            return lost(Error::Lost { detail: "the peer ended its control stream".to_owned() });
        };
        match Say::decode(&frame) {
            Some(Say::Gone(stream)) => pipes.peer_dropped(stream, is_of(side, stream)),
            Some(Say::Ends(how)) => return end(ending, Ended::By(other(side), how)),
            Some(Say::Alive { patience_ms }) => {
                patience = patience.min(Duration::from_millis(patience_ms.into()));
                asked.notify_one();
            }
            Some(Say::Here | Say::Welcome) | None => {}
        }
    }
}

/// Whether `side` opened a stream: yamux gives a dialler the odd numbers.
fn is_of(side: Side, stream: u32) -> bool {
    (stream % 2 == 1) == (side == Side::Dialler)
}

fn other(side: Side) -> Side {
    match side {
        Side::Dialler => Side::Listener,
        Side::Listener => Side::Dialler,
    }
}

/// Streams that each side may have open at once.
pub(super) const PLACES: usize = limits::STREAMS as usize;
