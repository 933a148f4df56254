//! Networks in the files of SageNet.
//!
//! Upstream pickles each network whole, with the classes of PyTorch and of its geometric extension, whose attributes change from release
//! to release. That is read as data. What is written for it is a dict instead, which PyTorch opens in its restricted mode: the arguments
//! of upstream's `Classifier`, and the tensors that its network then loads.

use std::path::Path;

use archipelago_common::StateDict;
use serde_json::json;

use super::{Classifier, GeneGraph, Network, SagenetConfig, network::n_classes};
use crate::{
    error::{Error, Result},
    formats::{
        archive::SavedArchive,
        pickle::{Scalar, Value},
        torch::{TorchArchive, attribute, read_module},
    },
    options,
};

/// A network as a file holds it.
#[derive(Clone, PartialEq, Debug)]
pub struct SavedNetwork {
    /// Its kind and sizes; what says how to train it is the default.
    pub config: SagenetConfig,
    /// Genes that it takes.
    pub n_genes: usize,
    /// Its tensors, by upstream's names.
    pub tensors: StateDict,
}

impl SavedNetwork {
    /// Reads a file of either kind.
    ///
    /// # Errors  [`Error::Import`] for something else, [`Error::Pickle`] for a pickle that asks for more than a network needs,
    /// [`Error::Config`] for sizes out of range
    pub fn read(path: &Path) -> Result<Self> {
        let read = match path.extension().is_some_and(|extension| extension == PICKLE) {
            true => Self::of_module(path)?,
            false => Self::of_dict(path)?,
        };
        SagenetConfig::parse(&options::to_config(&read.config))?;
        Ok(read)
    }

    /// Writes the dict that upstream's `Classifier` is made from.
    ///
    /// # Errors  [`Error::Common`] if it cannot be written, tensors without a last layer
    pub fn write(&self, path: &Path) -> Result<()> {
        let config = &self.config;
        // Graph networks of upstream's hand the two rates on in the wrong order, so they come in that order.
        let (dropout_gnn, dropout_fc) = match config.classifier {
            Classifier::Mlp => (config.dropout_gnn, config.dropout_fc),
            _ => (config.dropout_fc, config.dropout_gnn),
        };
        let arguments = json!({
            "n_features": self.n_genes,
            "n_classes": n_classes(&self.tensors)?,
            "n_hidden_GNN": config.graph_layers(),
            "n_hidden_FC": config.n_hidden_fc,
            "K": config.k,
            "dropout_GNN": dropout_gnn,
            "dropout_FC": dropout_fc,
            "classifier": config.classifier.upstream(),
        });
        let values = [(ARGUMENTS.to_owned(), arguments)].into();
        SavedArchive { tensors: self.tensors.clone(), values }.write_file(path)
    }

    /// The network over a graph of its genes.
    ///
    /// # Errors  tensors that do not fit its kind and sizes, or that no such network has
    pub fn network(&self, pairs: &[(u32, u32)]) -> Result<Network> {
        let network = Network::stored(&self.config, GeneGraph::new(self.n_genes, pairs)?, &self.tensors)?;
        let known = network.state();
        match self.tensors.iter().find(|(name, _)| known.get(name).is_none()) {
            None => Ok(network),
            Some((name, tensor)) => {
                let expected = format!("no such tensor in a network of {}", self.config.classifier.upstream());
                Err(Error::TensorShape { name: name.to_owned(), found: format!("{:?}", tensor.shape()), expected })
            }
        }
    }

    /// A module that was pickled whole.
    fn of_module(path: &Path) -> Result<Self> {
        let mut archive = TorchArchive::open(path)?;
        let pickle = archive.pickle()?;
        let root = pickle.root();
        let class = root.call().map_or(root.kind(), |call| call.class);
        let Some(name) = class.strip_prefix(MODULE) else {
            return Err(archive.refuse(format!("it holds {class}, expected a network of {MODULE}")));
        };
        let classifier = of_class(name).map_err(|detail| archive.refuse(detail))?;
        let tensors = read_module(&mut archive, root)?;
        let facts = Facts { get: &|name| attribute(root, name), refuse: &|detail| archive.refuse(detail) };
        let config = SagenetConfig {
            n_hidden_gnn: facts.sizes("n_hidden_GNN")?,
            n_hidden_fc: facts.sizes("n_hidden_FC")?,
            dropout_gnn: facts.number("dropout_GNN")?,
            dropout_fc: facts.number("dropout_FC")?,
            k: n_terms(&tensors).unwrap_or(SagenetConfig::default().k),
            classifier,
            ..SagenetConfig::default()
        };
        Ok(Self { config: with_layers(config), n_genes: facts.number("n_features")? as usize, tensors })
    }

