//! What sites upload in a day, counted where every coordinator counts it: a site that turns to another node, or waits for a
//! restart, has used what it has used. The leader has bytes counted before it takes them.

use archipelago_common::{Principal, SiteId};
use serde::{Deserialize, Serialize};

use crate::{
    Cluster, Outcome, Refusal,
    mutation::{self, Rule},
    site,
};

/// What a site was granted on the latest day on which it was granted any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Uploads {
    day: u64,
    bytes: u64,
}

impl Cluster {
    /// Bytes that a site was granted today.
    pub fn uploaded_today(&self, site: &SiteId) -> u64 {
        let today = self.now_ms / DAY_MS;
        self.uploads.get(site).filter(|uploads| uploads.day == today).map_or(0, |uploads| uploads.bytes)
    }

    /// Lets a site upload so many bytes more today, if its limit allows.
    pub(crate) fn grant(
        &mut self,
        principal: &Principal,
        site: &SiteId,
        bytes: u64,
        limit: u64,
    ) -> Result<Outcome, Refusal> {
        site::require_coordinator(principal)?;
        self.require_enrolled(site)?;
        let used = self.uploaded_today(site);
        let bytes = used.checked_add(bytes).filter(|bytes| *bytes <= limit).ok_or_else(|| {
            Refusal::conflict(format!(
                "site `{site}` has used {used} of its {limit} bytes (`bytes_per_day`), and asks for {bytes} more; wait, or \
                 have an operator raise it"
            ))
        })?;
        if mutation::is_broken(Rule::DayStays) {
            return Ok(Outcome::Ticked);
        }
        // No more of these than there are sites, which were counted when they were enrolled.
        self.uploads.insert(site.clone(), Uploads { day: self.now_ms / DAY_MS, bytes });
        Ok(Outcome::Ticked)
    }
}

const DAY_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Command};

    #[test]
    fn a_day_has_so_many_bytes_over_restarts_and_the_next_has_as_many() {
        let mut cluster = Cluster::founded();
        let mut number = 0;
        let mut ask = |cluster: &mut Cluster, who: &str, now_ms: u64, body: Body| {
            number += 1;
            cluster.apply(&Command { key: [number; 16], principal: who.parse().unwrap(), now_ms, body }).outcome
        };
        let north: SiteId = "north".parse().unwrap();
        ask(&mut cluster, "operator/anna", 1, Body::AddSite { site: north.clone() }).unwrap();
        let grant = |bytes| Body::Grant { site: north.clone(), bytes, limit: 10 };
        ask(&mut cluster, "coordinator/1", 2, grant(8)).unwrap();
        let mut cluster = Cluster::restore(&cluster.snapshot().unwrap()).unwrap();
        let refused = ask(&mut cluster, "coordinator/2", 3, grant(3)).unwrap_err().to_string();
        assert!(refused.contains("used 8 of its 10 bytes (`bytes_per_day`)"), "{refused}");
        ask(&mut cluster, "coordinator/2", 3, grant(2)).unwrap();
        assert!(ask(&mut cluster, "site/north", 3, grant(0)).is_err(), "sites do not grant themselves anything");
        assert!(ask(&mut cluster, "coordinator/1", 3, grant(u64::MAX)).is_err());
        assert_eq!(cluster.uploaded_today(&north), 10);
        cluster.now_ms = DAY_MS;
        assert_eq!(cluster.uploaded_today(&north), 0);
        ask(&mut cluster, "coordinator/1", DAY_MS, grant(10)).unwrap();
    }
}
