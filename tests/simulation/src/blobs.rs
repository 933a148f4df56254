//! Blobs between coordinators: how they are pushed, fetched and counted. What is said about them is real: chunk senders and
//! receivers, messages, and the rule of who must hold a blob.

use std::collections::BTreeSet;

use archipelago_common::{BlobRef, NodeId, Principal};
use archipelago_coordinator::{
    blob::replicate::shortfall,
    error::{Error, Result},
    server::{
        course::{Step, Then},
        refusal,
    },
};
use archipelago_protocol::{
    ChunkSender, frame,
    message::{GetReply, PutReply, Refusal, StreamOpen},
};

use crate::{
    host::{CourseId, Live, Served},
    network::{Actor, StreamId},
    shelves::Shelves,
    world::World,
};

/// Names a quest of one run of a node.
pub(crate) type QuestId = u64;

/// A blob that is to be here, or on a majority.
pub(crate) struct Quest {
    blob: BlobRef,
    stage: Stage,
    waiter: Waiter,
}

enum Stage {
    /// Asking these, one after another.
    Fetching { left: Vec<NodeId> },
    /// Pushed to all others; these have it, so many have not answered.
    Spreading { holders: BTreeSet<NodeId>, outstanding: usize },
}

/// Who waits for a quest.
pub(crate) enum Waiter {
    /// An upload that is to be answered.
    Put(StreamId),
    /// A request, which may need more blobs.
    Course { course: CourseId, rest: Vec<BlobRef>, missing: Vec<BlobRef>, then: Then },
    /// Nobody.
    Nobody,
}

impl World {
    /// Sends a blob that is here to whoever asks and may have it.
    pub(crate) fn serve_get(&mut self, node: NodeId, stream: StreamId, who: &Principal, (blob, from): (BlobRef, u64)) {
        let Some((shelves, live)) = self.store(node) else { return };
        let bytes = shelves.bytes(blob);
        let may_fetch = live.node.cluster().may_fetch(who, &blob.digest);
        let reply = match (&bytes, may_fetch) {
            (Ok(_), true) => GetReply::Sending,
            (Err(_), true) => GetReply::Refused(Refusal::NotFound { what: format!("blob {blob}") }),
            (_, false) => {
                GetReply::Refused(Refusal::Forbidden { reason: format!("blob {blob} is not open to `{who}`") })
            }
        };
        if let Ok(frame) = frame::encode(&reply) {
            self.send(stream, Actor::Node(node), frame);
        }
        if let (GetReply::Sending, Ok(bytes)) = (reply, bytes) {
            self.send_kept(stream, node, blob, from, &bytes);
        }
    }

    /// Sends the chunks of a blob that is here, as far as they are what came.
    fn send_kept(&mut self, stream: StreamId, node: NodeId, blob: BlobRef, from_chunk: u64, bytes: &[u8]) {
        let Some((shelves, _)) = self.store(node) else { return };
        let Ok(sender) = shelves.sender(blob, from_chunk) else { return };
        if !self.send_all(stream, Actor::Node(node), sender, bytes) {
            self.coverage.note("spoilt chunks that were not sent");
            self.say(format_args!("n{node} finds {} spoilt", blob.digest.short()));
            if let Some((shelves, _)) = self.store(node) {
                shelves.lose(&blob);
            }
            self.break_stream(stream);
        }
    }

    /// Sends the chunks of a blob.
    pub(crate) fn send_chunks(&mut self, stream: StreamId, from: Actor, blob: BlobRef, from_chunk: u64, bytes: &[u8]) {
        if let Ok(sender) = ChunkSender::new(blob, from_chunk) {
            self.send_all(stream, from, sender, bytes);
        }
    }

    /// Whether there was nothing that must not be sent.
    fn send_all(&mut self, stream: StreamId, from: Actor, mut sender: ChunkSender, bytes: &[u8]) -> bool {
        while let Some(piece) = sender.poll_piece() {
            let part = bytes.get(piece.offset as usize..piece.offset as usize + piece.size);
            let chunk = part.and_then(|part| sender.handle_read(part.to_vec()).ok());
            let Some(frame) = chunk.and_then(|chunk| frame::encode(&chunk).ok()) else { return false };
            self.send(stream, from, frame);
        }
        true
    }

    /// Goes on with a request when all of these are durable on a majority.
    pub(crate) fn have_durable(&mut self, node: NodeId, waiter: Waiter) {
        let Waiter::Course { course, mut rest, missing, then } = waiter else { return };
        match rest.pop() {
            Some(blob) => self.fetch(node, blob, Waiter::Course { course, rest, missing, then }),
            None if missing.is_empty() => self.follow(node, course, then()),
            None => self.follow(node, course, Step::Done(Err(Refusal::MissingBlobs { blobs: missing }))),
        }
    }

