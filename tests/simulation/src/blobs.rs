//! Blobs in the simulation: a store whose fsync takes time, and the course of an upload, a push and a fetch.
//!
//! The store is simulated, because the real one is a directory. What is said about blobs is real: chunk senders and
//! receivers, messages, and the rule of who must hold a blob.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    sync::Arc,
};

use archipelago_common::{BlobRef, Digest, NodeId, Principal};
use archipelago_coordinator::{
    blob::{digests::ChunkDigests, replicate::shortfall, verify::next_to_read},
    error::{Error, Result},
    server::{
        checks::Shelf,
        course::{Step, Then},
        refusal,
    },
};
use archipelago_protocol::{
    ChunkReceiver, ChunkSender, frame,
    message::{Chunk, GetReply, PutReply, Refusal, StreamOpen},
};

use crate::{
    host::{CourseId, Live, Served},
    network::{Actor, StreamId},
    world::{Happening, World},
};

/// The blobs on one machine's disk.
#[derive(Default)]
pub(crate) struct Shelves {
    whole: BTreeMap<Digest, Kept>,
    /// Chunks of a blob that has not come whole, and their recorded digests.
    partial: BTreeMap<Digest, Vec<(Vec<u8>, Digest)>>,
}

/// A whole blob, and the digests of its chunks beside it.
struct Kept {
    bytes: Arc<[u8]>,
    digests: ChunkDigests,
    /// When it was last relied upon.
    touched: u64,
}

impl Shelves {
    pub(crate) fn contains(&self, blob: &BlobRef) -> bool {
        self.whole.get(&blob.digest).is_some_and(|kept| kept.bytes.len() as u64 == blob.size)
    }

    /// Whether a blob is here as it came. The product finds out by reading it; this is what is checked.
    pub(crate) fn is_sound(&self, blob: &BlobRef) -> bool {
        self.whole.get(&blob.digest).is_some_and(|kept| BlobRef::of(&kept.bytes) == *blob)
    }

    /// A blob is relied upon now.
    fn hold(&mut self, blob: &BlobRef, now: u64) {
        if let Some(kept) = self.whole.get_mut(&blob.digest) {
            kept.touched = now;
        }
    }

    /// All that is here.
    pub(crate) fn all(&self) -> Vec<BlobRef> {
        let blob = |(digest, kept): (&Digest, &Kept)| BlobRef { digest: *digest, size: kept.bytes.len() as u64 };
        self.whole.iter().map(blob).collect()
    }

    /// The disk changes one bit of a blob.
    pub(crate) fn spoil(&mut self, blob: &BlobRef, place: u64) {
        if let Some(kept) = self.whole.get_mut(&blob.digest).filter(|kept| !kept.bytes.is_empty()) {
            let mut bytes = kept.bytes.to_vec();
            let place = (place % bytes.len() as u64) as usize;
            bytes[place] ^= 1;
            kept.bytes = bytes.into();
        }
    }

    /// The disk loses a blob, or somebody puts it aside.
    pub(crate) fn lose(&mut self, blob: &BlobRef) {
        self.whole.remove(&blob.digest);
    }

    /// Reads the next blob after this one, and puts it aside if it is not what it should be. Says which, and whether it was.
    pub(crate) fn scrub(&mut self, after: Digest) -> Option<(Digest, bool)> {
        let digest = next_to_read(&self.whole, after)?;
        let bytes = self.whole[&digest].bytes.clone();
        let blob = BlobRef { digest, size: bytes.len() as u64 };
        let is_sound = ChunkDigests::read(blob, &mut &bytes[..]).is_ok_and(|digests| digests.is_some());
        if !is_sound {
            self.lose(&blob);
        }
        Some((digest, is_sound))
    }

    /// Removes what nothing refers to and nobody has relied upon for long; says what that was.
    pub(crate) fn sweep(&mut self, named: &BTreeSet<Digest>, now: u64) -> Vec<Digest> {
        let is_idle = |(digest, kept): (&Digest, &Kept)| !named.contains(digest) && kept.touched + GRACE_MS < now;
        let idle: Vec<_> = self.whole.iter().filter(|(d, w)| is_idle((d, w))).map(|(digest, _)| *digest).collect();
        idle.iter().for_each(|digest| drop(self.whole.remove(digest)));
        idle
    }

    /// Loses what was not fsynced.
    pub(crate) fn lose_power(&mut self) {
        for chunks in self.partial.values_mut() {
            chunks.truncate(chunks.len() / 2);
        }
    }

    fn bytes(&self, blob: BlobRef) -> Result<Arc<[u8]>> {
        self.whole.get(&blob.digest).map(|kept| kept.bytes.clone()).ok_or(Error::NoBlob { blob })
    }

