//! Everything that runs, and how one fault is played on it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use archipelago_common::{BlobRef, SiteId};
use archipelago_processes::{Consortium, Signal, program};
use rand_chacha::ChaCha8Rng;

use crate::{
    args::RunArgs,
    board::Board,
    event::now_us,
    fault::{Blow, Fault, Victim, Window},
    fleet::Fleet,
    guests::Guests,
    network::{Network, Whom},
    operator::{Operator, PROBE},
    payload::{self, below},
    resent::{self, Resumed},
    windows::{Armed, Atlas},
    workload::Workload,
};

/// The consortium, its sites, its operator, and what is between them.
pub struct Stage {
    pub(crate) consortium: Consortium,
    pub(crate) network: Network,
    pub(crate) fleet: Fleet,
    pub(crate) operator: Operator,
    pub(crate) probe: Operator,
    pub(crate) workload: Workload,
    pub(crate) guests: Option<Guests>,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) seed: u64,
    pub(crate) atlas: Option<Atlas>,
    pub(crate) n_publications: u64,
}

/// What came of one fault.
#[derive(Clone, Debug)]
pub struct Struck {
    /// Whether it came in the window that it was meant for.
    pub hit: bool,
    /// To the acknowledgement of the next write of a client that was connected before, in milliseconds.
    pub recovery_ms: f64,
    /// How the transfer that it interrupted went on.
    pub resumed: Option<Resumed>,
}

/// To whom a fault happens, by name.
enum Target {
    Nodes(Vec<u64>),
    Site(SiteId),
    Publisher,
}

impl Stage {
    /// Founds a consortium in `args.out` and starts everything.
    pub async fn build(args: &RunArgs) -> Result<Self> {
        let names: Vec<_> = (1..=args.sites).map(|i| format!("site{i}")).collect();
        let network = Network::build(args.network, NODES, &names, args.drop_udp)?;
        let plans = network.plans(NODES)?;
        let ours = program("archipelago-coordinator")?;
        let first = args.earlier.as_ref().map(|path| path.canonicalize()).transpose()?;
        let mut consortium = Consortium::found(&args.out, first.as_ref().unwrap_or(&ours), "campaign", plans)?;
        consortium.issue("operator/anna", "anna")?;
        for node in consortium.nodes() {
            consortium.start(node)?;
        }
        if first.is_some() {
            consortium.take_turns_with(&ours);
        }
        let anna = consortium.dir().join("anna");
        write_operator_config(&anna, &network)?;
        let addresses = network.addresses();
        let operator = Operator::connect(&anna, &addresses, "journal.jsonl").await?;
        let probe = Operator::connect(&anna, &addresses, "probe.jsonl").await?;
        operator.add_site(PROBE).await?;
        let sites: Vec<SiteId> = names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        let fleet = Fleet::new(consortium.dir(), args.seed, network.clone(), Board::new(sites.iter().cloned()))?;
        for site in &sites {
            consortium.issue(&format!("site/{site}"), site.as_str())?;
            operator.add_site(site.as_str()).await?;
            fleet.start(site)?;
        }
        let workload = Workload::prepare(operator.clone(), fleet.clone(), args.seed).await?;
        let host = Operator::connect(&anna, &addresses, "guests.jsonl").await?;
        let guests = Some(Guests::new(host, &consortium.dir().join("ca"), addresses));
        let rng = payload::rng(args.seed, "moments");
        let seed = args.seed;
        let (atlas, n_publications) = (None, 0);
        Ok(Self { consortium, network, fleet, operator, probe, workload, guests, rng, seed, atlas, n_publications })
    }