    /// Fetches every blob that the state names and this node lacks, one at a time.
    pub(crate) fn keep_complete(&mut self, node: NodeId) {
        let Some((shelves, live)) = self.store(node) else { return };
        let is_fetching =
            |quest: &Quest| matches!(quest, Quest { stage: Stage::Fetching { .. }, waiter: Waiter::Nobody, .. });
        if live.quests.values().any(is_fetching) {
            return;
        }
        let named = live.node.cluster().referenced_blobs();
        if let Some(missing) = named.into_iter().find(|blob| !shelves.contains(blob)) {
            self.fetch(node, missing, Waiter::Nobody);
        }
    }

    fn fetch(&mut self, node: NodeId, blob: BlobRef, waiter: Waiter) {
        let others = self.others(node);
        let is_here = match waiter {
            Waiter::Nobody => self.store(node).is_some_and(|(shelves, _)| shelves.contains(&blob)),
            Waiter::Put(_) | Waiter::Course { .. } => self.hold(node, blob),
        };
        let Some((_, live)) = self.store(node) else { return };
        let left = if live.receiving.contains(&blob) { Vec::new() } else { others };
        let quest = live.next_quest;
        live.next_quest += 1;
        live.quests.insert(quest, Quest { blob, stage: Stage::Fetching { left }, waiter });
        if is_here { self.fetched(node, quest) } else { self.ask_next(node, quest) }
    }

    fn ask_next(&mut self, node: NodeId, quest: QuestId) {
        let Some((shelves, live)) = self.store(node) else { return };
        let Some(Quest { blob, stage: Stage::Fetching { left }, .. }) = live.quests.get_mut(&quest) else { return };
        let blob = *blob;
        let Some(other) = left.pop() else {
            return self.end_quest(node, quest, Err(Error::NoBlob { blob }));
        };
        let Ok((receiver, bytes)) = shelves.resume(blob) else { return };
        let open = StreamOpen::Get { blob, from_chunk: receiver.next_chunk() };
        live.receiving.insert(blob);
        let stream = self.open_stream(Actor::Node(node), Actor::Node(other), &open);
        let Some((_, live)) = self.store(node) else { return };
        live.served.insert(stream, Served::Fetching { quest, receiver: Box::new(receiver), bytes });
    }

    /// What another says to a fetch before the chunks.
    pub(crate) fn take_get_reply(&mut self, node: NodeId, stream: StreamId, quest: QuestId, reply: GetReply) {
        match reply {
            // Uploads are not relayed here, and nobody asks for parts.
            GetReply::Refused(_) | GetReply::SendingPart { .. } => {
                self.close_stream(stream, Actor::Node(node));
                self.fetch_failed(node, stream, quest);
            }
            GetReply::Sending => {
                let served = self.live(node).and_then(|live| live.served.get(&stream));
                if matches!(served, Some(Served::Fetching { receiver, .. }) if receiver.is_complete()) {
                    self.store_soon(node, stream);
                }
            }
        }
    }

    /// A fetch from one other has come to nothing.
    pub(crate) fn fetch_failed(&mut self, node: NodeId, stream: StreamId, quest: QuestId) {
        let Some((_, live)) = self.store(node) else { return };
        live.served.remove(&stream);
        if let Some(Quest { blob, .. }) = live.quests.get(&quest) {
            live.receiving.remove(blob);
        }
        self.ask_next(node, quest);
    }

    pub(crate) fn fetched(&mut self, node: NodeId, quest: QuestId) {
        let Some((_, live)) = self.store(node) else { return };
        let Some(Quest { blob, waiter, .. }) = live.quests.remove(&quest) else { return };
        if !matches!(waiter, Waiter::Nobody) {
            self.spread(node, blob, waiter);
        }
    }

    /// Pushes a blob of this node to all others; the waiter goes on when a majority has it.
    pub(crate) fn spread(&mut self, node: NodeId, blob: BlobRef, waiter: Waiter) {
        let others = self.others(node);
        let Some((_, live)) = self.store(node) else { return };
        let quest = live.next_quest;
        live.next_quest += 1;
        let stage = Stage::Spreading { holders: [node].into(), outstanding: others.len() };
        live.quests.insert(quest, Quest { blob, stage, waiter });
        for other in others {
            let stream = self.open_stream(Actor::Node(node), Actor::Node(other), &StreamOpen::Put(blob));
            if let Some((_, live)) = self.store(node) {
                live.served.insert(stream, Served::Pushing { quest });
            }
        }
        self.count(node, quest);
    }

