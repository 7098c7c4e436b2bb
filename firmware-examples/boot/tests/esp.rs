//! `OtaSlots` under Espressif's boot loader, as it is built with and without rollback (ESP-IDF 5, `bootloader_utility.c`):
//! a model of it, for the real one runs on the chip only. What `otadata` looks like is held against the crate
//! esp-bootloader-esp-idf.

mod life;

use embassy_futures::block_on;
use esp_bootloader_esp_idf::ota::{Ota, OtaImageState};
use esp_bootloader_esp_idf::partitions::{
    AppPartitionSubType, DataPartitionSubType, FlashStorage, PARTITION_TABLE_MAX_LEN, PartitionType,
    read_partition_table,
};
use life::flash::{Chip, Dead, Part};
use life::{Board, Broken, New, Plan, cut_everywhere, image, live};
use parlor_boot::{BootError, OtaSlots, Otadata, Slot, Start, State};
use parlor_device::update::Firmware;
use std::rc::Rc;

const SECTOR: u32 = 4_096;
const SLOT: u32 = 2 * SECTOR;

type Sectors = Part<4, 4_096>;

/// `otadata`, `ota_0`, `ota_1`.
struct Esp {
    chip: Rc<Chip>,
    /// The boot loader goes back by itself.
    counts: bool,
    running: u8,
    images: [Vec<u8>; 2],
}

#[derive(Clone, Copy)]
struct Entry {
    seq: u32,
    state: u32,
    whole: bool,
}

const NEW: u32 = 0;
const PENDING: u32 = 1;
const INVALID: u32 = 3;
const ABORTED: u32 = 4;

impl Entry {
    fn is_out(self) -> bool {
        self.seq == u32::MAX || self.state == INVALID || self.state == ABORTED
    }

    fn is_valid(self) -> bool {
        self.whole && !self.is_out()
    }
}

fn crc(seq: u32) -> u32 {
    let mut crc = 0_u32;
    for bit in 0..32 {
        let carry = (crc ^ (seq >> bit)) & 1;
        crc = (crc >> 1) ^ (carry * 0xEDB8_8320);
    }
    !crc
}

impl Esp {
    fn new(old: &[u8], new: &[u8], counts: bool) -> Self {
        let chip = Chip::new(2 * SECTOR + 2 * SLOT);
        chip.program(2 * SECTOR, old);
        Self { chip, counts, running: 0, images: [old.to_vec(), new.to_vec()] }
    }

    fn otadata(&self) -> Sectors {
        Part::of_state(&self.chip, 0, 2 * SECTOR)
    }

    fn slot(&self, n: u8) -> Sectors {
        Part::new(&self.chip, 2 * SECTOR + u32::from(n) * SLOT, SLOT)
    }

    fn entry(&self, at: u32) -> Entry {
        let bytes = self.chip.look(at * SECTOR, 32);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Entry { seq: word(0), state: word(24), whole: word(28) == crc(word(0)) }
    }

    /// Reads the sector's entry, erases it, writes it with this state.
    fn put_state(&self, at: u32, state: u32) -> Result<(), Dead> {
        use embedded_storage::nor_flash::NorFlash;
        let mut bytes = self.chip.look(at * SECTOR, 32);
        bytes[24..28].copy_from_slice(&state.to_le_bytes());
        self.otadata().erase(at * SECTOR, (at + 1) * SECTOR)?;
        self.otadata().write(at * SECTOR, &bytes)
    }

    /// An image whose checksum is right: one of those that there are.
    fn is_image(&self, slot: u8) -> bool {
        let there = self.chip.look(2 * SECTOR + u32::from(slot) * SLOT, SLOT as usize);
        self.images.iter().any(|image| there.starts_with(image))
    }
}

impl Board for Esp {
    type Slots = OtaSlots<Sectors, Sectors>;

    fn chip(&self) -> &Rc<Chip> {
        &self.chip
    }

    fn load(&mut self) -> Result<Vec<u8>, Dead> {
        if self.counts {
            for at in 0..2 {
                if self.entry(at).is_valid() && self.entry(at).state == PENDING {
                    self.put_state(at, ABORTED)?;
                }
            }
        }
        let entries = [self.entry(0), self.entry(1)];
        let valid = (0..2u32).filter(|at| entries[*at as usize].is_valid());
        let active = valid.max_by_key(|at| entries[*at as usize].seq);
        let mut slot = active.map_or(0, |at| ((entries[at as usize].seq - 1) % 2) as u8);
        if let Some(at) = active
            && self.counts
            && entries[at as usize].state == NEW
        {
            self.put_state(at, PENDING)?;
        }
        if !self.is_image(slot) {
            slot = 1 - slot;
        }
        self.running = slot;
        Ok(self.chip.look(2 * SECTOR + u32::from(slot) * SLOT, SLOT as usize))
    }

