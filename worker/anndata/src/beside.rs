//! What a file holds beside a data set, and goes with it wherever the data set is written.

use std::{collections::BTreeMap, fmt, fs::File, io::Read as _};

use hdf5::Group;

use crate::{Error, Kept, Result, h5};

/// Modalities, attributes, and whatever else nobody here understands, copied object by object and never read.
///
/// A data set that was made in memory has nothing beside it.
#[derive(Clone, Default)]
pub struct Beside {
    /// The group that the data set was read from.
    root: Option<Group>,
    /// Members of the group that are no part of a data set.
    members: Vec<String>,
    /// Matrices whose values are of a type that is not known here, and members of `obs` and `var` that are no columns, by their group
    /// and name.
    kept: BTreeMap<(&'static str, String), Kept>,
}

impl fmt::Debug for Beside {
    /// What is beside a data set, not which file it is in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (members, kept) = (&self.members, &self.kept);
        f.debug_struct("Beside").field("members", members).field("kept", kept).finish_non_exhaustive()
    }
}

impl PartialEq for Beside {
    /// By names: what is not understood cannot be compared.
    fn eq(&self, other: &Self) -> bool {
        self.members == other.members && self.kept.keys().eq(other.kept.keys())
    }
}

impl Beside {
    /// What stands in a group beside the data set there.
    pub(crate) fn of(root: &Group) -> Result<Self> {
        let members = h5::names(root)?.into_iter().filter(|name| !PARTS.contains(&name.as_str())).collect();
        Ok(Self { root: Some(root.clone()), members, kept: BTreeMap::new() })
    }

    /// Keeps a member of `layers`, `obsp`, `varp`, `obs` or `var` as it is.
    pub(crate) fn keep(&mut self, group: &'static str, name: &str, member: Kept) {
        self.kept.insert((group, name.to_owned()), member);
    }

    /// Names of the members of the file that are no part of a data set.
    pub fn members(&self) -> &[String] {
        &self.members
    }

