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
    /// Matrices whose values are of a type that is not known here, by their group and name.
    matrices: BTreeMap<(&'static str, String), Kept>,
}

impl fmt::Debug for Beside {
    /// What is beside a data set, not which file it is in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (members, matrices) = (&self.members, &self.matrices);
        f.debug_struct("Beside").field("members", members).field("matrices", matrices).finish_non_exhaustive()
    }
}

impl PartialEq for Beside {
    /// By names: what is not understood cannot be compared.
    fn eq(&self, other: &Self) -> bool {
        self.members == other.members && self.matrices.keys().eq(other.matrices.keys())
    }
}

impl Beside {
    /// What stands in a group beside the data set there.
    pub(crate) fn of(root: &Group) -> Result<Self> {
        let members = h5::names(root)?.into_iter().filter(|name| !PARTS.contains(&name.as_str())).collect();
        Ok(Self { root: Some(root.clone()), members, matrices: BTreeMap::new() })
    }

    /// Keeps a matrix of `layers`, `obsp` or `varp` as it is.
    pub(crate) fn keep(&mut self, group: &'static str, name: &str, matrix: Kept) {
        self.matrices.insert((group, name.to_owned()), matrix);
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

    /// The same with the matrices of these rows: those that have rows.
    pub(crate) fn select_obs(&self, rows: &[usize]) -> Self {
        self.select("layers", "obsp", |matrix| matrix.select_rows(rows))
    }

    /// The same without the matrices that have genes: their columns are not known.
    pub(crate) fn select_vars(&self) -> Self {
        self.select("layers", "varp", |_| None)
    }

    /// The same for another set of genes: without the matrices of the old one.
    #[must_use]
    pub fn without_genes(&self) -> Self {
        self.select_vars()
    }

    fn select(&self, along: &str, pairs: &str, select: impl Fn(&Kept) -> Option<Kept>) -> Self {
        let mut selected = Self { matrices: BTreeMap::new(), ..self.clone() };
        for ((group, name), matrix) in &self.matrices {
            let kept = match *group {
                group if group == along => select(matrix),
                group if group == pairs => None,
                _ => Some(matrix.clone()),
            };
            match kept {
                Some(matrix) => drop(selected.matrices.insert((group, name.clone()), matrix)),
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

    /// Writes the matrices that are kept of one group into it.
    pub(crate) fn write_matrices(&self, group: &str, to: &Group) -> Result<()> {
        let of_group = self.matrices.iter().filter(|((of, _), _)| *of == group);
        of_group.into_iter().try_for_each(|((_, name), matrix)| matrix.write(to, name))
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