    /// The dict that [`Self::write`] writes.
    fn of_dict(path: &Path) -> Result<Self> {
        let refuse = |detail: &str| Error::Import { file: path.to_owned(), detail: detail.to_owned() };
        let saved = SavedArchive::of(path)?;
        let saved = saved.ok_or_else(|| refuse("it holds no dict with `state_dict`, as `space export` writes one"))?;
        let arguments = saved.values.get(ARGUMENTS).ok_or_else(|| refuse("its dict has no `arguments`"))?;
        let missing = |name: &str| refuse(&format!("`{name}` is missing among its `arguments`, or of another type"));
        let sizes = |name: &str| -> Result<Vec<usize>> {
            serde_json::from_value(arguments[name].clone()).map_err(|_| missing(name))
        };
        let number = |name: &str| arguments[name].as_f64().ok_or_else(|| missing(name));
        let kind = arguments["classifier"].as_str().ok_or_else(|| missing("classifier"))?;
        let classifier = Classifier::of_upstream(kind).map_err(|detail| refuse(&detail))?;
        let (gnn, fc) = (number("dropout_GNN")?, number("dropout_FC")?);
        let (dropout_gnn, dropout_fc) = if classifier == Classifier::Mlp { (gnn, fc) } else { (fc, gnn) };
        let config = SagenetConfig {
            n_hidden_gnn: sizes("n_hidden_GNN")?,
            n_hidden_fc: sizes("n_hidden_FC")?,
            k: number("K")? as usize,
            classifier,
            dropout_gnn,
            dropout_fc,
            ..SagenetConfig::default()
        };
        Ok(Self { config: with_layers(config), n_genes: number("n_features")? as usize, tensors: saved.tensors })
    }
}

/// Attributes of a pickled network.
struct Facts<'a> {
    get: &'a dyn Fn(&str) -> Option<Value<'a>>,
    refuse: &'a dyn Fn(String) -> Error,
}

impl Facts<'_> {
    fn number(&self, name: &str) -> Result<f64> {
        let found = (self.get)(name).and_then(Value::scalar);
        number(found).ok_or_else(|| (self.refuse)(format!("its `{name}` is no number of 0 or more")))
    }

    fn sizes(&self, name: &str) -> Result<Vec<usize>> {
        let size = |size: Scalar| number(Some(size)).map(|size| size as usize);
        let found = (self.get)(name).and_then(Value::scalars);
        let found = found.and_then(|all| all.into_iter().map(size).collect::<Option<Vec<_>>>());
        found.ok_or_else(|| (self.refuse)(format!("its `{name}` is no list of sizes")))
    }
}

fn number(scalar: Option<Scalar>) -> Option<f64> {
    let value = match scalar? {
        Scalar::Int(value) => value as f64,
        Scalar::Float(value) => value,
        _ => return None,
    };
    (0.0..f64::from(u32::MAX)).contains(&value).then_some(value)
}

/// A network without graph layers has the option's default, which it does not use.
fn with_layers(config: SagenetConfig) -> SagenetConfig {
    match config.classifier {
        Classifier::Mlp => SagenetConfig { n_hidden_gnn: SagenetConfig::default().n_hidden_gnn, ..config },
        _ => config,
    }
}

/// Terms of a layer of Chebyshev polynomials, which has a map for each.
fn n_terms(tensors: &StateDict) -> Option<usize> {
    let n = (0..).take_while(|term| tensors.get(&format!("layers_GNN.0.lins.{term}.weight")).is_some()).count();
    (n > 0).then_some(n)
}

/// The kind of graph layer that a class of upstream's has.
fn of_class(name: &str) -> std::result::Result<Classifier, String> {
    let option = CLASSES.iter().find(|(class, _)| *class == name).map_or(name, |(_, option)| option);
    Classifier::of_upstream(option)
}