    fn slots(&self) -> Self::Slots {
        OtaSlots::new(self.slot(1 - self.running), self.otadata(), self.running)
    }

    fn start(&self, slots: &mut Self::Slots) -> Result<bool, BootError> {
        Ok(block_on(slots.start())? != Start::GoBack)
    }
}

fn plan<'a>(old: &'a [u8], new: &'a [u8], is: New) -> Plan<'a> {
    Plan { old, new, is, keep: 1_000, cut: None }
}

#[test]
fn updates_follow_one_another() {
    let images = [image(7_000, 1), image(8_001, 2)];
    for counts in [false, true] {
        let mut board = Esp::new(&images[0], &images[1], counts);
        for n in 0..5 {
            let seen = live(&mut board, &plan(&images[n % 2], &images[1 - n % 2], New::Works)).expect("it goes well");
            assert!(seen.updated && seen.done);
            assert_eq!(usize::from(board.running), 1 - n % 2);
            let selected = block_on(Otadata::new(board.otadata()).selection());
            assert_eq!(selected, Ok(Some((board.running, State::Valid))));
        }
    }
}

#[test]
fn an_image_that_is_not_confirmed_is_rolled_back() {
    let images = [image(7_000, 1), image(8_001, 2)];
    for counts in [false, true] {
        let mut board = Esp::new(&images[0], &images[1], counts);
        for _ in 0..3 {
            let seen = live(&mut board, &plan(&images[0], &images[1], New::Fails)).expect("it goes back");
            assert!(!seen.updated && !seen.done);
            assert_eq!(board.running, 0);
        }
        let seen = live(&mut board, &plan(&images[0], &images[1], New::Works)).expect("it goes well");
        assert!(seen.updated && seen.done);
    }
}

#[test]
fn a_power_cut_at_any_word_leaves_the_old_image_or_the_new_one() {
    let images = [image(7_000, 1), image(8_001, 2)];
    for (counts, is) in [(false, New::Works), (true, New::Works), (false, New::Fails), (true, New::Fails)] {
        let plan = plan(&images[0], &images[1], is);
        let seen = cut_everywhere(|| Esp::new(&images[0], &images[1], counts), &plan, 1)
            .unwrap_or_else(|why| panic!("{counts} {is:?}: {why:?}"));
        assert!(seen.len() > 4_000, "{}", seen.len());
        assert!(seen.iter().all(|seen| seen.done == seen.updated && seen.twice == 0));
        // Where the power goes between the record and the switch, on trial, or while it is confirmed, it goes back.
        let updated = seen.iter().filter(|seen| seen.updated).count();
        let expected = if is == New::Works { seen.len() } else { 0 };
        assert!(expected - updated <= 100, "{updated} of {}", seen.len());
    }
}

/// A boot loader without rollback, under firmware that does not look at its start.
struct Trusting(Esp);

impl Board for Trusting {
    type Slots = OtaSlots<Sectors, Sectors>;

    fn chip(&self) -> &Rc<Chip> {
        &self.0.chip
    }

    fn load(&mut self) -> Result<Vec<u8>, Dead> {
        self.0.load()
    }

    fn slots(&self) -> Self::Slots {
        self.0.slots()
    }

    fn start(&self, _: &mut Self::Slots) -> Result<bool, BootError> {
        Ok(true)
    }
}

#[test]
fn firmware_that_does_not_look_is_caught() {
    let images = [image(7_000, 1), image(8_001, 2)];
    let mut board = Trusting(Esp::new(&images[0], &images[1], false));
    assert_eq!(live(&mut board, &plan(&images[0], &images[1], New::Fails)), Err(Broken::Endless));
}

/// The boot loader found the image broken that it was to start, and took the other.
#[test]
fn an_update_works_after_the_boot_loader_fell_back() {
    let images = [image(7_000, 1), image(8_001, 2)];
    let mut board = Esp::new(&images[0], &images[1], false);
    live(&mut board, &plan(&images[0], &images[1], New::Works)).expect("it goes well");
    assert_eq!(board.running, 1);
    board.chip.program(2 * SECTOR + SLOT, &[0; 100]);
    board.load().expect("there is power");
    assert_eq!(board.running, 0);
    assert_eq!(block_on(board.slots().is_on_trial()), Ok(false));
    for is in [New::Fails, New::Works] {
        let seen = live(&mut board, &plan(&images[0], &images[1], is)).expect("it comes to an end");
        assert_eq!(seen.updated, is == New::Works);
    }
}

