//! What the log is told of attempts in vain: what is new at once, the same again once a minute.

use std::{collections::BTreeMap, time::Duration};

use archipelago_common::NodeId;
use tokio::time::Instant;

/// What was said last of each coordinator, and when.
#[derive(Default)]
pub(crate) struct Told(BTreeMap<NodeId, (String, Instant)>);

impl Told {
    /// Whether this is worth a line now.
    pub(crate) fn is_news(&mut self, node: NodeId, said: &str, now: Instant) -> bool {
        if let Some((last, at)) = self.0.get(&node)
            && last == said
            && now.duration_since(*at) < AGAIN
        {
            return false;
        }
        self.0.insert(node, (said.to_owned(), now));
        true
    }

    /// A session stands: whatever is in vain from now on is new.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

/// How often the same is said again.
const AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_and_news_at_once() {
        let (mut told, one, two) = (Told::default(), NodeId::new(1).unwrap(), NodeId::new(2).unwrap());
        let begun = Instant::now();
        let after = |s| begun + Duration::from_secs(s);
        let mut says = |node, said, s| told.is_news(node, said, after(s));
        assert!(says(one, "refused", 0) && says(two, "refused", 0));
        assert!(!says(one, "refused", 1) && !says(one, "refused", 59));
        assert!(says(one, "refused", 60) && !says(one, "refused", 61));
        assert!(says(one, "silent", 62) && says(one, "refused", 63));
        told.forget();
        assert!(told.is_news(one, "refused", after(64)));
    }
}