    /// What another says to a push.
    pub(crate) fn take_put_reply(&mut self, node: NodeId, stream: StreamId, quest: QuestId, reply: PutReply) {
        let Some((shelves, live)) = self.store(node) else { return };
        let Some(blob) = live.quests.get(&quest).map(|quest| quest.blob) else { return };
        match reply {
            PutReply::Send { from_chunk } => {
                if let Ok(bytes) = shelves.bytes(blob) {
                    self.send_kept(stream, node, blob, from_chunk, &bytes);
                }
            }
            PutReply::Durable => {
                let other = self.network.streams.get(&stream).map(|s| s.other(Actor::Node(node)));
                self.pushed(node, stream, quest, other);
            }
            PutReply::Refused(_) | PutReply::Has { .. } => self.pushed(node, stream, quest, None),
        }
    }

    /// A push has ended, at somebody who has the blob or not.
    pub(crate) fn pushed(&mut self, node: NodeId, stream: StreamId, quest: QuestId, holder: Option<Actor>) {
        let Some((_, live)) = self.store(node) else { return };
        if live.served.remove(&stream).is_none() {
            return;
        }
        if let Some(Quest { stage: Stage::Spreading { holders, outstanding }, .. }) = live.quests.get_mut(&quest) {
            *outstanding -= 1;
            if let Some(Actor::Node(other)) = holder {
                holders.insert(other);
            }
        }
        self.close_stream(stream, Actor::Node(node));
        self.count(node, quest);
    }

    fn count(&mut self, node: NodeId, quest: QuestId) {
        let Some((_, live)) = self.store(node) else { return };
        let electorates = live.node.configuration().electorates(live.node.cluster().voters());
        let Some(Quest { blob, stage: Stage::Spreading { holders, outstanding }, .. }) = live.quests.get(&quest) else {
            return;
        };
        match shortfall(&electorates, holders) {
            None => self.end_quest(node, quest, Ok(())),
            Some((found, needed)) if *outstanding == 0 => {
                let blob = *blob;
                self.end_quest(node, quest, Err(Error::NoMajority { blob, found, needed }));
            }
            Some(_) => {}
        }
    }

    fn end_quest(&mut self, node: NodeId, quest: QuestId, result: Result<()>) {
        let Some((_, live)) = self.store(node) else { return };
        let Some(Quest { blob, stage, waiter }) = live.quests.get_mut(&quest) else { return };
        let blob = *blob;
        let waiter = std::mem::replace(waiter, Waiter::Nobody);
        // Pushes that are still under way go on, and nobody waits for them.
        if !matches!(stage, Stage::Spreading { outstanding: 1.., .. }) {
            live.quests.remove(&quest);
        }
        match (waiter, result) {
            (Waiter::Put(stream), Ok(())) => {
                self.check_acknowledged(node, blob);
                self.send_put_reply(node, stream, &PutReply::Durable);
            }
            (Waiter::Put(stream), Err(error)) => {
                self.send_put_reply(node, stream, &PutReply::Refused(refusal::of(&error)));
            }
            (waiter @ Waiter::Course { .. }, Ok(())) => {
                self.check_acknowledged(node, blob);
                self.have_durable(node, waiter);
            }
            (Waiter::Course { course, rest, mut missing, then }, Err(Error::NoBlob { blob })) => {
                missing.push(blob);
                self.have_durable(node, Waiter::Course { course, rest, missing, then });
            }
            (Waiter::Course { course, .. }, Err(error)) => {
                self.follow(node, course, Step::Done(Err(refusal::of(&error))));
            }
            (Waiter::Nobody, _) => {}
        }
    }

    pub(crate) fn send_put_reply(&mut self, node: NodeId, stream: StreamId, reply: &PutReply) {
        if let Ok(frame) = frame::encode(reply) {
            self.send(stream, Actor::Node(node), frame);
        }
    }

    /// Whether a blob is here, for somebody who is about to rely on it; what is said of a copy is true when it is said.
    pub(crate) fn hold(&mut self, node: NodeId, blob: BlobRef) -> bool {
        let now = self.now;
        let Some((shelves, _)) = self.store(node) else { return false };
        let (was_here, is_sound) = (shelves.contains(&blob), shelves.is_sound(&blob));
        let is_held = shelves.hold(&blob, now);
        if is_held && !is_sound {
            self.fail(format!("counted copies: n{node} counts its copy of {}, which is spoilt", blob.digest.short()));
        }
        if was_here && !is_held {
            self.coverage.note("spoilt blobs that did not count");
        }
        is_held
    }

    pub(crate) fn store(&mut self, node: NodeId) -> Option<(&mut Shelves, &mut Live)> {
        let host = self.hosts.get_mut(&node)?;
        Some((&mut host.shelves, host.live.as_mut()?))
    }
}
