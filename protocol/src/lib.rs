//! What coordinator and site say, and when. Sans-IO: no sockets, no clock, no tasks.

pub mod message;
