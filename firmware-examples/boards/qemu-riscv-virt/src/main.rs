//! The RISC-V machine `virt` (RV32) under QEMU.

#![no_std]
#![no_main]

mod stack;
mod time;
mod virtio_net;

use core::panic::PanicInfo;
use embassy_executor::{Executor, Spawner};
use embassy_net::{Config, Runner, StackResources};
use parlor_qemu::{Args, entropy, exit, say};
use static_cell::{ConstStaticCell, StaticCell};
use virtio_net::{Frames, VirtioNet};

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    say!("PANIC {info}");
    exit(101)
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, VirtioNet>) -> ! {
    runner.run().await
}

#[riscv_rt::entry]
fn entry() -> ! {
    stack::paint();
    time::start();
    // SAFETY: every interrupt that is on has its handler, and no critical section is open.
    unsafe { riscv::interrupt::enable() };
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    let executor = EXECUTOR.init(Executor::new());
    executor.run(|spawner| spawner.spawn(board(spawner).expect("the first task has its place")))
}

#[embassy_executor::task]
async fn board(spawner: Spawner) {
    static ARGS: StaticCell<Args> = StaticCell::new();
    let args = ARGS.init_with(Args::read);
    let mut seed = [0; 8];
    entropy(&mut seed);
    static FRAMES: ConstStaticCell<Frames> = ConstStaticCell::new([[0; 1_536]; 4]);
    let driver = VirtioNet::start(FRAMES.take()).expect("QEMU was started with -device virtio-net-device");
    static SOCKETS: StaticCell<StackResources<4>> = StaticCell::new();
    let sockets = SOCKETS.init_with(StackResources::new);
    let (net, runner) = embassy_net::new(driver, Config::dhcpv4(Default::default()), sockets, u64::from_le_bytes(seed));
    spawner.spawn(network(runner).expect("it is spawned once"));
    net.wait_config_up().await;
    say!("net up");
    if args.value("app") == Some("echo") {
        parlor_qemu::echo::run(net, args).await;
        say!("stack {}", stack::deepest());
        exit(0)
    }
    parlor_qemu::device::run(net, args, parlor_qemu::device::Measure { stack: stack::deepest, busy: None }).await
}
