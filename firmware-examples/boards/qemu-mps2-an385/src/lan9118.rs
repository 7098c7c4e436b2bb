//! The Ethernet chip of the board, a LAN9118: programmed I/O, one interrupt when a frame has come. After its data sheet (SMSC,
//! revision 1.5), section 5 for the registers.

use core::ptr::{read_volatile, write_volatile};
use core::task::Context;
use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;

/// Where the chip answers.
const BASE: usize = 0x4020_0000;
/// Its interrupt line.
const LINE: u16 = 13;
/// Longest frame without its checksum, bytes.
const FRAME: usize = 1_514;
/// The same in words, with room for the checksum.
const FRAME_WORDS: usize = (FRAME + 4).div_ceil(4);

#[derive(Clone, Copy)]
#[repr(usize)]
enum Register {
    RxData = 0x00,
    TxData = 0x20,
    RxStatus = 0x40,
    TxStatus = 0x48,
    InterruptConfig = 0x54,
    InterruptStatus = 0x58,
    InterruptEnable = 0x5C,
    ByteTest = 0x64,
    FifoInterrupt = 0x68,
    RxConfig = 0x6C,
    TxConfig = 0x70,
    HardwareConfig = 0x74,
    RxFifo = 0x7C,
    TxFifo = 0x80,
    MacCommand = 0xA4,
    MacData = 0xA8,
}

/// Registers of the MAC, reached through `MacCommand` and `MacData`.
const MAC_CONTROL: u32 = 1;
const MAC_ADDRESS_HIGH: u32 = 2;
const MAC_ADDRESS_LOW: u32 = 3;
/// A MAC register's access is under way.
const MAC_BUSY: u32 = 1 << 31;
const MAC_READ: u32 = 1 << 30;
/// A frame has come (RX status FIFO level).
const FRAME_CAME: u32 = 1 << 3;

/// Wakes the stack.
static WAKER: AtomicWaker = AtomicWaker::new();

fn read(register: Register) -> u32 {
    // SAFETY: an aligned register of the chip that is mapped at `BASE`; reading has no effect on memory.
    unsafe { read_volatile((BASE + register as usize) as *const u32) }
}

fn write(register: Register, value: u32) {
    // SAFETY: as above; the chip has no access to memory.
    unsafe { write_volatile((BASE + register as usize) as *mut u32, value) }
}

fn mac_ready() {
    while read(Register::MacCommand) & MAC_BUSY != 0 {}
}

fn mac_read(register: u32) -> u32 {
    mac_ready();
    write(Register::MacCommand, MAC_BUSY | MAC_READ | register);
    mac_ready();
    read(Register::MacData)
}

fn mac_write(register: u32, value: u32) {
    mac_ready();
    write(Register::MacData, value);
    write(Register::MacCommand, MAC_BUSY | register);
    mac_ready();
}

#[derive(Clone, Copy)]
struct Line;

// SAFETY: the number is that of the chip's line on this board, and nothing else uses it.
unsafe impl InterruptNumber for Line {
    fn number(self) -> u16 {
        LINE
    }
}

/// To be called for every interrupt without a handler of its own. Whether it was the chip's.
pub fn interrupted(line: i16) -> bool {
    if line != LINE as i16 {
        return false;
    }
    // Silent until `receive` has looked.
    write(Register::InterruptEnable, 0);
    WAKER.wake();
    true
}

/// The chip, and room for one frame in each direction.
pub struct Lan9118 {
    address: [u8; 6],
    rx: [u32; FRAME_WORDS],
    tx: [u32; FRAME_WORDS],
}

