//! Communities of a network's nodes, and the two ways in which they get better: nodes move, nodes come together.

use std::collections::VecDeque;

use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::network::Network;

/// Which community each node is in, and what modularity needs to know of each community.
pub(super) struct Assignment<'a> {
    network: &'a Network,
    resolution: f64,
    pub(super) of: Vec<u32>,
    /// Weight that leaves the nodes of each community, and that arrives there.
    out: Vec<f64>,
    into: Vec<f64>,
    n_nodes: Vec<u32>,
    /// How strongly the node that is looked at is tied to each community, and to which it is tied at all.
    pulls: Vec<f64>,
    pulling: Vec<u32>,
}

impl<'a> Assignment<'a> {
    /// Each node in the community that is named; names are below the number of nodes.
    pub(super) fn new(network: &'a Network, resolution: f64, of: Vec<u32>) -> Self {
        let n = network.n_nodes();
        let (mut out, mut into, mut n_nodes) = (vec![0.0; n], vec![0.0; n], vec![0; n]);
        for (node, &community) in of.iter().enumerate() {
            out[community as usize] += network.out[node];
            into[community as usize] += network.into[node];
            n_nodes[community as usize] += 1;
        }
        Self { network, resolution, of, out, into, n_nodes, pulls: vec![0.0; n], pulling: Vec::new() }
    }

    /// Each node in a community of its own.
    pub(super) fn alone(network: &'a Network, resolution: f64) -> Self {
        Self::new(network, resolution, (0..network.n_nodes() as u32).collect())
    }

    pub(super) fn n_communities(&self) -> usize {
        self.n_nodes.iter().filter(|n| **n > 0).count()
    }

    /// Weight within communities beyond what chance would put there, `resolution` times.
    pub(super) fn quality(&self) -> f64 {
        let of_node = |node: u32| {
            let own = self.network.ties(node).iter();
            own.filter(|(other, _)| self.of[*other as usize] == self.of[node as usize])
                .map(|(_, weight)| weight)
                .sum::<f64>()
        };
        let within: f64 = (0..self.network.n_nodes() as u32).map(of_node).sum();
        let by_chance: f64 = self.out.iter().zip(&self.into).map(|(out, into)| out * into).sum();
        0.5 * within - self.resolution * by_chance / self.network.total
    }

    /// Moves nodes, one after the other, to where they are best placed, until none is better placed elsewhere.
    pub(super) fn move_nodes(&mut self, rng: &mut ChaCha8Rng) {
        let n = self.network.n_nodes();
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.shuffle(rng);
        let mut is_waiting = vec![true; n];
        let mut waiting: VecDeque<u32> = order.into();
        let mut empty: Vec<u32> =
            (0..n as u32).rev().filter(|community| self.n_nodes[*community as usize] == 0).collect();
        while let Some(node) = waiting.pop_front() {
            is_waiting[node as usize] = false;
            let before = self.of[node as usize];
            self.take_out(node);
            let anywhere = |_: u32| true;
            let (mut best, gain) = self.best_place(node, before, anywhere);
            // A community of its own gains nothing.
            if gain < -LEAST_GAIN && self.n_nodes[before as usize] > 0 {
                best = *empty.last().expect("with two nodes in one community, there are fewer communities than nodes");
            }
            self.put(node, best);
            if best == before {
                continue;
            }
            if empty.last() == Some(&best) {
                empty.pop();
            }
            if self.n_nodes[before as usize] == 0 {
                empty.push(before);
            }
            for &(other, _) in self.network.ties(node) {
                if !is_waiting[other as usize] && self.of[other as usize] != best {
                    is_waiting[other as usize] = true;
                    waiting.push_back(other);
                }
            }
        }
    }

    /// Puts nodes that are alone together with others, never across the communities of `within`.
    pub(super) fn merge_within(&mut self, within: &[u32], rng: &mut ChaCha8Rng) {
        let mut order: Vec<u32> = (0..self.network.n_nodes() as u32).collect();
        order.shuffle(rng);
        for node in order {
            let before = self.of[node as usize];
            if self.n_nodes[before as usize] > 1 {
                continue;
            }
            self.take_out(node);
            let (best, _) = self.best_place(node, before, |other| within[other as usize] == within[node as usize]);
            self.put(node, best);
        }
    }

    /// The community that gains most by a node that is in none, and how much; `before` unless another gains more. Only nodes for which
    /// `counts` holds pull.
    fn best_place(&mut self, node: u32, before: u32, counts: impl Fn(u32) -> bool) -> (u32, f64) {
        for &(other, weight) in self.network.ties(node).iter().filter(|(other, _)| counts(*other)) {
            let community = self.of[other as usize];
            if self.pulls[community as usize] == 0.0 {
                self.pulling.push(community);
            }
            self.pulls[community as usize] += weight;
        }
        let (mut best, mut most) = (before, self.gain(node, before));
        for &community in &self.pulling {
            let gain = self.gain(node, community);
            if gain > most + LEAST_GAIN {
                (best, most) = (community, gain);
            }
        }
        self.pulling.drain(..).for_each(|community| self.pulls[community as usize] = 0.0);
        (best, most)
    }

    /// What a community gains by a node that is in none.
    fn gain(&self, node: u32, community: u32) -> f64 {
        let (node, community) = (node as usize, community as usize);
        let by_chance = self.network.out[node] * self.into[community] + self.network.into[node] * self.out[community];
        self.pulls[community] - self.resolution * by_chance / self.network.total
    }

    fn take_out(&mut self, node: u32) {
        let community = self.of[node as usize] as usize;
        self.n_nodes[community] -= 1;
        self.out[community] -= self.network.out[node as usize];
        self.into[community] -= self.network.into[node as usize];
        if self.n_nodes[community] == 0 {
            // Without what rounding left.
            (self.out[community], self.into[community]) = (0.0, 0.0);
        }
    }

    fn put(&mut self, node: u32, community: u32) {
        self.of[node as usize] = community;
        self.n_nodes[community as usize] += 1;
        self.out[community as usize] += self.network.out[node as usize];
        self.into[community as usize] += self.network.into[node as usize];
    }
}

/// What less is, rounding makes of nothing.
const LEAST_GAIN: f64 = 1e-10;
