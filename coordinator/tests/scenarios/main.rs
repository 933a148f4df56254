//! Whole clusters of real processes on loopback, asked by the real commands.

mod attacks;
mod certificates;
mod consortium;
mod dead_worker;
mod failover;
mod founders;
mod full_disk;
mod life;
mod members;
mod page;
mod proposals;
mod records;
mod roles;
mod stored;