impl Lan9118 {
    /// Resets and starts it. `None` if it is not there.
    pub fn start() -> Option<Self> {
        if read(Register::ByteTest) != 0x8765_4321 {
            return None;
        }
        write(Register::HardwareConfig, 1);
        while read(Register::HardwareConfig) & 1 != 0 {}
        // 5 KiB for frames that go out; store and forward, which must be on.
        write(Register::HardwareConfig, (5 << 16) | (1 << 20));
        write(Register::InterruptEnable, 0);
        write(Register::InterruptStatus, u32::MAX);
        // RX status level 0: an interrupt at every frame.
        write(Register::FifoInterrupt, 0x4800_0000);
        // Enabled, active high, push-pull: with any other polarity this board's line is permanently on.
        write(Register::InterruptConfig, (1 << 8) | (1 << 4) | 1);
        write(Register::RxConfig, 0);
        write(Register::TxConfig, 1 << 1);
        let [low, high] = [mac_read(MAC_ADDRESS_LOW), mac_read(MAC_ADDRESS_HIGH)].map(u32::to_le_bytes);
        // Full duplex, transmitter and receiver on, not promiscuous.
        mac_write(MAC_CONTROL, (1 << 20) | (1 << 3) | (1 << 2));
        // SAFETY: the handler is in place from the start and no critical section depends on this line.
        unsafe { NVIC::unmask(Line) };
        let address = [low[0], low[1], low[2], low[3], high[0], high[1]];
        Some(Self { address, rx: [0; FRAME_WORDS], tx: [0; FRAME_WORDS] })
    }

    fn tokens(&mut self) -> (Received<'_>, Sending<'_>) {
        (Received(&mut self.rx), Sending(&mut self.tx))
    }
}

fn frames_waiting() -> bool {
    read(Register::RxFifo) & 0x00FF_0000 != 0
}

fn as_bytes(words: &mut [u32; FRAME_WORDS]) -> &mut [u8] {
    // SAFETY: every word is four bytes, any bytes are a word, and the borrow goes on.
    unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), FRAME_WORDS * 4) }
}

/// A frame that waits in the chip.
pub struct Received<'a>(&'a mut [u32; FRAME_WORDS]);
/// Leave to send a frame.
pub struct Sending<'a>(&'a mut [u32; FRAME_WORDS]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, use_it: F) -> R {
        // With its checksum of 4 bytes.
        let bytes = (read(Register::RxStatus) >> 16 & 0x3FFF) as usize;
        for place in 0..bytes.div_ceil(4) {
            let word = read(Register::RxData);
            if let Some(slot) = self.0.get_mut(place) {
                *slot = word;
            }
        }
        use_it(&mut as_bytes(self.0)[..bytes.saturating_sub(4).min(FRAME)])
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, fill: F) -> R {
        // The stack asks for no more than `capabilities` grants.
        let filled = fill(&mut as_bytes(self.0)[..bytes]);
        while read(Register::TxFifo) & 0x00FF_0000 != 0 {
            read(Register::TxStatus);
        }
        // First and last segment in one.
        write(Register::TxData, (1 << 13) | (1 << 12) | bytes as u32);
        write(Register::TxData, bytes as u32);
        for word in &self.0[..bytes.div_ceil(4)] {
            write(Register::TxData, *word);
        }
        filled
    }
}

impl Driver for Lan9118 {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, cx: &mut Context) -> Option<(Received<'_>, Sending<'_>)> {
        if !frames_waiting() {
            WAKER.register(cx.waker());
            write(Register::InterruptStatus, FRAME_CAME);
            write(Register::InterruptEnable, FRAME_CAME);
            // One that came between the look and the acknowledgement would never be announced.
            if !frames_waiting() {
                return None;
            }
        }
        Some(self.tokens())
    }

    fn transmit(&mut self, cx: &mut Context) -> Option<Sending<'_>> {
        if (read(Register::TxFifo) & 0xFFFF) as usize >= FRAME + 16 {
            return Some(self.tokens().1);
        }
        // The chip empties this FIFO by itself within microseconds.
        cx.waker().wake_by_ref();
        None
    }

    fn link_state(&mut self, _: &mut Context) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME;
        // No burst limit: one would clamp the TCP window to a segment. What the chip's 10 KiB cannot hold is sent again.
        capabilities.max_burst_size = None;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.address)
    }
}
