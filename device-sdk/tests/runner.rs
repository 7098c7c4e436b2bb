//! The runner over a connection in memory: a broker that is silent, one that says nonsense, one that comes back.

use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use parlor_device::flash::{Flash, FlashError, NoFlash};
use parlor_device::transport::{Clock, Connector, Link};
use parlor_device::{
    Config, Device, Keep, LinkError, Listen, Login, Mqtt, Parts, Place, Policy, Resources, SendError, Status, new,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::Instant;

/// The clock of the runtime, which stands still while something can be done and jumps when nothing can.
struct VirtualClock;

thread_local! {
    static START: RefCell<Option<Instant>> = const { RefCell::new(None) };
}

fn start() -> Instant {
    START.with(|start| *start.borrow_mut().get_or_insert_with(Instant::now))
}

impl Clock for VirtualClock {
    fn now_ms() -> u64 {
        u64::try_from(start().elapsed().as_millis()).expect("no ages pass") + 1
    }

    async fn sleep_until(ms: u64) {
        tokio::time::sleep_until(start() + Duration::from_millis(ms)).await;
    }
}

/// Gives the connections that the test has made, one after the other.
#[derive(Clone, Default)]
struct Pipes(Rc<RefCell<VecDeque<DuplexStream>>>, Rc<RefCell<Vec<u64>>>);

impl Connector for Pipes {
    type Link<'a> = Pipe;

    async fn connect(&mut self) -> Result<Pipe, LinkError> {
        self.1.borrow_mut().push(VirtualClock::now_ms());
        let stream = self.0.borrow_mut().pop_front().ok_or(LinkError::Unreachable)?;
        Ok(Pipe(split(stream)))
    }
}

struct Pipe((ReadHalf<DuplexStream>, WriteHalf<DuplexStream>));
struct Reading<'a>(&'a mut ReadHalf<DuplexStream>);
struct Writing<'a>(&'a mut WriteHalf<DuplexStream>);

impl Link for Pipe {
    type Read<'a> = Reading<'a>;
    type Write<'a> = Writing<'a>;

    fn split(&mut self) -> (Reading<'_>, Writing<'_>) {
        (Reading(&mut self.0.0), Writing(&mut self.0.1))
    }

    fn why<'a>(error: &ErrorKind) -> LinkError
    where
        Self: 'a,
    {
        if *error == ErrorKind::PermissionDenied { LinkError::CredentialsRevoked } else { LinkError::Closed }
    }
}

/// For this byte the transport reports that the broker does not accept the device.
const REFUSED: u8 = 0xFE;

impl ErrorType for Reading<'_> {
    type Error = ErrorKind;
}

impl Read for Reading<'_> {
    async fn read(&mut self, bytes: &mut [u8]) -> Result<usize, ErrorKind> {
        let len = self.0.read(bytes).await.map_err(|_| ErrorKind::Other)?;
        if bytes[..len].first() == Some(&REFUSED) { Err(ErrorKind::PermissionDenied) } else { Ok(len) }
    }
}

impl ErrorType for Writing<'_> {
    type Error = ErrorKind;
}

impl Write for Writing<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.write(bytes).await.map_err(|_| ErrorKind::Other)
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// Flash that takes the number of the start, and nothing more.
struct WornOut;

impl Flash for WornOut {
    async fn load(&mut self, _key: u8) -> Result<Option<&[u8]>, FlashError> {
        Ok(None)
    }

    async fn store(&mut self, key: u8, _fill: &dyn Fn(&mut [u8]) -> Option<usize>) -> Result<(), FlashError> {
        if key == 0 { Ok(()) } else { Err(FlashError) }
    }
}

const POLICIES: &[Policy] = &[
    Policy { topic: "kept", keep: Keep::All, place: Place::Flash },
    Policy { topic: "kept/#", keep: Keep::All, place: Place::Flash },
];