    /// Names of the modalities of an h5mu file whose joint annotations the data set is.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn modalities(&self) -> Result<Vec<String>> {
        match &self.root {
            Some(root) if self.members.iter().any(|name| name == MODALITIES) => {
                h5::names(&h5::group(root, MODALITIES)?)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The same with what belongs to these of `n_obs` cells.
    pub(crate) fn select_obs(&self, rows: &[usize], n_obs: usize) -> Self {
        self.select(|group, member| match group {
            "layers" => member.select_rows(rows),
            "obs" => of_rows(member, rows, n_obs),
            "obsp" => None,
            _ => Some(member.clone()),
        })
    }

    /// The same with what belongs to these of `n_vars` genes; of a matrix the columns are not known.
    pub(crate) fn select_vars(&self, cols: &[usize], n_vars: usize) -> Self {
        self.select(|group, member| match group {
            "layers" | "varp" => None,
            "var" => of_rows(member, cols, n_vars),
            _ => Some(member.clone()),
        })
    }

    /// The same for another set of genes: without what belongs to the old one.
    #[must_use]
    pub fn without_genes(&self) -> Self {
        self.select(|group, member| (!["layers", "varp", "var"].contains(&group)).then(|| member.clone()))
    }

    fn select(&self, select: impl Fn(&str, &Kept) -> Option<Kept>) -> Self {
        let mut selected = Self { kept: BTreeMap::new(), ..self.clone() };
        for ((group, name), member) in &self.kept {
            match select(group, member) {
                Some(member) => drop(selected.kept.insert((group, name.clone()), member)),
                None => left_out(group, name),
            }
        }
        selected
    }

    /// Whether these rows (or columns) of `n` are all of them, where modalities need them to be.
    ///
    /// # Errors
    /// [`Error::Modalities`]
    pub(crate) fn check_choice(&self, chosen: &[usize], n: usize) -> Result<()> {
        match self.modalities()? {
            modalities if modalities.is_empty() || chosen.iter().copied().eq(0..n) => Ok(()),
            modalities => Err(self.refuse(modalities)),
        }
    }

    /// Refuses modalities, where nothing can be done with them.
    ///
    /// # Errors
    /// [`Error::Modalities`]
    pub(crate) fn refuse_modalities(&self) -> Result<()> {
        match self.modalities()? {
            modalities if modalities.is_empty() => Ok(()),
            modalities => Err(self.refuse(modalities)),
        }
    }

    fn refuse(&self, modalities: Vec<String>) -> Error {
        let path = self.root.as_ref().map(|root| root.filename().into()).unwrap_or_default();
        Error::Modalities { path, modalities }
    }

    /// Whether the cells and genes are those that the modalities were joined for.
    ///
    /// # Errors
    /// [`Error::Modalities`] where modalities would no longer fit.
    pub(crate) fn check(&self, obs_names: &[String], var_names: &[String]) -> Result<()> {
        let (Some(root), modalities) = (&self.root, self.modalities()?) else { return Ok(()) };
        if modalities.is_empty() {
            return Ok(());
        }
        let (obs, var, _) = crate::read::annotations(root)?;
        match obs.index() == obs_names && var.index() == var_names {
            true => Ok(()),
            false => Err(self.refuse(modalities)),
        }
    }

    /// Copies the attributes of the data set's group to where the data set is written.
    pub(crate) fn copy_root_attributes(&self, to: &Group) -> Result<()> {
        self.root.as_ref().map_or(Ok(()), |root| h5::raw::copy_attributes(root, to, &[]))
    }

    /// Copies what the attributes of its frames say beside names and order.
    pub(crate) fn copy_frame_attributes(&self, to: &Group) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        for frame in ["obs", "var"] {
            if to.link_exists(frame) && h5::is_group(root, frame)? {
                let (from, to) = (h5::group(root, frame)?, h5::group(to, frame)?);
                h5::raw::copy_attributes(&from, &to, &[])?;
            }
        }
        Ok(())
    }

    /// Copies the members of the file that are no part of a data set.
    pub(crate) fn copy_members(&self, to: &Group) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        self.members.iter().try_for_each(|name| h5::raw::copy(root, name, to, name))
    }

    /// Writes what is kept of one group into it, but for what was replaced since.
    pub(crate) fn write_kept(&self, group: &str, to: &Group) -> Result<()> {
        let of_group = self.kept.iter().filter(|((of, name), _)| *of == group && !to.link_exists(name));
        of_group.into_iter().try_for_each(|((_, name), member)| member.write(to, name))
    }

    /// The bytes before the file proper, by which muon knows its own files; empty in most files.
    pub(crate) fn user_block(&self) -> Vec<u8> {
        let Some(root) = &self.root else { return Vec::new() };
        let size = root.file().map_or(0, |file| file.userblock()).min(LARGEST_BLOCK);
        let mut block = Vec::new();
        let read = File::open(root.filename()).and_then(|file| file.take(size).read_to_end(&mut block));
        if read.is_ok_and(|n| n as u64 == size) { block } else { Vec::new() }
    }
}

/// The part of a frame's member that belongs to these of its `n` rows; one that has no such rows belongs to the frame.
fn of_rows(member: &Kept, rows: &[usize], n: usize) -> Option<Kept> {
    if member.n_rows() == Some(n) { member.select_rows(rows) } else { Some(member.clone()) }
}

/// Says that something cannot follow a choice of rows or columns.
pub(crate) fn left_out(group: &str, name: &str) {
    tracing::warn!(
        "`{group}/{name}` is left out: nobody here knows which part of it belongs to the chosen cells or genes"
    );
}

/// The group of an h5mu file that holds the modalities.
pub(crate) const MODALITIES: &str = "mod";
/// Parts of a data set, now and before anndata 0.7.
const PARTS: [&str; 13] =
    ["X", "layers", "obs", "obsm", "obsp", "raw", "raw.X", "raw.var", "raw.varm", "uns", "var", "varm", "varp"];
/// No program writes more before the file proper.
const LARGEST_BLOCK: u64 = 1 << 20;
