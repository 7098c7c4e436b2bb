//! Updates from a real broker, through the SDK, into a flash in memory, and through embassy-boot's own boot loader.

use crate::chip::{Chip, Part, Tear};
use embassy_boot::{BootLoader, BootLoaderConfig, State};
use parlor_boot::{BootError, Slot, Slots};
use parlor_device::flash::{Flash, FlashError};
use parlor_device::update::{Ed25519, Firmware, UpdateError};
use parlor_device::{Config, Describe, Device, Login, Mqtt, Status};
use parlor_tests::device::{BoardFlash, Road, run};
use parlor_tests::im::{House, PASSWORD, json};
use parlor_tests::operator::Operator;
use parlor_tests::raw::{Client, Version};
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::sync::{Notify, watch};

const PAGE: u32 = 4_096;
const PAGES: u32 = 6;
/// Long enough for a record in between (every 16 KiB).
const IMAGE: u32 = 20_003;

type Pages = Part<256, 4_096>;
type Words = Part<16, 4_096>;
type Both = Slots<Pages, Words>;

fn image(salt: u32) -> Vec<u8> {
    (0..IMAGE).map(|n| (n.wrapping_mul(7_919).wrapping_add(salt) >> 5).to_le_bytes()[0]).collect()
}

/// Flash with STATE, ACTIVE, DFU, and the SDK's memory.
#[derive(Clone)]
struct Board {
    chip: Rc<Chip>,
    kept: BoardFlash,
    died: Rc<Notify>,
    fetched: Rc<Cell<u32>>,
}

impl Board {
    fn new(old: &[u8]) -> Self {
        let chip = Chip::new((2 + 2 * PAGES) * PAGE);
        chip.program(PAGE, old);
        Self { chip, kept: BoardFlash::default(), died: Rc::default(), fetched: Rc::default() }
    }

    fn slots(&self) -> Both {
        let dfu = Part::new(&self.chip, (1 + PAGES) * PAGE, (1 + PAGES) * PAGE);
        Slots::new(dfu, Part::of_state(&self.chip, 0, PAGE))
    }

    /// What the boot loader starts. Its own steps are not counted: where those are cut is tried in `firmware-examples/boot`.
    fn boot(&self) -> Vec<u8> {
        let (cut, done) = (self.chip.cut.take(), self.chip.done.get());
        let dfu: Pages = Part::new(&self.chip, (1 + PAGES) * PAGE, (1 + PAGES) * PAGE);
        let active: Pages = Part::new(&self.chip, PAGE, PAGES * PAGE);
        let state: Words = Part::of_state(&self.chip, 0, PAGE);
        BootLoader::new(BootLoaderConfig { active, dfu, state }).prepare_boot(&mut [0; 256]).expect("there is power");
        self.chip.cut.set(cut);
        self.chip.done.set(done);
        self.chip.look(PAGE, IMAGE as usize)
    }

    /// Without power nothing goes on.
    async fn powered<T>(&self, result: T) -> T {
        if self.chip.dead.get() {
            self.died.notify_one();
            std::future::pending::<()>().await;
        }
        result
    }
}

/// The SDK's memory, on the same power.
struct Kept(Board);

impl Flash for Kept {
    async fn load(&mut self, key: u8) -> Result<Option<&[u8]>, FlashError> {
        self.0.kept.load(key).await
    }

    async fn store(&mut self, key: u8, fill: &dyn Fn(&mut [u8]) -> Option<usize>) -> Result<(), FlashError> {
        let step = self.0.chip.step();
        if !matches!(step, Err(_) | Ok(Some(Tear::Before))) {
            self.0.kept.store(key, fill).await?;
        }
        self.0.powered(Ok(())).await
    }
}

/// The slots, on the same power.
struct Powered(Board, Both);

impl Firmware for Powered {
    type Error = BootError;

    fn capacity(&self) -> u32 {
        self.1.capacity()
    }

    fn resume(&mut self, offset: u32) -> u32 {
        self.1.resume(offset)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), BootError> {
        self.0.fetched.set(self.0.fetched.get() + u32::try_from(bytes.len()).expect("it is a range"));
        let written = self.1.write(offset, bytes).await;
        self.0.powered(written).await
    }

    async fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), BootError> {
        let read = self.1.read(offset, out).await;
        self.0.powered(read).await
    }

    async fn finish(&mut self, size: u32) -> Result<(), BootError> {
        let finished = self.1.finish(size).await;
        self.0.powered(finished).await
    }

    async fn confirm(&mut self) -> Result<(), BootError> {
        let confirmed = self.1.confirm().await;
        self.0.powered(confirmed).await
    }
}

/// What a board is to do with an offer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum New {
    Works,
    NeverOnline,
}

/// What a board was like in the end.
struct Seen {
    /// It runs the image that it had.
    old: bool,
    /// The boot loader's state.
    state: State,
    /// Bytes that were written to the slot.
    fetched: u32,
    /// Writes and erasures, those of the boot loader apart.
    steps: u64,
    /// Why updates were not installed.
    refused: Vec<UpdateError>,
}

