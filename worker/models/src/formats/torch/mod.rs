//! Files written by `torch.save`: a zip archive of one pickle and the bytes of its tensors.
//!
//! Members lie in one folder of any name: `<top>/data.pkl`, `<top>/data/<n>` for the storages, `<top>/version`.
//! Nothing is ever extracted to disk, so names of members cannot lead anywhere.

mod archive;
mod embedded;
mod module;
mod tensor;
mod write;

pub use archive::TorchArchive;
pub use embedded::read_embedded;
pub use module::{attribute, read_module};
pub use tensor::{is_tensor, read_tensor, read_tensors};
pub use write::TorchWriter;
