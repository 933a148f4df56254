//! Whole clusters of real processes on loopback, asked by the real commands.

mod consortium;
mod failover;
mod life;
