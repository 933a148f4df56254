//! The sites' processes: started, ordered about, killed, started again.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::ChildStdin,
    sync::{Arc, Mutex, MutexGuard},
};

use anyhow::{Context as _, Result};
use archipelago_common::SiteId;
use archipelago_processes::{Running, Signal};

use crate::{board::Board, event::Order, network::Network};

/// All sites of a campaign. Clones are the same.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    program: PathBuf,
    dir: PathBuf,
    seed: u64,
    network: Network,
    board: Board,
    processes: Mutex<BTreeMap<SiteId, Process>>,
    holding: Mutex<Option<SiteId>>,
}

struct Process {
    running: Running,
    orders: ChildStdin,
}

impl Fleet {
    /// Sites with their folders under `dir`, which hold their credentials; none is started yet.
    pub fn new(dir: &Path, seed: u64, network: Network, board: Board) -> Result<Self> {
        let program = std::env::current_exe()?;
        let (processes, holding) = (Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { program, dir: dir.to_owned(), seed, network, board, processes, holding })))
    }

    /// What the sites have told.
    pub fn board(&self) -> &Board {
        &self.0.board
    }

    /// Starts a site, on the journal it has, and gives it the orders that it has not carried out.
    pub fn start(&self, site: &SiteId) -> Result<()> {
        let dir = self.0.dir.join(site.as_str());
        let addresses = self.0.network.addresses();
        let addresses: Vec<_> = addresses.iter().map(|(node, address)| format!("{node}={address}")).collect();
        let (dir_text, seed) = (dir.to_string_lossy(), self.0.seed.to_string());
        let coordinators = addresses.join(",");
        let own = ["--site", site.as_str(), "--dir", &dir_text, "--coordinators", &coordinators, "--seed", &seed];
        let prefix = self.0.network.prefix(site.as_str());
        let program = self.0.program.to_string_lossy();
        let words: Vec<&str> = prefix.iter().map(String::as_str).chain([&*program, "site"]).chain(own).collect();
        let mut running = Running::start_piped(site.as_str(), Path::new(words[0]), &words[1..], &dir.join("log.txt"))?;
        let (mut orders, told) = running.take_pipes().context("a site's pipes are there once")?;
        self.0.board.restarted(site);
        let (board, name) = (self.0.board.clone(), site.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(told).lines().map_while(Result::ok) {
                // A line that a kill has torn says nothing.
                if let Ok(event) = serde_json::from_str(&line) {
                    board.told(&name, event);
                }
            }
        });
        // Under the lock, so that no order comes between.
        let mut processes = self.lock();
        let open: Vec<_> = self.0.board.look(|sites| sites[site].open.values().copied().collect());
        for order in open {
            send(&mut orders, order)?;
        }
        processes.insert(site.clone(), Process { running, orders });
        Ok(())
    }

    /// Gives an order. A site that is dead at the moment gets it when it starts.
    pub fn order(&self, site: &SiteId, order: Order) {
        let mut processes = self.lock();
        self.0.board.ordered(site, order);
        let holding = self.0.holding.lock().unwrap_or_else(|e| e.into_inner()).take_if(|held| held == site);
        if let Some(process) = processes.get_mut(site) {
            // Killed just now; see above.
            let _ = send(&mut process.orders, Order { holds: holding.is_some(), ..order });
        }
    }

    /// Has a site hold on to the next task that it is ordered to carry out, until it is killed.
    pub fn hold(&self, site: &SiteId) {
        *self.0.holding.lock().unwrap_or_else(|e| e.into_inner()) = Some(site.clone());
    }

    /// kill -9
    pub fn kill(&self, site: &SiteId) -> Result<()> {
        let mut process = self.lock().remove(site).with_context(|| format!("site {site} does not run"))?;
        process.running.kill()
    }

    /// Signals a site.
    pub fn signal(&self, site: &SiteId, signal: Signal) -> Result<()> {
        self.lock().get(site).with_context(|| format!("site {site} does not run"))?.running.signal(signal)
    }

    /// Every site.
    pub fn sites(&self) -> Vec<SiteId> {
        self.0.board.look(|sites| sites.keys().cloned().collect())
    }

    /// Fails if a site has told that it cannot go on or its process has ended.
    pub fn require_alive(&self) -> Result<()> {
        if let Some((site, reason)) = self.0.board.failed() {
            anyhow::bail!("site {site} cannot go on: {reason}");
        }
        self.lock().values_mut().try_for_each(|process| process.running.require_alive())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SiteId, Process>> {
        self.0.processes.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn send(orders: &mut ChildStdin, order: Order) -> Result<()> {
    let mut line = serde_json::to_vec(&order)?;
    line.push(b'\n');
    orders.write_all(&line)?;
    Ok(orders.flush()?)
}
