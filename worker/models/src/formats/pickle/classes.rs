//! The one list of classes and functions that a pickle may name.
//!
//! Nothing on it is ever run. What is not on it is refused all the same: a file that names `os.system` is not a saved
//! model, whoever reads it next.

/// Whether saved models need this class or function.
pub(super) fn is_known(class: &str) -> bool {
    KNOWN.contains(&class) || OPAQUE.iter().any(|prefix| class.starts_with(prefix))
}

/// Names with a meaning here, or plain containers.
const KNOWN: &[&str] = &[
    "_operator.getitem",
    "_codecs.encode",
    "__builtin__.bytearray",
    "__builtin__.bytes",
    "__builtin__.dict",
    "__builtin__.frozenset",
    "__builtin__.int",
    "__builtin__.list",
    "__builtin__.long",
    "__builtin__.object",
    "__builtin__.set",
    "__builtin__.slice",
    "__builtin__.xrange",
    "__builtin__.str",
    "__builtin__.type",
    "builtins.bytearray",
    "builtins.bytes",
    "builtins.dict",
    "builtins.frozenset",
    "builtins.int",
    "builtins.list",
    "builtins.object",
    "builtins.range",
    "builtins.set",
    "builtins.slice",
    "builtins.str",
    "builtins.type",
    "collections.OrderedDict",
    "collections.defaultdict",
    "copy_reg._reconstructor",
    "copyreg._reconstructor",
    "inspect._empty",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pandas.DataFrame",
    "pandas.Index",
    "pandas.RangeIndex",
    "pandas.StringDtype",
    "pandas.arrays.StringArray",
    "torch.BFloat16Storage",
    "torch.BoolStorage",
    "torch.ByteStorage",
    "torch.CharStorage",
    "torch.DoubleStorage",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.IntStorage",
    "torch.LongStorage",
    "torch.ShortStorage",
    "torch.Size",
    "torch.Tensor",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.device",
    "torch.storage._load_from_bytes",
    "torch.tensor",
];

/// Families whose objects are carried along as data: the training history, trees of cell types with their classifiers, networks
/// that were pickled whole (with the signatures of their functions, as types).
const OPAQUE: &[&str] = &[
    "faiss.",
    "newick.",
    "pandas._libs.",
    "pandas.core.",
    "pandas.indexes.",
    "scHPL.",
    "scarches.models.",
    "sklearn.",
    "torch.nn.modules.",
    "torch_geometric.",
    "typing.",
];