    fn sender(&self, blob: BlobRef, from_chunk: u64) -> Result<ChunkSender> {
        self.whole.get(&blob.digest).ok_or(Error::NoBlob { blob })?.digests.sender(from_chunk)
    }
}

impl Shelf for Shelves {
    fn open(&self, blob: BlobRef) -> Result<Box<dyn Read>> {
        let bytes = self.bytes(blob)?;
        blob.verify("blob", &bytes).map_err(|_| Error::Damaged { blob })?;
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }

    fn read_whole(&self, blob: BlobRef, _: u64) -> Result<Vec<u8>> {
        let bytes = self.bytes(blob)?.to_vec();
        blob.verify("blob", &bytes).map_err(|_| Error::Damaged { blob })?;
        Ok(bytes)
    }
}

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
    /// Begins to serve an upload.
    pub(crate) fn serve_put(&mut self, node: NodeId, stream: StreamId, who: Principal, blob: BlobRef) {
        let now = self.now;
        let Some((shelves, live)) = self.store(node) else { return };
        if shelves.contains(&blob) {
            shelves.hold(&blob, now);
            live.served.insert(stream, Served::Spreading);
            let from_chunk = blob.n_chunks();
            self.send_put_reply(node, stream, &PutReply::Send { from_chunk });
            return self.received(node, stream, &who, blob);
        }
        if !live.receiving.insert(blob) {
            return self.send_put_reply(node, stream, &PutReply::Refused(refusal::of(&Error::BlobBusy { blob })));
        }
        let Ok((receiver, bytes)) = resume(shelves, blob) else { return };
        let from_chunk = receiver.next_chunk();
        let is_complete = receiver.is_complete();
        live.served.insert(stream, Served::Receiving { who, receiver: Some(Box::new(receiver)), bytes });
        self.coverage.add("chunks spared by a resumed upload", from_chunk);
        self.send_put_reply(node, stream, &PutReply::Send { from_chunk });
        if is_complete {
            self.store_soon(node, stream);
        }
    }

    /// A chunk of an upload.
    pub(crate) fn take_chunk(&mut self, node: NodeId, stream: StreamId, bytes: &[u8]) -> Result<()> {
        let chunk: Chunk = frame::decode(bytes)?;
        let Some((shelves, live)) = self.store(node) else { return Ok(()) };
        let (receiver, whole) = match live.served.get_mut(&stream) {
            Some(Served::Receiving { receiver: Some(receiver), bytes, .. })
            | Some(Served::Fetching { receiver, bytes, .. }) => (receiver, bytes),
            _ => return Ok(()),
        };
        receiver.handle_chunk(&chunk)?;
        shelves.partial.entry(receiver.blob().digest).or_default().push((chunk.bytes.clone(), chunk.digest));
        whole.extend_from_slice(&chunk.bytes);
        if receiver.is_complete() {
            self.store_soon(node, stream);
        }
        Ok(())
    }

    /// All chunks are there; the fsync takes its time.
    fn store_soon(&mut self, node: NodeId, stream: StreamId) {
        let fsync_ms = self.draw_fsync(node);
        let run = self.hosts[&node].run;
        self.after(fsync_ms, Happening::Stored { node, run, stream });
    }

    /// A blob that has come over a stream is fsynced.
    pub(crate) fn stored(&mut self, node: NodeId, stream: StreamId) {
        let now = self.now;
        let Some((shelves, live)) = self.store(node) else { return };
        let Some(served) = live.served.get_mut(&stream) else { return };
        let (blob, bytes) = match served {
            Served::Receiving { receiver, bytes, .. } => {
                let Some(receiver) = receiver.take() else { return };
                (receiver.blob(), std::mem::take(bytes))
            }
            Served::Fetching { receiver, bytes, .. } => (receiver.blob(), std::mem::take(bytes)),
            _ => return,
        };
        live.receiving.remove(&blob);
        shelves.partial.remove(&blob.digest);
        let Ok(Some(digests)) = ChunkDigests::read(blob, &mut &bytes[..]) else {
            // Peers send what they have, and disks are spoilt; but what is spoilt is not sent.
            return self.fail(format!("spoilt blobs: n{node} was sent something else for {}", blob.digest.short()));
        };
        shelves.whole.insert(blob.digest, Kept { bytes: bytes.into(), digests, touched: now });
        self.coverage.note("blobs stored");
        self.say(format_args!("n{node} has {}", blob.digest.short()));
        let Some((_, live)) = self.store(node) else { return };
        match live.served.remove(&stream) {
            Some(Served::Receiving { who, .. }) => {
                live.served.insert(stream, Served::Spreading);
                self.received(node, stream, &who, blob);
            }
            Some(Served::Fetching { quest, .. }) => {
                self.close_stream(stream, Actor::Node(node));
                self.fetched(node, quest);
            }
            _ => {}
        }
    }

    /// A coordinator is told that a blob is durable here, anybody else that it is on a majority.
    fn received(&mut self, node: NodeId, stream: StreamId, who: &Principal, blob: BlobRef) {
        match who {
            Principal::Coordinator(_) => self.send_put_reply(node, stream, &PutReply::Durable),
            _ => self.spread(node, blob, Waiter::Put(stream)),
        }
    }

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

    /// Reads some blobs, and has those fetched again that are not what they should be.
    pub(crate) fn scrub(&mut self, node: NodeId) {
        for _ in 0..SCRUBBED {
            let Some(host) = self.hosts.get_mut(&node) else { return };
            let Some((digest, is_sound)) = host.shelves.scrub(host.scrubbed) else { return };
            host.scrubbed = digest;
            if !is_sound {
                self.coverage.note("spoilt blobs found by reading");
                self.say(format_args!("n{node} reads {} and finds it spoilt", digest.short()));
            }
        }
    }

    /// A disk spoils or loses a blob, but never so many copies that no majority has it.
    pub(crate) fn harm_blob(&mut self, node: NodeId, is_lost: bool) {
        let (place, is_aimed) = (self.chance.number(), self.chance.number().is_multiple_of(2));
        // Only somebody who leads knows who has to have it.
        let lives = self.hosts.values().filter_map(|host| host.live.as_ref());
        let leader = lives.filter(|live| live.node.is_leader()).max_by_key(|live| live.node.term());
        let Some(leader) = leader else { return };
        let electorates = leader.node.configuration().electorates(leader.node.cluster().voters());
        let stays = |blob: &BlobRef| {
            let is_kept = |other: &&NodeId| **other != node && self.hosts[*other].shelves.is_sound(blob);
            electorates.iter().all(|voters| voters.iter().filter(is_kept).count() > voters.len() / 2)
        };
        let all: Vec<_> = self.hosts[&node].shelves.all().into_iter().filter(stays).collect();
        // Now and then one that somebody is about to fetch: what is spoilt is to be found before it is sent. The others are to be
        // found though nobody asks for them.
        let lacks =
            |blob: &BlobRef| self.hosts.values().any(|host| host.live.is_some() && !host.shelves.contains(blob));
        let wanted: Vec<_> = all.iter().copied().filter(lacks).collect();
        let all = if is_aimed && !is_lost && !wanted.is_empty() { wanted } else { all };
        let Some(blob) = self.chance.pick(&all).copied() else { return };
        let Some(host) = self.hosts.get_mut(&node) else { return };
        if is_lost {
            host.shelves.lose(&blob)
        } else {
            host.shelves.spoil(&blob, place)
        }
        self.coverage.note(if is_lost { "blobs lost" } else { "blobs spoilt" });
        self.say(format_args!("n{node}'s disk harms {}", blob.digest.short()));
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
        let Some((shelves, live)) = self.store(node) else { return };
        let is_here = shelves.contains(&blob);
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
        let Ok((receiver, bytes)) = resume(shelves, blob) else { return };
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

    fn fetched(&mut self, node: NodeId, quest: QuestId) {
        let Some((_, live)) = self.store(node) else { return };
        let Some(Quest { blob, waiter, .. }) = live.quests.remove(&quest) else { return };
        if !matches!(waiter, Waiter::Nobody) {
            self.spread(node, blob, waiter);
        }
    }

    /// Pushes a blob of this node to all others; the waiter goes on when a majority has it.
    fn spread(&mut self, node: NodeId, blob: BlobRef, waiter: Waiter) {
        let (others, now) = (self.others(node), self.now);
        let Some((shelves, live)) = self.store(node) else { return };
        shelves.hold(&blob, now);
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

    fn send_put_reply(&mut self, node: NodeId, stream: StreamId, reply: &PutReply) {
        if let Ok(frame) = frame::encode(reply) {
            self.send(stream, Actor::Node(node), frame);
        }
    }

    fn store(&mut self, node: NodeId) -> Option<(&mut Shelves, &mut Live)> {
        let host = self.hosts.get_mut(&node)?;
        Some((&mut host.shelves, host.live.as_mut()?))
    }
}

/// Blobs that a node reads at a time.
const SCRUBBED: usize = 2;
/// How long a blob that nothing refers to is kept; longer than a command is ever under way here.
const GRACE_MS: u64 = 50_000;

/// A receiver that has taken what an earlier attempt left, and its bytes.
fn resume(shelves: &mut Shelves, blob: BlobRef) -> Result<(ChunkReceiver, Vec<u8>)> {
    let mut receiver = ChunkReceiver::new(blob)?;
    let recorded = shelves.partial.entry(blob.digest).or_default();
    let intact = recorded.iter().take_while(|(bytes, digest)| receiver.handle_recorded(bytes, *digest)).count();
    recorded.truncate(intact);
    let bytes = recorded.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
    Ok((receiver, bytes))
}
