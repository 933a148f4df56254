//! A consortium to put load on: its processes, and clients with certificates that its authority makes in this process.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use archipelago_client::{Client, ClientConfig, Patience};
use archipelago_common::{
    Base, BaseCard, BlobRef, Columns, DType, Layout, Name, NodeId, StateDict, TaskId, Tensor, Version,
    state_dict::TensorSpec,
    task::{SurgeryTask, TrainSpec},
};
use archipelago_processes::{Consortium, NodePlan, consortium::wait_for_leader, free_ports, program};
use archipelago_protocol::message::{Reply, Request};
use archipelago_transport::{
    Credentials,
    ca::{Authority, Validity},
    net::{Network, Ways},
};

/// Where a coordinator runs.
#[derive(Clone)]
pub(crate) struct Place {
    /// The address that they listen on.
    pub(crate) host: String,
    /// Words before their program.
    pub(crate) prefix: Vec<String>,
}

impl Place {
    /// Here, on loopback.
    pub(crate) fn here() -> Self {
        Self { host: "127.0.0.1".to_owned(), prefix: vec![] }
    }
}

/// Running coordinators in a folder that goes when this value does.
pub(crate) struct Cluster {
    pub(crate) consortium: Consortium,
    authority: Authority,
    addresses: BTreeMap<NodeId, String>,
    // Dropped last: the processes write into it.
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Founds and starts `n_nodes` coordinators and waits for their leader.
    pub(crate) fn start(scratch: &Path, n_nodes: u64) -> Result<Self> {
        Self::start_at(scratch, &vec![Place::here(); n_nodes as usize])
    }

    /// The same with a node at each of these places.
    pub(crate) fn start_at(scratch: &Path, places: &[Place]) -> Result<Self> {
        let n_nodes = places.len();
        let dir = tempfile::tempdir_in(scratch)?;
        let ports = free_ports(2 * n_nodes)?;
        let (listen, ops) = ports.split_at(n_nodes);
        let addresses = places.iter().zip(listen).map(|(place, port)| format!("{}:{port}", place.host));
        let peers: BTreeMap<_, _> = (1..).zip(addresses).collect();
        let plan = |(node, (ops, place)): (u64, (&u16, &Place))| {
            let (listen, ops) = (peers[&node].clone(), format!("{}:{ops}", place.host).parse()?);
            anyhow::Ok((node, NodePlan { listen, ops, peers: peers.clone(), prefix: place.prefix.clone() }))
        };
        let plans = (1..).zip(ops.iter().zip(places)).map(plan).collect::<Result<_>>()?;
        let home = dir.path().join("consortium");
        let mut consortium = Consortium::found(&home, &program("archipelago-coordinator")?, "bench", plans)?;
        consortium.nodes().try_for_each(|node| lift_quotas(&consortium.node_dir(node).join("node.toml")))?;
        consortium.nodes().try_for_each(|node| consortium.start(node))?;
        wait_for_leader(&mut consortium, Duration::from_secs(30))?;
        let authority = Authority::load(&home.join("ca/ca.pem"), &home.join("ca/ca.key"))?;
        let addresses =
            peers.iter().filter_map(|(node, address)| Some((NodeId::new(*node)?, address.clone()))).collect();
        Ok(Self { consortium, authority, addresses, _dir: dir })
    }

    /// A session as `operator/anna`, `site/x` and so on.
    pub(crate) async fn client(&self, principal: &str) -> Result<Client> {
        self.client_over(principal, Ways::default()).await
    }

    /// The same over these ways.
    pub(crate) async fn client_over(&self, principal: &str, ways: Ways) -> Result<Client> {
        let config = ClientConfig {
            coordinators: self.addresses.clone(),
            credentials: self.credentials(principal)?,
            software: "bench".to_owned(),
            patience: Patience::Within(PATIENCE),
            known: None,
            network: Network { ways, proxy: None },
        };
        Ok(Client::connect(config).await?)
    }

    /// Certificate and key of a principal, made now.
    pub(crate) fn credentials(&self, principal: &str) -> Result<Credentials> {
        let issued = self.authority.issue(&principal.parse()?, Validity::days(1))?;
        Ok(Credentials::from_pem(self.authority.certificate(), &issued.certificate, &issued.key)?)
    }

