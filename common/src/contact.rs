//! Which sites are heard: what the leading coordinator sees itself, and no state.

use serde::{Deserialize, Serialize};

use crate::id::SiteId;

/// What a coordinator has heard of a site since it leads or longer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SiteContact {
    /// The site.
    pub site: SiteId,
    /// Whether it has a session now.
    pub is_online: bool,
    /// Since when it has one without a break, or when it last began one; the coordinator's clock, Unix milliseconds.
    pub since_ms: u64,
    /// When it last said anything.
    pub last_ms: u64,
}