/// Runs a device and `test`, until that ends; an hour of virtual time is too long.
fn run<T: Future>(pipes: &Pipes, test: impl FnOnce(Device<'static>) -> T) -> T::Output {
    run_with(pipes, NoFlash, test)
}

/// The same with flash.
fn run_with<T: Future>(pipes: &Pipes, flash: impl Flash, test: impl FnOnce(Device<'static>) -> T) -> T::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be built");
    runtime.block_on(async {
        START.with(|start| *start.borrow_mut() = Some(Instant::now()));
        let resources: &'static mut Resources<256, 256, 512, 512> = Box::leak(Box::default());
        let config =
            Config { login: Login::Anonymous, listen: Listen::OTHER_BROKER, policies: POLICIES, ..Config::new("lamp") };
        let parts = Parts { connector: pipes.clone(), flash, clock: VirtualClock, seed: 7 };
        let (device, mut runner) = new(resources, config, Mqtt::V5, parts);
        tokio::select! {
            never = runner.run() => never,
            done = tokio::time::timeout(Duration::from_hours(1), test(device)) => done.expect("done in time"),
        }
    })
}

/// The broker's end of the next connection.
fn pipe(pipes: &Pipes) -> DuplexStream {
    let (here, there) = duplex(4_096);
    pipes.0.borrow_mut().push_back(there);
    here
}

const CONNACK: [u8; 5] = [0x20, 3, 0, 0, 0];

/// Lets the device in.
async fn welcome(broker: &mut DuplexStream) {
    let mut bytes = [0; 200];
    let len = broker.read(&mut bytes).await.expect("the device is there");
    assert_eq!(bytes[0], 0x10, "CONNECT comes first: {:?}", &bytes[..len]);
    broker.write_all(&CONNACK).await.expect("the device is there");
}

async fn offline(device: Device<'_>) -> LinkError {
    let mut status = device.status();
    loop {
        if let Status::Offline(why) = status {
            return why;
        }
        status = device.status_after(status).await;
    }
}

#[test]
fn a_broker_that_never_answers_is_given_up() {
    let pipes = Pipes::default();
    let _silent = pipe(&pipes);
    run(&pipes, |device| async move {
        assert_eq!(offline(device).await, LinkError::Timeout);
        assert!((20_000..21_000).contains(&VirtualClock::now_ms()), "{}", VirtualClock::now_ms());
    });
}

/// What the transport knows about the end is not lost, and where trying again is pointless the pause is long.
#[test]
fn a_transport_that_says_why_is_believed() {
    let pipes = Pipes::default();
    let mut broker = pipe(&pipes);
    run(&pipes, |device| async move {
        broker.write_all(&[REFUSED]).await.expect("the device is there");
        assert_eq!(offline(device).await, LinkError::CredentialsRevoked);
    });
}

#[test]
fn a_connection_that_falls_silent_is_given_up() {
    let pipes = Pipes::default();
    let mut broker = pipe(&pipes);
    run(&pipes, |device| async move {
        welcome(&mut broker).await;
        device.online().await;
        let mut ping = [0; 2];
        broker.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [0xC0, 0]);
        let pinged = VirtualClock::now_ms();
        assert!((22_000..23_000).contains(&pinged), "three quarters of the keep alive: {pinged}");
        assert_eq!(offline(device).await, LinkError::Timeout);
        let gone = VirtualClock::now_ms() - pinged;
        assert!((15_000..15_100).contains(&gone), "half of it later: {gone}");
    });
}

#[test]
fn one_that_answers_is_kept() {
    let pipes = Pipes::default();
    let mut broker = pipe(&pipes);
    run(&pipes, |device| async move {
        welcome(&mut broker).await;
        for _ in 0..20 {
            let mut ping = [0; 2];
            broker.read_exact(&mut ping).await.unwrap();
            broker.write_all(&[0xD0, 0]).await.unwrap();
        }
        assert_eq!(device.status(), Status::Online);
        assert!(VirtualClock::now_ms() > 400_000);
    });
}

#[test]
fn nonsense_and_what_is_too_long_end_the_connection() {
    for (said, expect) in [(vec![0xFF; 10], LinkError::Protocol), (vec![0x30, 0xFF, 0x7F], LinkError::TooLarge)] {
        let pipes = Pipes::default();
        let mut broker = pipe(&pipes);
        run(&pipes, |device| async move {
            welcome(&mut broker).await;
            device.online().await;
            broker.write_all(&said).await.unwrap();
            if expect == LinkError::TooLarge {
                broker.write_all(&[0; 300]).await.unwrap();
            }
            assert_eq!(offline(device).await, expect);
        });
    }
}

/// What was published and not acknowledged is published again on the next connection, and the call that waits for it
/// never learns of the cut.
#[test]
fn what_is_not_acknowledged_is_sent_again() {
    let pipes = Pipes::default();
    let mut first = pipe(&pipes);
    let mut second = pipe(&pipes);
    run(&pipes, |device| async move {
        let broker = async {
            welcome(&mut first).await;
            let mut bytes = [0; 100];
            let len = first.read(&mut bytes).await.unwrap();
            assert_eq!(&bytes[..len], [0x32, 9, 0, 3, b'a', b'/', b'b', 0, 1, 0, b'1']);
            drop(first);
            welcome(&mut second).await;
            let len = second.read(&mut bytes).await.unwrap();
            // The broker has forgotten the session: it is another packet.
            assert_eq!(&bytes[..len], [0x32, 9, 0, 3, b'a', b'/', b'b', 0, 2, 0, b'1']);
            second.write_all(&[0x40, 2, 0, 2]).await.unwrap();
            second
        };
        let publish = async {
            let sent = device.publish("a/b", b"1").await.unwrap();
            sent.acked().await
        };
        let (_second, outcome) = tokio::join!(broker, publish);
        assert_eq!(outcome, parlor_device::Outcome::Acked { seq: 0 });
    });
}

/// What could not be kept is refused to the caller, who would else believe that a reboot cannot lose it; also while flash
/// cannot even be told to forget it.
#[test]
fn what_flash_does_not_take_is_refused() {
    run_with(&Pipes::default(), WornOut, |device| async move {
        for _ in 0..40 {
            let refused = device.publish("kept/a", b"1").await.map(drop);
            assert_eq!(refused, Err(SendError::Flash));
        }
        assert_eq!(device.waiting(), 0);
    });
}

/// Nobody waits for flash that takes nothing, least of all with an open radio.
#[test]
fn a_board_sleeps_though_its_flash_is_worn_out() {
    run_with(&Pipes::default(), WornOut, |device| async move {
        assert_eq!(device.publish("kept/a", b"1").await.map(drop), Err(SendError::Flash));
        let began = VirtualClock::now_ms();
        assert!(!device.sleep(60).await, "there is no broker to tell");
        assert!(VirtualClock::now_ms() - began < 15_000, "{}", VirtualClock::now_ms() - began);
    });
}

/// Whatever the number of attempts, pauses grow to the longest and no further.
#[test]
fn it_tries_again_with_pauses() {
    let pipes = Pipes::default();
    run(&pipes, |device| async move {
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert_eq!(device.status(), Status::Offline(LinkError::Unreachable));
    });
    let attempts = pipes.1.borrow();
    let pauses: Vec<u64> = attempts.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[0] <= 1_001 && pauses[10] >= 30_000 && pauses.iter().all(|pause| *pause <= 60_001), "{pauses:?}");
}

