//! Messaging with a Parlor broker, for apps and gateways: connect by URL, send, hear.
//!
//! ```no_run
//! use parlor_client::{Client, Event, Options};
//!
//! # async fn talk() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::connect("mqtt://alice:secret@home.lan", Options::default()).await?;
//! client.send("bob", "hello").await?;
//! while let Some(event) = client.next().await {
//!     if let Event::Message { with, message } = event {
//!         println!("{with}: {}", message.shown());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Roads
//!
//! The URL's scheme is the road; everything else stays as it is. Whoever comes back by another road under the same terminal
//! goes on where it was.
//!
//! | scheme | port | |
//! |---|---|---|
//! | `mqtt` | TCP 1883 | MQTT 5 |
//! | `mqtts` | TCP 8883 | MQTT 5 over TLS |
//! | `ws`, `wss` | TCP 8083, 8084 | MQTT 5 over WebSocket; path `/mqtt` unless the URL names one |
//! | `mqtt+quic` | UDP 14567 | MQTT 5 over QUIC |
//! | `parlor` | UDP 14567 | Parlor's own frames over QUIC; typing, streams and telemetry as datagrams |
//! | `parlor+tcp`, `parlor+tls` | TCP 1884, 8884 | the same frames over TCP and TLS |
//!
//! Over QUIC a connection survives that the network changes ([`Handle::rebind`]), and one that is made again sends what may
//! arrive twice, which is messages with their ids, with its first packet.
//!
//! # What is sent
//!
//! Each send has an id, and ends in exactly one of [`Event::Received`], when the broker has it on disk, and [`Event::Lost`],
//! with the reason. In between it waits in the outbox, and is published again under the same id on every connection until it
//! is answered; the broker makes one message of it. With [`OutboxKind::File`] that holds over the end of the process too:
//!
//! ```no_run
//! use parlor_client::{Client, Event, Options, OutboxKind};
//!
//! # async fn gateway() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options { outbox: OutboxKind::File("/var/lib/gateway/outbox".into()), ..Options::default() };
//! // Without a broker it begins all the same; what is sent waits.
//! let mut client = Client::start("parlor://gateway:secret@home.lan", options).await?;
//! let handle = client.handle();
//! tokio::spawn(async move { handle.send("alice", "the door is open").await });
//! while let Some(event) = client.next().await {
//!     match event {
//!         Event::Received { id, .. } => println!("{id} is on the broker's disk"),
//!         Event::Lost { id, why, .. } => println!("{id} is lost, {}: {}", why.code, why.text),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - The row is on disk before [`Handle::send`] returns, and so before the first byte leaves.
//! - How it ended is on disk before it is told, and the row goes when whoever was told comes back for the next event. So a
//!   process that dies in between is told the same end once more by the next one, and never the other one.
//! - The outbox has a limit ([`Options::outbox_max`]); at the limit a send is refused with [`SendError::Full`].
//! - A message with a `ttl_s`, or a command, whose time is over before it could be sent is [`Event::Lost`] with `expired`; one
//!   that was sent and not answered in time, or that ten connections died of, with `no_answer`: the broker may have it.
//! - Kept are messages, commands, edits, recalls, outcomes of commands, and what is published to ordinary topics, which is the
//!   one thing that may arrive twice. Requests and marks are published again on the next connection, but not by the next process.
//!
//! # What is heard
//!
//! A message is told once: what comes again is dropped by its `seq`, and where `prev` says that one is missing, it is pulled and
//! told too. It is acknowledged to the broker, which then calls it delivered, when the caller comes back for the next event
//! (or says so with [`Client::settle`]); until then it comes again after a restart. So events have to be asked for: whoever
//! does not is sent a limited number and then nothing more.
//!
//! # What is known
//!
//! [`Handle::with`] shows the [`model::Messenger`] behind the client: conversations with their messages, unread counts, how far
//! one's own messages have come, contacts, presence, states of devices, commands. It has no socket and no clock, so that it can be
//! used, and tested, without either.
#![forbid(unsafe_code)]

mod backoff;
mod client;
mod engine;
pub mod error;
mod handle;
pub mod model;
mod options;
mod road;
mod shared;
mod store;
pub mod target;

pub use backoff::Backoff;
pub use client::Client;
pub use error::{AskError, ConnectError, OutboxError, SendError, TargetError};
pub use handle::{CommandOptions, Contact, ContactOp, Handle, History, Outcome, Range, Status, SyncEntry, SyncPage};
pub use model::event::{Event, Told};
pub use model::up::Draft;
pub use options::{Filter, Identity, Listen, Options, OutboxKind, Quality};
pub use target::{Scheme, Secret, Target};

#[cfg(test)]
mod tests;