/// A table with the three partitions, as `boards/esp32c3/partitions.csv` has them, but shorter; after it `otadata`.
const TABLE: u32 = 0x8000;
const OTADATA: u32 = 0xF000;

fn table() -> Vec<u8> {
    let rows = [(1u8, 0u8, OTADATA, 0x2000u32), (0, 0x10, 0x1_0000, 0x1_0000), (0, 0x11, 0x2_0000, 0x1_0000)];
    let mut bytes = vec![];
    for (kind, sub, offset, len) in rows {
        bytes.extend([0xAA, 0x50, kind, sub]);
        bytes.extend(offset.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend([0; 20]);
    }
    bytes.resize(PARTITION_TABLE_MAX_LEN, 0xFF);
    bytes
}

/// What the crate reads in these two sectors.
fn read_by_crate(sectors: &[u8]) -> (AppPartitionSubType, Option<OtaImageState>) {
    let mut flash = FlashStorage::new();
    flash.erase(TABLE, OTADATA + 0x2000).expect("it is in memory");
    flash.write(TABLE, &table()).expect("it is in memory");
    flash.write(OTADATA, sectors).expect("it is in memory");
    let mut room = [0; PARTITION_TABLE_MAX_LEN];
    let table = read_partition_table(&mut flash, &mut room).expect("the table is right");
    let row = table.find_partition(PartitionType::Data(DataPartitionSubType::Ota)).expect("it can be read");
    let mut ota = Ota::new(row.expect("there is otadata").as_flash_region(&mut flash), 2).expect("it is otadata");
    (ota.current_app_partition().expect("entries are whole"), ota.current_ota_state().ok())
}

/// One test, for the crate's flash is one for the process.
#[test]
fn otadata_is_what_the_crate_reads_and_writes() {
    let images = [image(7_000, 1), image(8_001, 2)];
    let mut board = Esp::new(&images[0], &images[1], false);
    let sectors = |board: &Esp| board.chip.look(0, 2 * SECTOR as usize);
    assert_eq!(read_by_crate(&sectors(&board)), (AppPartitionSubType::Factory, None));
    for n in 0..4u8 {
        let (old, new) = if n % 2 == 0 { (0, 1) } else { (1, 0) };
        let mut slots = board.slots();
        let subtype = |slot| if slot == 0 { AppPartitionSubType::Ota0 } else { AppPartitionSubType::Ota1 };
        let see = |board: &Esp, state| assert_eq!(read_by_crate(&sectors(board)), (subtype(new), Some(state)));
        block_on(slots.write(0, &images[new])).expect("there is power");
        block_on(slots.finish(u32::try_from(images[new].len()).expect("short"))).expect("there is power");
        see(&board, OtaImageState::New);
        board.load().expect("there is power");
        let mut slots = board.slots();
        assert_eq!(block_on(slots.start()), Ok(Start::Trial));
        see(&board, OtaImageState::PendingVerify);
        block_on(slots.confirm()).expect("there is power");
        see(&board, OtaImageState::Valid);
        assert_ne!(old, new);
    }
    // What the crate writes is read here.
    let mut flash = FlashStorage::new();
    let mut room = [0; PARTITION_TABLE_MAX_LEN];
    let table = read_partition_table(&mut flash, &mut room).expect("the table is right");
    let row = table.find_partition(PartitionType::Data(DataPartitionSubType::Ota)).expect("it can be read");
    let mut ota = Ota::new(row.expect("there is otadata").as_flash_region(&mut flash), 2).expect("it is otadata");
    for (subtype, slot) in [(AppPartitionSubType::Ota1, 1), (AppPartitionSubType::Ota0, 0)] {
        ota.set_current_app_partition(subtype).expect("it is in memory");
        ota.set_current_ota_state(OtaImageState::New).expect("it is in memory");
        let mut bytes = [0; 0x2000];
        FlashStorage::new().read(OTADATA, &mut bytes).expect("it is in memory");
        let chip = Chip::new(2 * SECTOR);
        chip.program(0, &bytes);
        let selected = block_on(Otadata::new(Part::<4, 4_096>::of_state(&chip, 0, 2 * SECTOR)).selection());
        assert_eq!(selected, Ok(Some((slot, State::New))));
    }
}
