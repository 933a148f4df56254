//! Frames from whoever calls: none of them ends the reader or takes more memory than its length accounts for.

use std::path::PathBuf;

use archipelago_common::{BlobRef, NodeId, Principal};
use archipelago_fuzz::Fuzz;
use archipelago_protocol::{
    ChunkReceiver, ChunkRecord, CoordinatorSession, SessionConfig, SiteSession,
    frame::{self, Message},
    message::{Chunk, FromCoordinator, GetReply, Hello, PeerReply, PutReply, StreamOpen, ToCoordinator},
    version,
};

/// The golden bytes of every message.
fn target(name: &'static str) -> Fuzz {
    Fuzz::new(name).with_files(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/v1"), ".bin")
}

/// Reads a message; one that is read is written again as it was understood. By bytes: a figure may be NaN.
fn check<M: Message>(frame: &[u8]) {
    if let Ok(message) = frame::decode::<M>(frame) {
        let again = frame::encode(&message).expect("what was read fits into a frame");
        let message: M = frame::decode(&again).expect("what was written is read");
        assert_eq!(frame::encode(&message).expect("it fits again"), again);
    }
}

#[test]
fn any_bytes_are_a_message_or_an_error() {
    target("messages").run(20_000, |frame| {
        check::<StreamOpen>(frame);
        check::<ToCoordinator>(frame);
        check::<FromCoordinator>(frame);
        check::<PutReply>(frame);
        check::<GetReply>(frame);
        check::<PeerReply>(frame);
        check::<Chunk>(frame);
    });
}

#[test]
fn sessions_survive_whatever_the_other_side_sends() {
    let node = |id| NodeId::new(id).unwrap();
    target("sessions").run(10_000, |frame| {
        let site: Principal = "site/north".parse().unwrap();
        let mut hello = Hello { protocol: version::NEWEST, software: "fuzz".to_owned() };
        if let Ok(StreamOpen::Control(sent)) = frame::decode(frame) {
            hello = sent;
        }
        if let Ok(mut session) = CoordinatorSession::open(site, &hello, node(1), Some(node(1))) {
            let _ = session.handle_frame(frame);
            while session.poll_frame().is_some() {}
        }
        let config = SessionConfig::new([node(1), node(2)].into(), "fuzz");
        let mut session = SiteSession::new(config, [7; 32], 0);
        while session.poll_output().is_some() {}
        for now_ms in [1, 2] {
            let _ = session.handle_frame(now_ms, frame);
            while session.poll_output().is_some() {}
        }
    });
}

#[test]
fn a_transfer_survives_any_chunk_and_any_record() {
    let bytes = b"columns of a condition".repeat(100);
    let blob = BlobRef::of(&bytes);
    let good =
        frame::encode(&Chunk { chunk_idx: 0, digest: archipelago_common::Digest::of(&bytes), bytes: bytes.into() });
    target("transfers").with(good.unwrap()).with(ChunkRecord::header(blob)).run(10_000, |input| {
        let _ = ChunkRecord::parse(blob, input);
        let mut receiver = ChunkReceiver::new(blob).unwrap();
        if let Ok(chunk) = frame::decode::<Chunk>(input)
            && receiver.handle_chunk(&chunk).is_ok()
            && receiver.is_complete()
        {
            let _ = receiver.finish();
        }
    });
}
