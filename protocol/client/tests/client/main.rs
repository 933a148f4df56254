//! The client against scripted coordinators, in memory, over a network that fails on purpose, and over QUIC.

mod requests;
mod server;
mod transfers;