fn config() -> Config {
    const UPDATES: Describe = Describe { update: true, name: "Lamp", ..Describe::NOTHING };
    let login = Login::Account { name: "lamp", secret: PASSWORD.as_bytes() };
    Config { login, describe: UPDATES, pause_min_ms: 20, pause_max_ms: 200, ..Config::new("lamp-1") }
}

/// One start after the other, until it is told to stop.
fn live(addr: SocketAddr, maker: Ed25519, new: New, cut: Option<(u64, Tear)>, mut stop: watch::Receiver<bool>) -> Seen {
    let (board, old) = (Board::new(&image(1)), image(1));
    board.chip.cut.set(cut);
    let refused = RefCell::new(vec![]);
    for _ in 0..8 {
        board.chip.dead.set(false);
        let runs = board.boot();
        let version = if runs == old { "1" } else { "2" };
        assert!(version == "1" || runs == image(2), "what starts is the old image or the new one");
        if version == "2" && new == New::NeverOnline {
            continue;
        }
        let mut app = async |device: Device<'static>| {
            let mut slots = Powered(board.clone(), board.slots());
            device.online().await;
            device.finish_update(version, &mut slots).await.expect("the boot loader can be told");
            assert_eq!(slots.1.is_on_trial().await, Ok(false), "what is online has confirmed itself");
            loop {
                let update = tokio::select! {
                    update = device.next_update() => update,
                    stop = stop.wait_for(|stop| *stop) => {
                        stop.expect("the test waits for this thread");
                        assert!(device.sleep(1).await);
                        return true;
                    }
                };
                match update.install(&mut slots, &maker, &mut [0; 1_016]).await {
                    Ok(()) => return false,
                    Err(why) => refused.borrow_mut().push(why),
                }
            }
        };
        let stopped = run(config(), Mqtt::V5, &Road::to(addr), Kept(board.clone()), |device| {
            let (running, died) = (app(device), board.died.notified());
            async {
                tokio::select! {
                    stopped = running => stopped,
                    () = died => false,
                }
            }
        });
        if stopped {
            let state = now(board.slots().state()).expect("there is power");
            let steps = board.chip.done.get();
            return Seen {
                old: board.boot() == old,
                state,
                fetched: board.fetched.get(),
                steps,
                refused: refused.take(),
            };
        }
    }
    panic!("it does not come to an end");
}

/// Flash in memory is ready at once.
fn now<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be built").block_on(future)
}

/// Somebody who sends updates, and the broker that has the image.
struct Sender {
    house: House,
    alice: Client,
    blob: String,
    maker: Ed25519KeyPair,
}

