//! The walk that keeps a file from reaching out of itself.
//!
//! An external link names another file, which a hostile h5ad could use to make a site read (and map, and publish) what
//! it did not mean to. External links are refused wherever they stand, before anything is read. A soft link names a path
//! in the same file; once no external link exists it cannot lead out, so it is refused only when it leads nowhere.

use hdf5::{File, Group, IndexType, IterationOrder, LinkType, LocationType};

use super::{dataset, failed_at};
use crate::{Error, Result};

/// More objects than any real file has; a bound for the walk, also where links run in a circle.
const MAX_OBJECTS: usize = 1 << 20;

/// More groups with several names than any real file has, where most have none. Each new one is compared with all of them.
const MAX_SHARED: usize = 1 << 12;

/// Refuses external links, dangling soft links and absurd numbers of objects. Gives the bytes of the largest chunk of any
/// dataset.
pub(crate) fn check(file: &File) -> Result<usize> {
    let (mut n_objects, mut largest_chunk) = (0, 0);
    let mut soft = Vec::new();
    // Groups that more than one hard link leads to are entered once.
    let mut shared = Vec::new();
    let mut pending = vec![super::group(file, "/")?];
    while let Some(group) = pending.pop() {
        for (name, link) in members(&group)? {
            n_objects += 1;
            if n_objects > MAX_OBJECTS {
                return Err(refused(&group, &name, "is beyond the number of objects that a file may have"));
            }
            match link {
                LinkType::External => return Err(refused(&group, &name, "is a link to another file")),
                LinkType::Soft => soft.push((group.clone(), name)),
                LinkType::Hard => {
                    let info =
                        group.loc_info_by_name(&name).map_err(|source| failed_at("open", &group, &name, source))?;
                    if info.loc_type == LocationType::Dataset {
                        // One that cannot be opened is refused when it is read, with its name.
                        let bytes = group.dataset(&name).map_or(0, |dataset| dataset::chunk_bytes(&dataset));
                        largest_chunk = largest_chunk.max(bytes);
                    }
                    if info.loc_type != LocationType::Group || shared.contains(&info.token) {
                        continue;
                    }
                    if info.num_links > 1 {
                        if shared.len() == MAX_SHARED {
                            return Err(refused(
                                &group,
                                &name,
                                "is beyond the number of groups that may have two names",
                            ));
                        }
                        shared.push(info.token);
                    }
                    pending.push(super::group(&group, &name)?);
                }
            }
        }
    }
    match soft.iter().find(|(group, name)| group.loc_info_by_name(name).is_err()) {
        Some((group, name)) => Err(refused(group, name, "is a soft link that leads to nothing in this file")),
        None => Ok(largest_chunk),
    }
}

fn members(group: &Group) -> Result<Vec<(String, LinkType)>> {
    let mut members = Vec::new();
    group
        .iter_visit(IndexType::Name, IterationOrder::Native, |name, info| {
            members.push((name.to_owned(), info.link_type));
            Ok(())
        })
        .map_err(|source| super::failed("list", group, source))?;
    Ok(members)
}

fn refused(group: &Group, name: &str, detail: &'static str) -> Error {
    let object = format!("{}/{name}", group.name().trim_end_matches('/'));
    Error::LeavesFile { path: group.filename().into(), object, detail }
}
