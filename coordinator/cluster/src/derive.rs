//! Values derived from a version: what is taken, so that everybody who has the version has the same one.
//!
//! The function is named on the reference's card. Where the leader knows it, it has computed the result itself before this
//! command came; where only those know it who use it, the first one handed in stands, and another one shows that somebody is wrong.

use archipelago_common::{BlobRef, Name, Principal, Role, VersionId, limits, record::Why};

use crate::{Cluster, Outcome, Refusal, growth, site};

impl Cluster {
    pub(crate) fn derive(
        &mut self,
        principal: &Principal,
        name: &Name,
        version: VersionId,
        value: &Name,
        result: BlobRef,
    ) -> Result<Outcome, Refusal> {
        let by = match principal {
            Principal::Site(_) => self.require_site(principal)?.name(),
            _ => site::require_role(principal, Role::Publisher)?,
        };
        let layout = self.require_layout(name)?;
        let Some(derivation) = layout.derived.get(value) else {
            return Err(Refusal::invalid(format!("no value `{value}` is derived from reference `{name}`")));
        };
        let reference = self.require_reference(name)?;
        if version != reference.current() {
            let reason = format!("version `{}` is not, or no longer, the current one of `{name}`", version.0.short());
            return Err(Refusal::stale(reason));
        }
        match reference.derived(value) {
            Some(there) if there == result => return Ok(Outcome::Reference { name: name.clone(), version }),
            Some(there) => {
                return Err(Refusal::conflict(format!(
                    "`{value}` of version `{}` is `{}` already; one of the two was not computed by `{}`",
                    version.0.short(),
                    there.digest.short(),
                    derivation.function
                )));
            }
            None => {}
        }
        if result.size > limits::PART_BYTES {
            let (found, limit) = (result.size, limits::PART_BYTES);
            return Err(Refusal::invalid(format!("`{value}` has {found} bytes, more than the limit of {limit}")));
        }
        site::require_room("changes of the reference", reference.changes().len(), limits::LINEAGE)?;
        let function = derivation.function.clone();
        let why = Why::Derived { by: by.clone(), value: value.clone(), function, result };
        let n_bytes = growth::bytes_of(&why);
        self.require_growth(n_bytes)?;
        self.index.merged([&result].into_iter());
        let now_ms = self.now_ms;
        let version = self.reference_mut(name).derive(why, now_ms);
        self.grew(n_bytes);
        Ok(Outcome::Reference { name: name.clone(), version })
    }
}