/// Whoever is in a hurry waits for no pause; whoever was while there was a connection does.
#[test]
fn a_hurry_ends_one_pause() {
    let pipes = Pipes::default();
    run(&pipes, |device| async move {
        tokio::time::sleep(Duration::from_mins(10)).await;
        device.connect_now();
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    {
        let attempts = pipes.1.borrow();
        let &[.., before, last] = attempts.as_slice() else { panic!("{attempts:?}") };
        assert!((600_000..600_010).contains(&last) && last - before < 60_000, "{attempts:?}");
    }
    let pipes = Pipes::default();
    let mut broker = pipe(&pipes);
    let again = pipes.1.clone();
    run(&pipes, |device| async move {
        welcome(&mut broker).await;
        device.online().await;
        device.connect_now();
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(broker);
        offline(device).await;
        let cut = VirtualClock::now_ms();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let next = again.borrow()[1];
        assert!(next >= cut + 500, "it waits at least half of the shortest pause: {}", next - cut);
    });
}

/// Flash that fails at whatever it is to keep, but for the number of the start.
#[derive(Clone, Default)]
struct Broken(Rc<RefCell<Vec<u64>>>);

impl Flash for Broken {
    async fn load(&mut self, _: u8) -> Result<Option<&[u8]>, FlashError> {
        Ok(None)
    }

    async fn store(&mut self, key: u8, _: &dyn Fn(&mut [u8]) -> Option<usize>) -> Result<(), FlashError> {
        if key == 0 {
            return Ok(());
        }
        self.0.borrow_mut().push(VirtualClock::now_ms());
        Err(FlashError)
    }
}

/// Writing is tried again after a pause, three times until whoever waits hears of it; and what a reboot would find is tried to be
/// forgotten further on.
#[test]
fn flash_that_fails_is_tried_again_with_pauses() {
    let pipes = Pipes::default();
    let flash = Broken::default();
    run_with(&pipes, flash.clone(), |device| async move {
        let queued = VirtualClock::now_ms();
        let refused = device.publish("kept", b"1").await.map(drop);
        assert_eq!(refused, Err(SendError::Flash), "it is given up after three tries");
        assert!((2_000..2_100).contains(&(VirtualClock::now_ms() - queued)));
        tokio::time::sleep(Duration::from_secs(10)).await;
    });
    let tries = flash.0.borrow();
    assert!((10..=14).contains(&tries.len()), "{tries:?}");
    assert!(tries.windows(2).all(|two| (1_000..1_010).contains(&(two[1] - two[0]))), "{tries:?}");
}
