//! Keeps a board in the conversation: connected, reconnecting, sending and receiving at the same time, losing nothing.
//!
//! The application owns all memory ([`Resources`]), and gets from [`new`] a [`Device`], which can be copied and used from
//! any number of tasks, and a [`Runner`], whose [`Runner::run`] owns the connection and the flash. There is no allocator,
//! and no future of [`Device`] does harm when it is dropped.
//!
//! ```
//! # #[cfg(feature = "commands")] mod example {
//! use parlor_device::{Commands, Device, Reject, json::Value};
//!
//! /// What a lamp can be told.
//! enum Lamp {
//!     Set { on: bool },
//! }
//!
//! // `#[derive(Commands)]` writes this.
//! impl Commands for Lamp {
//!     const DESCRIPTION: &'static str = r#"{"set":{"args":{"on":{"type":"bool"}}}}"#;
//!     fn parse(name: &str, args: Value<'_>) -> Result<Self, Reject> {
//!         match name {
//!             "set" => Ok(Self::Set { on: parlor_device::json::argument(args, "on")? }),
//!             _ => Err(Reject::Unknown),
//!         }
//!     }
//! }
//!
//! async fn lamp(device: Device<'_>, mut switch: impl FnMut(bool)) -> ! {
//!     loop {
//!         let command = device.next_command::<Lamp>().await;
//!         match command.what {
//!             Lamp::Set { on } => {
//!                 switch(on);
//!                 command.done(()).await;
//!             }
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! Features decide what there is: all of it by default. README.md says what each costs.
#![no_std]
#![cfg_attr(all(doctest, feature = "derive", feature = "full"), doc = include_str!("../README.md"))]
#[cfg(test)]
extern crate std;

#[macro_use]
mod fmt;

#[cfg(not(any(feature = "topics", feature = "messages", feature = "commands", feature = "state")))]
compile_error!("parlor-device has nothing to say: turn on `topics`, `messages`, `commands` or `state`, or `full`");
#[cfg(not(any(feature = "mqtt", feature = "native")))]
compile_error!("parlor-device has no language: turn on `mqtt` or `native`");

pub mod backoff;
mod bytes;
mod client;
#[cfg(feature = "commands")]
mod command;
mod config;
mod error;
#[cfg(feature = "messages")]
mod event;
pub mod field;
pub mod flash;
pub mod json;
mod resources;
mod rows;
mod runner;
pub mod session;
pub mod shared;
#[cfg(feature = "state")]
mod state;
pub mod transport;
#[cfg(feature = "update")]
pub mod update;
pub mod wire;

#[cfg(feature = "messages")]
pub use client::Content;
pub use client::{Device, Receipt};
#[cfg(feature = "commands")]
pub use command::{Command, Commands};
#[cfg(feature = "describe")]
pub use config::Describe;
#[cfg(feature = "topics")]
pub use config::Subscription;
pub use config::{Config, Keep, Listen, Login, Place, Policy};
pub use error::{LinkError, Outcome, Refusal, SendError, Why};
#[cfg(feature = "messages")]
pub use event::Event;
pub use parlor_protocol::mqtt::QoS;
pub use resources::{Parts, Resources, new};
pub use runner::Runner;
#[cfg(feature = "messages")]
pub use shared::Received;
#[cfg(feature = "commands")]
pub use shared::Reject;
pub use shared::{SentId, Status};
#[cfg(feature = "state")]
pub use state::State;
#[cfg(feature = "mqtt")]
pub use wire::mqtt::Mqtt;
#[cfg(feature = "native")]
pub use wire::native::Native;

#[cfg(feature = "derive")]
pub use parlor_device_derive::{Choice, Commands, Event, State};
