//! A lamp over TCP: it reports every second what it is, and is told what to be. Without any client it writes and reads bytes; with one
//! of them it does so over MQTT or the native link. What the one is larger than the other is the size of the client.

#![no_std]
#![no_main]

#[cfg(feature = "run")]
#[path = "board.rs"]
mod world;
#[cfg(not(feature = "run"))]
mod world;

// What the emulated boards consist of.
#[cfg(feature = "an385")]
#[path = "an385.rs"]
mod chip;
#[cfg(feature = "virt")]
#[path = "virt.rs"]
mod chip;
#[cfg(feature = "an385")]
#[path = "../../boards/qemu-mps2-an385/src/executor.rs"]
mod executor;
#[cfg(feature = "an385")]
#[path = "../../boards/qemu-mps2-an385/src/lan9118.rs"]
mod lan9118;
#[cfg(feature = "an385")]
#[path = "../../boards/qemu-mps2-an385/src/stack.rs"]
mod stack;
#[cfg(feature = "virt")]
#[path = "../../boards/qemu-riscv-virt/src/stack.rs"]
mod stack;
#[cfg(feature = "an385")]
#[path = "../../boards/qemu-mps2-an385/src/time.rs"]
mod time;
#[cfg(feature = "virt")]
#[path = "../../boards/qemu-riscv-virt/src/time.rs"]
mod time;
#[cfg(feature = "virt")]
#[path = "../../boards/qemu-riscv-virt/src/virtio_net.rs"]
mod virtio_net;

#[cfg(not(any(feature = "sdk", feature = "rust-mqtt", feature = "minimq")))]
#[path = "nothing.rs"]
mod client;
#[cfg(feature = "sdk")]
#[path = "sdk.rs"]
mod client;
#[cfg(feature = "rust-mqtt")]
#[path = "rust_mqtt.rs"]
mod client;
#[cfg(feature = "minimq")]
#[path = "minimq.rs"]
mod client;

#[cfg(not(feature = "run"))]
use embassy_executor::raw::Executor;
use embassy_net::{Config, Runner, Stack, StackResources};
use static_cell::StaticCell;
use world::Nic;
#[cfg(not(feature = "run"))]
use world::register;

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Nic>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn device(net: Stack<'static>) {
    client::run(net).await;
}

#[cfg(not(feature = "run"))]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".start")]
extern "C" fn start() -> ! {
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
    let executor = EXECUTOR.init(Executor::new(core::ptr::null_mut()));
    let sockets = SOCKETS.init_with(StackResources::new);
    let seed = u64::from(register(9));
    let (net, runner) = embassy_net::new(Nic::new(), Config::dhcpv4(Default::default()), sockets, seed);
    let spawner = executor.spawner();
    if let (Ok(network), Ok(device)) = (network(runner), device(net)) {
        spawner.spawn(network);
        spawner.spawn(device);
    }
    loop {
        // SAFETY: the only place that polls.
        unsafe { executor.poll() };
    }
}

/// Spawns the first task.
#[cfg(feature = "run")]
fn spawn(spawner: embassy_executor::Spawner) {
    spawner.spawn(begin(spawner).expect("the first task has its place"));
}

/// Starts the chip and the network; what that takes of the stack, it takes once.
#[cfg(feature = "run")]
#[embassy_executor::task]
async fn begin(spawner: embassy_executor::Spawner) {
    world::start();
    static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
    let sockets = SOCKETS.init_with(StackResources::new);
    let (net, runner) = embassy_net::new(world::nic(), Config::dhcpv4(Default::default()), sockets, 7);
    spawner.spawn(network(runner).expect("it is spawned once"));
    spawner.spawn(device(net).expect("it is spawned once"));
    spawner.spawn(paint().expect("it is spawned once"));
}

/// From here on the stack counts.
#[cfg(feature = "run")]
#[embassy_executor::task]
async fn paint() {
    stack::paint();
}
