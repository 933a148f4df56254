//! Uploads: their bytes are counted, they come in chunk by chunk, and are fsynced.

use archipelago_cluster::Body;
use archipelago_common::{BlobRef, NodeId, Principal, SiteId, limits};
use archipelago_coordinator::{
    error::{self, Error},
    quota::Transfer,
    server::{course, refusal},
};
use archipelago_protocol::{
    frame,
    message::{Chunk, PutReply, Refusal, Reply},
};

use crate::{
    blobs::Waiter,
    host::{Caller, CourseId, Served},
    network::{Actor, StreamId},
    world::{Happening, World},
};

/// An upload that has been asked for.
pub(crate) struct Upload {
    stream: StreamId,
    who: Principal,
    blob: BlobRef,
    counted: Transfer,
}

/// Bytes that an upload waits for.
pub(crate) struct Grant {
    upload: Upload,
    /// Of the blob, still to come.
    left: u64,
    needed: u64,
    asked: u64,
}

impl World {
    /// Begins to serve an upload.
    pub(crate) fn serve_put(&mut self, node: NodeId, stream: StreamId, who: Principal, blob: BlobRef) {
        let is_here = self.hold(node, blob);
        let Some((_, live)) = self.store(node) else { return };
        if is_here {
            live.served.insert(stream, Served::Spreading);
            let from_chunk = blob.n_chunks();
            self.send_put_reply(node, stream, &PutReply::Send { from_chunk });
            return self.received(node, stream, &who, blob);
        }
        match live.quotas.transfer(&who) {
            Ok(counted) => self.count_bytes(node, Upload { stream, who, blob, counted }),
            Err(refusal) => self.send_put_reply(node, stream, &PutReply::Refused(refusal)),
        }
    }

    /// Has the bytes of an upload counted by all coordinators before they come, as `server::transfer` does.
    fn count_bytes(&mut self, node: NodeId, upload: Upload) {
        let Some((shelves, live)) = self.store(node) else { return };
        let Ok((receiver, _)) = shelves.resume(upload.blob) else { return };
        let left = upload.blob.size.saturating_sub(receiver.next_chunk().saturating_mul(limits::CHUNK_BYTES));
        // Only what sites upload is counted.
        match upload.counted.lacking(left).filter(|_| upload.counted.site().is_some()) {
            None => self.receive(node, upload, left),
            Some(_) if !live.node.is_leader() => {
                let refusal = Refusal::NotLeader { leader: live.leader };
                self.send_put_reply(node, upload.stream, &PutReply::Refused(refusal));
            }
            Some((needed, lot)) => self.ask_for_bytes(node, Grant { upload, left, needed, asked: lot }),
        }
    }

    fn ask_for_bytes(&mut self, node: NodeId, grant: Grant) {
        let Some(site) = grant.upload.counted.site().cloned() else { return };
        let key = self.draw_key();
        let Some(live) = self.live(node) else { return };
        let course = live.begin(Caller::Upload);
        let body = Body::Grant { site, bytes: grant.asked, limit: DAY_BYTES };
        live.grants.insert(course, grant);
        self.follow(node, course, course::begin_own(node, key, body));
    }

    /// The coordinators have granted a site's bytes, or not.
    pub(crate) fn granted(&mut self, node: NodeId, course: CourseId, result: Result<Reply, Refusal>) {
        let Some(grant) = self.live(node).and_then(|live| live.grants.remove(&course)) else { return };
        let Grant { upload, left, needed, asked } = grant;
        match result {
            Ok(_) => {
                upload.counted.granted(asked);
                self.receive(node, upload, left);
            }
            // What is left of the day may be less than a lot, and enough.
            Err(Refusal::Conflict { .. }) if asked > needed => {
                self.ask_for_bytes(node, Grant { upload, left, needed, asked: needed });
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::Conflict { .. }) {
                    self.coverage.note("uploads refused for the day");
                }
                self.send_put_reply(node, upload.stream, &PutReply::Refused(refusal));
            }
        }
    }

    /// Takes in what is left of an upload.
    fn receive(&mut self, node: NodeId, Upload { stream, who, blob, mut counted }: Upload, left: u64) {
        let Some((shelves, live)) = self.store(node) else { return };
        // The stream may have broken meanwhile.
        if !live.served.contains_key(&stream) {
            return;
        }
        if !live.receiving.insert(blob) {
            return self.send_put_reply(node, stream, &PutReply::Refused(refusal::of(&Error::BlobBusy { blob })));
        }
        counted.take(left);
        let Ok((receiver, bytes)) = shelves.resume(blob) else { return };
        let from_chunk = receiver.next_chunk();
        let is_complete = receiver.is_complete();
        let receiver = Some(Box::new(receiver));
        live.served.insert(stream, Served::Receiving { who, receiver, bytes, counted });
        self.coverage.add("chunks spared by a resumed upload", from_chunk);
        self.send_put_reply(node, stream, &PutReply::Send { from_chunk });
        if is_complete {
            self.store_soon(node, stream);
        }
    }

    /// A chunk of an upload.
    pub(crate) fn take_chunk(&mut self, node: NodeId, stream: StreamId, bytes: &[u8]) -> error::Result<()> {
        let chunk: Chunk = frame::decode(bytes)?;
        let Some((shelves, live)) = self.store(node) else { return Ok(()) };
        let mut from = None;
        let (receiver, whole) = match live.served.get_mut(&stream) {
            Some(Served::Receiving { who, receiver: Some(receiver), bytes, counted }) => {
                counted.uploaded(chunk.bytes.len() as u64);
                from = Some(who.clone());
                (receiver, bytes)
            }
            Some(Served::Fetching { receiver, bytes, .. }) => (receiver, bytes),
            _ => return Ok(()),
        };
        receiver.handle_chunk(&chunk)?;
        shelves.record(&receiver.blob(), &chunk);
        whole.extend_from_slice(&chunk.bytes);
        let is_complete = receiver.is_complete();
        if let Some(Principal::Site(site)) = from {
            self.check_day(&site, chunk.bytes.len() as u64);
        }
        if is_complete {
            self.store_soon(node, stream);
        }
        Ok(())
    }

    /// All chunks are there; the fsync takes its time.
    pub(crate) fn store_soon(&mut self, node: NodeId, stream: StreamId) {
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
        if !shelves.keep(blob, bytes, now) {
            // Peers send what they have, and disks are spoilt; but what is spoilt is not sent.
            return self.fail(format!("spoilt blobs: n{node} was sent something else for {}", blob.digest.short()));
        }
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

    /// Quotas: a site uploads no more in a day than it may, whoever takes it in and whatever restarts.
    fn check_day(&mut self, site: &SiteId, bytes: u64) {
        self.coverage.note("checked: quotas");
        let uploaded = self.watch.uploaded(site, bytes);
        // Where the only clock jumps by a day, the next day begins.
        let limit = DAY_BYTES * self.watch.n_days();
        if uploaded > limit {
            self.fail(format!("quotas: `{site}` has uploaded {uploaded} of its {limit} bytes"));
        }
    }

    /// A coordinator is told that a blob is durable here, anybody else that it is on a majority.
    fn received(&mut self, node: NodeId, stream: StreamId, who: &Principal, blob: BlobRef) {
        match who {
            Principal::Coordinator(_) => self.send_put_reply(node, stream, &PutReply::Durable),
            _ => self.spread(node, blob, Waiter::Put(stream)),
        }
    }
}

/// Bytes that a site may upload in a day: several times what work takes, and less than the one asks for that uploads for no
/// reason.
pub(crate) const DAY_BYTES: u64 = 400_000;
