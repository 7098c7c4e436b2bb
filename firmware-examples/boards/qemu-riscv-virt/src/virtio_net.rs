//! The network card: virtio over MMIO, with one interrupt through the PLIC when frames have come. After "Virtual I/O Device
//! Version 1.2", section 4.2.2 for the registers, and the PLIC's specification 1.0.

use core::cell::RefCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::Context;
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_sync::waitqueue::AtomicWaker;
use riscv::interrupt::Interrupt;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Where the first of the machine's virtio places is; they are a page apart. Place n has line n + 1 of the PLIC.
const PLACES: usize = 0x1000_1000;
const PLACES_MAX: usize = 8;
/// Registers of a place: which interrupts are on, and where they are acknowledged.
const INTERRUPT_STATUS: usize = 0x60;
const INTERRUPT_ACK: usize = 0x64;
const PLIC_PRIORITY: usize = 0x0C00_0000;
const PLIC_ENABLE: usize = 0x0C00_2000;
const PLIC_THRESHOLD: usize = 0x0C20_0000;
const PLIC_CLAIM: usize = 0x0C20_0004;

/// Frames the card can put down before anybody looks.
const FRAMES: usize = 4;
/// A frame of 1,514 bytes and the card's header of 12.
const FRAME_BYTES: usize = 1_536;
/// Longest frame, bytes.
const FRAME: usize = 1_514;
/// Pages for the rings: two queues of descriptors, offers and returns.
const PAGES: usize = 4;

#[repr(C, align(4096))]
struct Rings([u8; PAGES * PAGE_SIZE]);

#[unsafe(link_section = ".rings")]
static mut RINGS: Rings = Rings([0; PAGES * PAGE_SIZE]);
static RINGS_TAKEN: AtomicUsize = AtomicUsize::new(0);
/// Where the card answers; 0 until it was found.
static CARD: AtomicUsize = AtomicUsize::new(0);
static WAKER: AtomicWaker = AtomicWaker::new();

/// The machine as the ring protocol sees it: addresses are what they are, and the rings are `RINGS`.
pub struct Machine;

// SAFETY: every page is handed out once, is aligned, and lies where no other code looks. Memory is identity mapped and coherent.
unsafe impl Hal for Machine {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let first = RINGS_TAKEN.fetch_add(pages, Ordering::Relaxed);
        assert!(first + pages <= PAGES, "the rings of one card fit into {PAGES} pages");
        // SAFETY: within `RINGS`, as just seen. The linker does not clear this section.
        let start = unsafe {
            let start = (&raw mut RINGS).cast::<u8>().add(first * PAGE_SIZE);
            start.write_bytes(0, pages * PAGE_SIZE);
            start
        };
        (start as usize as PhysAddr, NonNull::new(start).expect("RAM does not begin at 0"))
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as usize as *mut u8).expect("no device is at 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as usize as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

type Card = VirtIONetRaw<Machine, MmioTransport<'static>, FRAMES>;
/// Room for the frames that come.
pub type Frames = [[u8; FRAME_BYTES]; FRAMES];

/// The card, and room for frames in both directions.
pub struct VirtioNet {
    /// Both tokens of one moment reach it, one after the other.
    card: RefCell<Card>,
    address: [u8; 6],
    frames: &'static mut Frames,
    /// Which frame the card was given under which token.
    given: [usize; FRAMES],
    out: [u8; FRAME],
}

fn register(address: usize) -> *mut u32 {
    address as *mut u32
}

impl VirtioNet {
    /// Finds and starts the card. `None` if the machine has none.
    pub fn start(frames: &'static mut Frames) -> Option<Self> {
        for place in 0..PLACES_MAX {
            let address = PLACES + place * 0x1000;
            let header = NonNull::new(address as *mut VirtIOHeader)?;
            // SAFETY: each place is a virtio device of one page, present or not, as long as the machine runs.
            let Ok(transport) = (unsafe { MmioTransport::new(header, 0x1000) }) else { continue };
            if transport.device_type() != DeviceType::Network {
                continue;
            }
            let mut card = Card::new(transport).ok()?;
            let mut given = [0; FRAMES];
            for (index, frame) in frames.iter_mut().enumerate() {
                // SAFETY: the frame is looked at again only after `receive_complete` has returned it.
                let token = unsafe { card.receive_begin(frame) }.ok()?;
                *given.get_mut(usize::from(token))? = index;
            }
            CARD.store(address, Ordering::Release);
            listen(place + 1);
            let address = card.mac_address();
            return Some(Self { card: RefCell::new(card), address, frames, given, out: [0; FRAME] });
        }
        None
    }
}

/// Lets a line of the PLIC interrupt.
fn listen(line: usize) {
    // SAFETY: registers of the PLIC for hart 0 in machine mode; the handler is `came`.
    unsafe {
        register(PLIC_PRIORITY + 4 * line).write_volatile(1);
        register(PLIC_ENABLE).write_volatile(1 << line);
        register(PLIC_THRESHOLD).write_volatile(0);
        riscv::interrupt::enable_interrupt(Interrupt::MachineExternal);
    }
}

#[riscv_rt::core_interrupt(Interrupt::MachineExternal)]
fn came() {
    // SAFETY: claims the line, acknowledges at the card, hands the line back; no memory is touched.
    unsafe {
        let line = register(PLIC_CLAIM).read_volatile();
        let card = CARD.load(Ordering::Acquire);
        if card != 0 {
            let on = register(card + INTERRUPT_STATUS).read_volatile();
            register(card + INTERRUPT_ACK).write_volatile(on);
        }
        register(PLIC_CLAIM).write_volatile(line);
    }
    WAKER.wake();
}

/// A frame that has come.
pub struct Received<'a> {
    card: &'a RefCell<Card>,
    frames: &'a mut Frames,
    given: &'a mut [usize; FRAMES],
    token: u16,
}

/// Leave to send a frame.
pub struct Sending<'a> {
    card: &'a RefCell<Card>,
    out: &'a mut [u8; FRAME],
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, use_it: F) -> R {
        let index = self.given[usize::from(self.token)];
        let frame = &mut self.frames[index];
        // SAFETY: it is the frame that was given under this token, and nobody has looked at it since.
        let (header, bytes) =
            unsafe { self.card.borrow_mut().receive_complete(self.token, frame) }.expect("the token was polled");
        // The card is free meanwhile: the answer is sent from within `use_it`.
        let used = use_it(&mut frame[header..header + bytes]);
        // SAFETY: as in `start`.
        let token = unsafe { self.card.borrow_mut().receive_begin(frame) }.expect("the one taken out left its place");
        self.given[usize::from(token)] = index;
        used
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, fill: F) -> R {
        // The stack asks for no more than `capabilities` grants.
        let frame = &mut self.out[..bytes];
        let filled = fill(frame);
        // It waits until the card has read the frame, which an emulated card does at once. A refused frame is a lost one.
        let _ = self.card.borrow_mut().send(frame);
        filled
    }
}

impl Driver for VirtioNet {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, cx: &mut Context) -> Option<(Received<'_>, Sending<'_>)> {
        // Registered first: an interrupt after the look wakes.
        WAKER.register(cx.waker());
        let token = self.card.borrow().poll_receive()?;
        let received = Received { card: &self.card, frames: self.frames, given: &mut self.given, token };
        Some((received, Sending { card: &self.card, out: &mut self.out }))
    }

    fn transmit(&mut self, _: &mut Context) -> Option<Sending<'_>> {
        Some(Sending { card: &self.card, out: &mut self.out })
    }

    fn link_state(&mut self, _: &mut Context) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.address)
    }
}