impl Classifier {
    /// What upstream's option calls it.
    pub fn upstream(self) -> &'static str {
        match self {
            Self::TransformerConv => "TransformerConv",
            Self::GatConv => "GATConv",
            Self::GraphSage => "GraphSAGE",
            Self::GraphConv => "GraphConv",
            Self::GinConv => "GINConv",
            Self::MfConv => "MFConv",
            Self::GenConv => "GENConv",
            Self::Chebnet => "Chebnet",
            Self::Mlp => "MLP",
        }
    }
}

/// Classes of networks that are not called like the option that chooses them.
const CLASSES: [(&str, &str); 5] = [
    ("ChebNet", "Chebnet"),
    ("GATConvNet", "GATConv"),
    ("GENConvNet", "GENConv"),
    ("NN", "MLP"),
    ("ConvNet", "Conv1d"),
];
/// Where upstream's classes are.
const MODULE: &str = "scarches.models.sagenet.model.";
/// How files end that upstream writes, and that we write.
pub const PICKLE: &str = "pickle";
/// The same of ours.
pub const DICT: &str = "pt";
/// The key of what upstream's `Classifier` is made with.
const ARGUMENTS: &str = "arguments";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::torch::TorchWriter;

    fn saved(classifier: Classifier) -> SavedNetwork {
        let config = SagenetConfig { classifier, k: 3, n_hidden_fc: vec![5], ..SagenetConfig::default() };
        let graph = GeneGraph::new(4, &[(0, 1), (1, 2)]).unwrap();
        let tensors = Network::fresh(&config, graph, 3, [1; 32]).unwrap().state();
        SavedNetwork { config, n_genes: 4, tensors }
    }

    #[test]
    fn every_kind_of_network_comes_back_from_a_dict_as_it_went() {
        let folder = tempfile::tempdir().unwrap();
        for kind in KINDS {
            let (given, path) = (saved(kind), folder.path().join("a.pt"));
            given.write(&path).unwrap();
            let read = SavedNetwork::read(&path).unwrap();
            assert_eq!(read, given);
            assert_eq!(read.network(&[(0, 1)]).unwrap().n_classes(), 3);
            assert_eq!(Classifier::of_upstream(kind.upstream()), Ok(kind));
        }
    }

    #[test]
    fn tensors_of_another_network_are_refused() {
        let (mut given, other) = (saved(Classifier::TransformerConv), saved(Classifier::GatConv));
        let _ = given.tensors.insert("layers_GNN.0.lin_edge.weight", other.tensors.iter().next().unwrap().1.clone());
        let refused = given.network(&[]).unwrap_err().to_string();
        assert!(refused.contains("lin_edge") && refused.contains("TransformerConv"), "{refused}");
        let other = SavedNetwork { tensors: other.tensors, ..saved(Classifier::TransformerConv) };
        assert!(other.network(&[]).unwrap_err().to_string().contains("lin_"));
    }

    #[test]
    fn a_pickle_that_asks_for_more_than_a_network_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pickle");
        let check = |module: &str, name: &str, words: &[&str]| {
            let mut file = TorchWriter::default();
            file.pickle.call(module, name, |arguments| arguments.text("echo"));
            std::fs::write(&path, file.finish()).unwrap();
            let refused = format!("{:?}", SavedNetwork::read(&path).unwrap_err());
            words.iter().for_each(|word| assert!(refused.contains(word), "no `{word}` in {refused}"));
        };
        check("os", "system", &["a.pickle", "os.system"]);
        check("sklearn.svm", "LinearSVC", &["it holds sklearn.svm.LinearSVC, expected a network of"]);
        check("scarches.models.sagenet.model", "NNConvNet", &["there is no graph layer `NNConvNet`"]);
        check("scarches.models.sagenet.model", "ConvNet", &["do not fit"]);
        check("scarches.models.sagenet.model", "TransformerConv", &["expected a module with `_parameters`"]);
    }

    const KINDS: [Classifier; 9] = [
        Classifier::TransformerConv,
        Classifier::GatConv,
        Classifier::GraphSage,
        Classifier::GraphConv,
        Classifier::GinConv,
        Classifier::MfConv,
        Classifier::GenConv,
        Classifier::Chebnet,
        Classifier::Mlp,
    ];
}
