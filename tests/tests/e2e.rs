//! The program as its users have it: the demo and its household, stock clients, TLS, and kill -9.

#[path = "e2e/app.rs"]
mod app;
#[path = "../../firmware-examples/boot/tests/life/flash.rs"]
mod chip;
#[path = "e2e/demo.rs"]
mod demo;
#[path = "e2e/device_boot.rs"]
mod device_boot;
#[path = "e2e/device_life.rs"]
mod device_life;
#[path = "e2e/device_log.rs"]
mod device_log;
#[path = "e2e/device_sdk.rs"]
mod device_sdk;
#[path = "e2e/examples.rs"]
mod examples;
#[path = "e2e/household.rs"]
mod household;
#[path = "e2e/im_interop.rs"]
mod im_interop;
#[path = "e2e/kill.rs"]
mod kill;
#[path = "e2e/peer.rs"]
mod peer;
#[path = "e2e/quic.rs"]
mod quic;
#[path = "e2e/roads.rs"]
mod roads;
#[path = "e2e/stock.rs"]
mod stock;
#[path = "e2e/tls.rs"]
mod tls;