    /// The file by which an operator's commands find the consortium; made here, with a certificate.
    pub(crate) fn operator_file(&self, name: &str) -> Result<String> {
        self.consortium.issue(&format!("operator/{name}"), name)?;
        let addresses = self.addresses.iter().map(|(node, address)| format!("{node} = \"{address}\"\n"));
        let text = format!(
            "ca = \"{name}/ca.pem\"\ncertificate = \"{name}/cert.pem\"\nkey = \"{name}/key.pem\"\n[coordinators]\n{}",
            addresses.collect::<String>()
        );
        let file = format!("{name}.toml");
        std::fs::write(self.consortium.dir().join(&file), text)?;
        Ok(file)
    }

    /// The coordinators' addresses.
    pub(crate) fn addresses(&self) -> &BTreeMap<NodeId, String> {
        &self.addresses
    }

    /// Publishes a reference whose base was uploaded.
    pub(crate) async fn publish(&self, operator: &Client, base: BlobRef) -> Result<Version> {
        let version = Version { base, columns: BTreeMap::new() };
        let name: Name = REFERENCE.parse()?;
        operator.request(Request::PublishReference { name, version: version.clone() }).await?;
        Ok(version)
    }

    /// Publishes a task on it.
    pub(crate) async fn publish_task(&self, operator: &Client, version: &Version) -> Result<TaskId> {
        let train = TrainSpec { epochs: Some(1), ..TrainSpec::default() };
        let task = SurgeryTask::new(REFERENCE.parse()?, version.id(), train);
        match operator.request(Request::PublishTask(Box::new(task))).await? {
            Reply::Task(record) => Ok(record.id),
            reply => bail!("a task was published as {reply:?}"),
        }
    }
}

/// What is measured is what coordinators can do, and not what they let one identity have.
fn lift_quotas(config: &Path) -> Result<()> {
    let text = std::fs::read_to_string(config).with_context(|| format!("failed to read `{}`", config.display()))?;
    let is_rate = |line: &&str| line.starts_with("requests_per_second");
    let rate = text.lines().find(is_rate).with_context(|| format!("`{}` has no quotas", config.display()))?;
    Ok(std::fs::write(config, text.replace(rate, "requests_per_second = 10000000"))?)
}

/// A base without tensors worth the name, and a card that asks for one column per condition.
pub(crate) fn small_base() -> Base {
    let weight = Tensor::from_f32(&[1], &[1.0]);
    Base { card: card(), tensors: StateDict::from_iter([("weight".to_owned(), weight)]) }
}

/// What a base of this bench says of itself.
pub(crate) fn card() -> BaseCard {
    BaseCard {
        format: BaseCard::PLAIN_FORMAT,
        model: "scvi".to_owned(),
        config: BTreeMap::new(),
        genes: vec!["CD3D".to_owned(), "LYZ".to_owned()],
        batch_key: "batch".to_owned(),
        labels_key: None,
        labels: vec![],
        layout: Layout::plain(BTreeMap::from([(
            "w".to_owned(),
            TensorSpec { dtype: DType::F32, shape: vec![COLUMN] },
        )])),
        moves_embedding: true,
        training: BTreeMap::new(),
        recipe: None,
    }
}

/// The columns of one condition: two layers of 128 units.
pub(crate) fn columns(i: usize) -> Columns {
    let values: Vec<f32> = (0..COLUMN).map(|j| (i * COLUMN + j) as f32 / 1e6).collect();
    Columns(StateDict::from_iter([("w".to_owned(), Tensor::from_f32(&[COLUMN], &values))]))
}

/// The one reply that is expected of a claim.
pub(crate) fn epoch(reply: &Reply) -> Result<u64> {
    match reply {
        Reply::Assigned { epoch, .. } => Some(*epoch),
        _ => None,
    }
    .with_context(|| format!("a claim was answered with {reply:?}"))
}

/// Name of the reference that is published.
pub(crate) const REFERENCE: &str = "lung";
const COLUMN: usize = 256;
const PATIENCE: Duration = Duration::from_secs(120);
