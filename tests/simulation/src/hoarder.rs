//! A site that uploads and uploads, for no reason: it is stopped by what it may upload in a day.

use std::sync::Arc;

use crate::{
    peer::{Act, Heard, View},
    training,
};

/// Uploads one thing after another.
#[derive(Default)]
pub(crate) struct Hoarder;

impl Hoarder {
    pub(crate) fn hear(&mut self, view: &mut View<'_>, heard: Heard) -> Vec<Act> {
        match heard {
            Heard::Time if !view.is_calm => {
                let bytes: Arc<[u8]> = view.chance.seed().repeat(REPEATED).into();
                let (blob, bytes) = training::named(bytes);
                vec![Act::Upload(blob, bytes)]
            }
            Heard::Started | Heard::Uploaded(_, Ok(())) => vec![Act::Wake(view.chance.within(100..1_500))],
            Heard::Uploaded(_, Err(())) => vec![Act::Wake(view.chance.within(500..3_000))],
            Heard::Time | Heard::TasksChanged | Heard::Answer(..) => Vec::new(),
        }
    }
}

/// Each of its blobs is so many times 32 bytes.
const REPEATED: usize = 1_000;