    /// Waits for a fault's window, plays the fault, undoes it and waits until all is well again.
    pub async fn strike(&mut self, fault: Fault) -> Result<Struck> {
        self.fleet.board().forget_steps();
        // From here on the probe is connected to the leader, as any client at work.
        self.probe.write().await?;
        let mut armed = self.open_window(fault).await?;
        let target = self.target(fault, &armed).await?;
        armed.look_before_the_blow()?;
        let (at_us, begun) = (now_us(), Instant::now());
        self.blow(fault.blow, &target, &mut armed)?;
        let recorded = self.recorded(&armed, at_us);
        self.probe.write().await?;
        let recovery_ms = begun.elapsed().as_secs_f64() * 1e3;
        if fault.blow != Blow::Kill {
            self.pause(LONGEST_HOLD).await;
        }
        self.undo(fault.blow, &target)?;
        self.healthy().await?;
        let hit = self.close_window(&mut armed, at_us).await?;
        let resumed = armed
            .site
            .as_ref()
            .and_then(|site| self.fleet.board().look(|sites| resent::resumed(&sites[site].steps, at_us, recorded)));
        Ok(Struck { hit, recovery_ms, resumed })
    }

    /// Waits until every process runs, all coordinators name one leader, and every site is ready.
    pub async fn healthy(&mut self) -> Result<u64> {
        let begun = Instant::now();
        loop {
            self.consortium.require_alive()?;
            self.fleet.require_alive()?;
            let is_ready = self.fleet.board().look(|sites| sites.values().all(|view| view.is_ready));
            if let Some(leader) = self.consortium.leader().filter(|_| is_ready) {
                return Ok(leader);
            }
            ensure!(begun.elapsed() < HEALTH_PATIENCE, "not all is well again after {} s", HEALTH_PATIENCE.as_secs());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sessions with all coordinators that answer, by what carries them.
    pub(crate) fn sessions(&self) -> BTreeMap<&'static str, u64> {
        let over = |way: &str| -> f64 {
            let label = format!("transport=\"{way}\"");
            self.consortium
                .nodes()
                .filter_map(|node| self.consortium.metric_sum(node, "archipelago_sessions", &label))
                .sum()
        };
        ["quic", "tcp"].map(|way| (way, over(way) as u64)).into()
    }

    /// Any of the sites.
    pub(crate) fn any_site(&mut self) -> SiteId {
        let sites = self.fleet.sites();
        sites[below(&mut self.rng, sites.len() as u64) as usize].clone()
    }

    /// A pause of up to so long, so that a fault comes at another moment each time.
    pub(crate) async fn pause(&mut self, longest: Duration) {
        let micros = below(&mut self.rng, longest.as_micros() as u64 + 1);
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }

    async fn target(&mut self, fault: Fault, armed: &Armed) -> Result<Target> {
        let leader = match armed.leader.or_else(|| self.consortium.leader()) {
            Some(leader) => leader,
            // A disk that stands still for a second costs a leader without any fault; the window may be over by then.
            None => self.healthy().await?,
        };
        Ok(match fault.victim {
            Victim::Leader => Target::Nodes(vec![leader]),
            Victim::Follower => {
                let followers: Vec<_> = self.consortium.nodes().filter(|node| *node != leader).collect();
                Target::Nodes(vec![followers[below(&mut self.rng, followers.len() as u64) as usize]])
            }
            Victim::AllNodes => Target::Nodes(self.consortium.nodes().collect()),
            Victim::Site => Target::Site(match &armed.site {
                Some(site) => site.clone(),
                None => self.submitting().unwrap_or_else(|| self.any_site()),
            }),
            Victim::Publisher => Target::Publisher,
        })
    }

    fn blow(&mut self, blow: Blow, target: &Target, armed: &mut Armed) -> Result<()> {
        match (blow, target) {
            (Blow::Kill, Target::Nodes(nodes)) => {
                nodes.iter().try_for_each(|node| self.consortium.kill(*node))?;
                if nodes.len() > 1 {
                    nodes.iter().try_for_each(|node| self.consortium.start(*node))?;
                }
            }
            (Blow::Kill, Target::Site(site)) => self.fleet.kill(site)?,
            (Blow::Kill, Target::Publisher) => armed.kill_publisher()?,
            (Blow::Stop, Target::Nodes(nodes)) => {
                nodes.iter().try_for_each(|node| self.consortium.signal(*node, Signal::Stop))?;
            }
            (Blow::Stop, Target::Site(site)) => self.fleet.signal(site, Signal::Stop)?,
            (Blow::Cut(way), Target::Nodes(nodes)) => {
                let whom = if below(&mut self.rng, 2) == 0 { Whom::All } else { Whom::Nodes };
                nodes.iter().try_for_each(|node| self.network.cut_node(*node, whom, way))?;
            }
            (Blow::Cut(way), Target::Site(site)) => self.network.cut_site(site.as_str(), way)?,
            (Blow::Stop | Blow::Cut(_), Target::Publisher) => bail!("a publisher is only killed"),
        }
        if armed.window == Window::Reply {
            // The answers were held back until here; whoever is alive may have them now.
            self.network.heal()?;
        }
        Ok(())
    }

    fn undo(&mut self, blow: Blow, target: &Target) -> Result<()> {
        match (blow, target) {
            (Blow::Kill, Target::Nodes(nodes)) if nodes.len() == 1 => self.consortium.start(nodes[0]),
            // Were started at once: without a majority nothing would be acknowledged.
            (Blow::Kill, Target::Nodes(_) | Target::Publisher) => Ok(()),
            (Blow::Kill, Target::Site(site)) => self.fleet.start(site),
            (Blow::Stop, Target::Nodes(nodes)) => {
                nodes.iter().try_for_each(|node| self.consortium.signal(*node, Signal::Continue))
            }
            (Blow::Stop, Target::Site(site)) => self.fleet.signal(site, Signal::Continue),
            (Blow::Cut(_), _) => self.network.heal(),
            (Blow::Stop, Target::Publisher) => Ok(()),
        }
    }

    /// Bytes that had arrived of the transfer that the window is about, from the receivers' records.
    fn recorded(&self, armed: &Armed, at_us: u64) -> u64 {
        let Some(site) = &armed.site else { return 0 };
        let moving = self.fleet.board().look(|sites| resent::moving_at(&sites[site].steps, at_us));
        let Some(moving) = moving else { return 0 };
        let records = match armed.window {
            Window::Download => vec![base_path(&self.consortium.dir().join(site.as_str()), moving.blob, ".chunks")],
            _ => self.consortium.nodes().map(|node| self.record_path(node, moving.blob)).collect(),
        };
        let size = |path: PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        records.into_iter().map(|path| resent::recorded_bytes(moving.blob, size(path))).max().unwrap_or(0)
    }

    /// Where a node records what it has of a blob that is on its way.
    pub(crate) fn record_path(&self, node: u64, blob: BlobRef) -> PathBuf {
        self.consortium.node_dir(node).join(format!("data/blobs/partial/{}.record", blob.digest))
    }

    /// A site whose submission is on its way.
    fn submitting(&self) -> Option<SiteId> {
        self.fleet.board().look(|sites| crate::windows::submitting_at(sites, now_us()).cloned())
    }
}

/// Where a site puts a base that it downloads, or one of the two files beside it.
pub fn base_path(dir: &Path, blob: BlobRef, suffix: &str) -> PathBuf {
    dir.join(format!("{}.base{suffix}", blob.digest.short()))
}

fn write_operator_config(dir: &Path, network: &Network) -> Result<()> {
    let mut file = "ca = \"ca.pem\"\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\n[coordinators]\n".to_owned();
    for (node, address) in network.addresses() {
        file += &format!("{node} = \"{address}\"\n");
    }
    Ok(std::fs::write(dir.join("operator.toml"), file)?)
}

/// Coordinators.
pub const NODES: u64 = 3;
/// Longest time after which everything must be well again.
const HEALTH_PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// How much longer a stop or a cut lasts than until the next write.
const LONGEST_HOLD: Duration = Duration::from_millis(800);