impl Sender {
    fn new() -> Option<Self> {
        let house = House::with(&["alice"], &["--listen", "parlor+tcp://127.0.0.1:0"])?;
        house.add("lamp", "device");
        house.befriend("alice", "lamp");
        let mut alice = house.lasting(Version::V5, "alice", "phone");
        alice.subscribe("im/v1/#", 1);
        let answer = Operator::of(&house.broker).post("/blobs?name=lamp.bin&version=2&for=lamp", &image(2));
        let blob = answer.json()["id"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned();
        let maker = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
        Some(Self { house, alice, blob, maker })
    }

    fn key(&self) -> Ed25519 {
        Ed25519(self.maker.public_key().as_ref().try_into().expect("32 bytes"))
    }

    fn send(&mut self, command: &str, size: u32, sha256: &str, signed: &str) {
        let hex = |n: usize| u8::from_str_radix(&signed[2 * n..2 * n + 2], 16).expect("hex");
        let digest: Vec<u8> = (0..32).map(hex).collect();
        let signature = <base64ct::Base64 as base64ct::Encoding>::encode_string(self.maker.sign(&digest).as_ref());
        let blob = &self.blob;
        let args =
            format!(r#"{{"blob":"{blob}","version":"2","size":{size},"sha256":"{sha256}","signature":"{signature}"}}"#);
        let payload = format!(r#"{{"args":{args},"id":"{command}","persist":true}}"#);
        self.alice.publish_for(1, "im/v1/to/lamp/cmd/update", payload);
    }

    fn good(&mut self, command: &str) {
        let id = self.blob.clone();
        self.send(command, IMAGE, &id, &id);
    }

    /// What the sender is told in the end.
    fn outcome(&mut self, command: &str) -> String {
        let topic = format!("im/v1/me/res/{command}");
        loop {
            let told = json(&self.alice.on(&topic));
            match told["state"].as_str() {
                Some(state @ ("done" | "failed" | "rejected")) => break state.to_owned(),
                state => assert!(matches!(state, None | Some("queued" | "sent" | "delivered" | "running")), "{told}"),
            }
        }
    }

    /// A board that is offered these; what the sender is told in the end, and what the board was like.
    fn update(&mut self, commands: &[&str], new: New, cut: Option<(u64, Tear)>) -> (Vec<String>, Seen) {
        let (key, addr) = (self.key(), self.house.broker.addr());
        let (stop, stopped) = watch::channel(false);
        let board = std::thread::spawn(move || live(addr, key, new, cut, stopped));
        let told = commands.iter().map(|command| self.outcome(command)).collect();
        stop.send(true).expect("the board waits for it");
        (told, board.join().expect("the board is content"))
    }
}

#[test]
fn an_update_goes_through_the_boot_loader_and_back_when_it_is_no_good() {
    let Some(mut sender) = Sender::new() else { return };
    for (command, new, state) in [("u1", New::Works, "done"), ("u2", New::NeverOnline, "failed")] {
        sender.good(command);
        let (told, seen) = sender.update(&[command], new, None);
        assert_eq!((&told[..], seen.old), (&[state.to_owned()][..], new == New::NeverOnline));
        assert_eq!((seen.fetched, seen.refused.len()), (IMAGE, 0));
    }
}

/// The broker gives a device the next command when the one before has its outcome.
#[test]
fn updates_are_taken_one_after_the_other() {
    let Some(mut sender) = Sender::new() else { return };
    let all = ["first", "second"];
    for command in all {
        sender.good(command);
    }
    let (told, seen) = sender.update(&all, New::Works, None);
    assert_eq!((told, seen.old, seen.fetched), (vec!["done".to_owned(); 2], false, 2 * IMAGE));
}

/// The broker offers it again, for the offer was not acknowledged; nobody takes it, and it must not be in the image's way.
#[test]
fn a_connection_that_is_lost_with_the_offer_in_hand_does_not_stop_the_update() {
    let Some(mut sender) = Sender::new() else { return };
    sender.good("u1");
    let (key, addr) = (sender.key(), sender.house.broker.addr());
    let device = std::thread::spawn(move || {
        let (board, road) = (Board::new(&image(1)), Road::to(addr));
        run(config(), Mqtt::V5, &road, Kept(board.clone()), |device| {
            let (road, board) = (road.clone(), board.clone());
            async move {
                let update = device.next_update().await;
                road.cut();
                while device.status_after(Status::Online).await == Status::Online {}
                device.online().await;
                // More ranges than the broker sends without an acknowledgement.
                let mut slots = Powered(board.clone(), board.slots());
                update.install(&mut slots, &key, &mut [0; 216]).await.expect("it is installed");
                assert!(device.sleep(1).await);
            }
        });
        let starts = board.boot();
        assert!(starts == image(2), "the boot loader starts another image");
    });
    device.join().expect("the device is content");
}

#[test]
fn what_is_not_the_makers_is_never_marked() {
    let Some(mut sender) = Sender::new() else { return };
    let (blob, other) = (sender.blob.clone(), "5a".repeat(32));
    for (command, size, sha256, signed, why, state) in [
        ("w1", IMAGE, &blob, &other, UpdateError::Signature, "rejected"),
        ("w2", IMAGE, &other, &other, UpdateError::Checksum, "failed"),
        ("w3", IMAGE - 1, &blob, &blob, UpdateError::Checksum, "failed"),
        ("w4", PAGES * PAGE + 1, &blob, &blob, UpdateError::TooLarge, "rejected"),
    ] {
        sender.send(command, size, sha256, signed);
        let (told, seen) = sender.update(&[command], New::Works, None);
        assert_eq!((told[0].as_str(), &seen.refused[..]), (state, &[why][..]), "{command}");
        assert!(seen.old && seen.state == State::Boot, "{command}: the boot loader was told nothing");
    }
}

#[test]
fn a_power_cut_in_an_update_leaves_an_outcome_and_a_whole_image() {
    let Some(mut sender) = Sender::new() else { return };
    sender.good("whole");
    let (told, whole) = sender.update(&["whole"], New::Works, None);
    assert_eq!(told, ["done"]);
    assert!(whole.steps > 80, "{}", whole.steps);
    let tears = |at: u64| match at {
        // The end has the records, the mark and the confirmation.
        at if at + 16 > whole.steps => &[Tear::Before, Tear::Within][..],
        at if at % 2 == 0 => &[Tear::Before],
        _ => &[Tear::Within],
    };
    let cuts: Vec<(u64, Tear)> =
        (0..whole.steps).flat_map(|at| tears(at).iter().map(move |tear| (at, *tear))).collect();
    let (mut done, mut most_again) = (0, 0);
    for cut in &cuts {
        let command = format!("cut{}{:?}", cut.0, cut.1);
        sender.good(&command);
        let (told, seen) = sender.update(&[command.as_str()], New::Works, Some(*cut));
        let told = told[0].as_str();
        assert!(told == "done" || told == "failed", "{command}: {told}");
        assert_eq!(seen.old, told == "failed", "{command}: what runs is what was said");
        done += usize::from(told == "done");
        most_again = most_again.max(seen.fetched.saturating_sub(IMAGE));
    }
    // It fails where the power goes between the record and the mark, or on trial.
    assert!(done + 12 >= cuts.len(), "{done} of {}", cuts.len());
    assert!(most_again <= 16_384 + 1_000 + PAGE, "{most_again} bytes were fetched again");
}
