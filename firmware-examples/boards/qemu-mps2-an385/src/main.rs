//! The Cortex-M3 board `mps2-an385` under QEMU.

#![no_std]
#![no_main]

mod executor;
mod lan9118;
mod stack;
mod time;

use core::panic::PanicInfo;
use cortex_m_rt::{ExceptionFrame, entry, exception};
use embassy_executor::Spawner;
use embassy_net::{Config, Runner, StackResources};
use lan9118::Lan9118;
use parlor_qemu::{Args, entropy, exit, say};
use static_cell::StaticCell;

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    say!("PANIC {info}");
    exit(101)
}

#[exception]
unsafe fn DefaultHandler(line: i16) {
    assert!(lan9118::interrupted(line), "interrupt {line} has no handler");
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    panic!("hard fault {frame:?}")
}

#[embassy_executor::task]
async fn network(mut runner: Runner<'static, Lan9118>) -> ! {
    runner.run().await
}

#[entry]
fn entry() -> ! {
    stack::paint();
    executor::run(|spawner| spawner.spawn(board(spawner).expect("the first task has its place")))
}

#[embassy_executor::task]
async fn board(spawner: Spawner) {
    let chip = cortex_m::Peripherals::take().expect("they are taken once");
    time::start(chip.SYST);
    static ARGS: StaticCell<Args> = StaticCell::new();
    let args = ARGS.init_with(Args::read);
    let mut seed = [0; 8];
    entropy(&mut seed);
    let driver = Lan9118::start().expect("QEMU was started with -nic model=lan9118");
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
    let measure = parlor_qemu::device::Measure { stack: stack::deepest, busy: Some(executor::busy) };
    parlor_qemu::device::run(net, args, measure).await
}
