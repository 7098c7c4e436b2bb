//! What the tests share.

pub mod ca;
pub mod checkers;
pub mod cut;
pub mod device;
pub mod device_log;
pub mod device_world;
pub mod disk;
pub mod fates;
pub mod faulty;
pub mod firmware;
pub mod im;
pub mod im_world;
pub mod kill;
mod kill_talk;
pub mod lines;
pub mod link;
pub mod native;
pub mod operator;
pub mod quic;
pub mod raw;
pub mod server;
pub mod site;
pub mod storm;
pub mod udp_proxy;
pub mod world;
