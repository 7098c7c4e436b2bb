//! `Slots` and embassy-boot's own boot loader on one flash.

mod life;

use embassy_boot::{BootLoader, BootLoaderConfig, FirmwareUpdater, FirmwareUpdaterConfig, State};
use embassy_futures::block_on;
use life::flash::{Chip, Dead, Part};
use life::{Board, Broken, New, Plan, cut_everywhere, image, live};
use parlor_boot::{BootError, Slot, Slots};
use parlor_device::update::Firmware;
use std::rc::Rc;

/// A chip with its areas: STATE, ACTIVE, DFU.
struct Chips<const WORD: usize, const PAGE: usize> {
    chip: Rc<Chip>,
}

const PAGES: u32 = 3;

impl<const WORD: usize, const PAGE: usize> Chips<WORD, PAGE> {
    #[allow(clippy::cast_possible_truncation, reason = "pages are short")]
    const BYTES: u32 = PAGE as u32;

    fn new(old: &[u8]) -> Self {
        let chip = Chip::new((2 + 2 * PAGES) * Self::BYTES);
        chip.program(Self::BYTES, old);
        Self { chip }
    }

    fn state(&self) -> Part<WORD, PAGE> {
        Part::of_state(&self.chip, 0, Self::BYTES)
    }

    fn active(&self) -> Part<WORD, PAGE> {
        Part::new(&self.chip, Self::BYTES, PAGES * Self::BYTES)
    }

    fn dfu(&self) -> Part<WORD, PAGE> {
        Part::new(&self.chip, (1 + PAGES) * Self::BYTES, (1 + PAGES) * Self::BYTES)
    }

    fn boot(&self) -> Result<State, Dead> {
        let config = BootLoaderConfig { active: self.active(), dfu: self.dfu(), state: self.state() };
        BootLoader::new(config).prepare_boot(&mut [0; 256]).map_err(|_| Dead)
    }

    fn running(&self) -> Vec<u8> {
        self.chip.look(Self::BYTES, (PAGES * Self::BYTES) as usize)
    }
}

impl<const WORD: usize, const PAGE: usize> Board for Chips<WORD, PAGE> {
    type Slots = Slots<Part<WORD, PAGE>, Part<WORD, PAGE>>;

    fn chip(&self) -> &Rc<Chip> {
        &self.chip
    }

    fn load(&mut self) -> Result<Vec<u8>, Dead> {
        self.boot()?;
        Ok(self.running())
    }

    fn slots(&self) -> Self::Slots {
        Slots::new(self.dfu(), self.state())
    }

    fn start(&self, _: &mut Self::Slots) -> Result<bool, BootError> {
        Ok(true)
    }
}

/// Pages of 1 KB, words of 4 bytes: like RP2040 and nRF52840, only smaller.
type Small = Chips<4, 1_024>;
/// Pages longer than what is begun anew after a reset, words of 16 bytes: like STM32F767.
type Large = Chips<16, 32_768>;

fn plan<'a>(old: &'a [u8], new: &'a [u8], is: New, keep: usize) -> Plan<'a> {
    Plan { old, new, is, keep, cut: None }
}

#[test]
fn an_update_is_swapped_in_and_confirmed() {
    let (old, new) = (image(2_500, 1), image(2_901, 2));
    let mut board = Small::new(&old);
    let seen = live(&mut board, &plan(&old, &new, New::Works, 512)).expect("it goes well");
    assert!(seen.updated && seen.done);
    assert_eq!(seen.twice, 0);
    assert_eq!(block_on(board.slots().state()), Ok(State::Boot));
    // And the next one, back.
    let seen = live(&mut board, &plan(&new, &old, New::Works, 512)).expect("it goes well again");
    assert!(seen.updated && seen.done);
}

#[test]
fn an_image_that_is_not_confirmed_is_rolled_back() {
    let (old, new) = (image(2_500, 1), image(2_901, 2));
    let mut board = Small::new(&old);
    let seen = live(&mut board, &plan(&old, &new, New::Fails, 512)).expect("it goes back");
    assert!(!seen.updated && !seen.done);
    assert_eq!(block_on(board.slots().state()), Ok(State::Revert));
    // It takes another one afterwards.
    let third = image(3_072, 3);
    let seen = live(&mut board, &plan(&old, &third, New::Works, 512)).expect("it goes well");
    assert!(seen.updated && seen.done);
}

#[test]
fn a_power_cut_at_any_word_leaves_the_old_image_or_the_new_one() {
    let (old, new) = (image(2_500, 1), image(2_901, 2));
    for is in [New::Works, New::Fails] {
        let plan = plan(&old, &new, is, 512);
        let seen = cut_everywhere(|| Small::new(&old), &plan, 1).unwrap_or_else(|why| panic!("{is:?}: {why:?}"));
        assert!(seen.len() > 4_000, "{}", seen.len());
        assert_eq!(seen.iter().map(|seen| seen.twice).sum::<u64>(), 0, "no word is written twice");
        let updated = seen.iter().filter(|seen| seen.updated).count();
        let expected = if is == New::Works { seen.len() } else { 0 };
        // Where the power goes between the record and the mark, or before it is confirmed, the update has failed and can
        // be sent again.
        assert!(expected - updated <= 10, "{updated} of {}", seen.len());
        assert!(seen.iter().all(|seen| seen.done == seen.updated));
    }
}

#[test]
fn a_power_cut_in_long_pages_leaves_the_old_image_or_the_new_one() {
    let (old, new) = (image(70_000, 1), image(90_001, 2));
    for is in [New::Works, New::Fails] {
        let plan = plan(&old, &new, is, 4_096);
        let seen = cut_everywhere(|| Large::new(&old), &plan, 61).unwrap_or_else(|why| panic!("{is:?}: {why:?}"));
        assert!(seen.len() > 500, "{}", seen.len());
        // Each power cut tears one word, and that one is written once more.
        assert!(seen.iter().all(|seen| seen.twice <= 1));
    }
}

/// Whether no more was fetched after the power cut than what the record lacked, and what is begun anew.
fn check(seen: &[life::Seen], len: usize, unit: usize) {
    for seen in seen {
        assert!(seen.fetched_again <= len - seen.kept / unit * unit, "{seen:?}");
    }
    assert!(seen.iter().any(|seen| seen.kept > len / 2 && seen.fetched_again > 0), "some were far");
}

#[test]
fn after_a_reset_only_the_rest_is_fetched() {
    let (old, new) = (image(2_500, 1), image(3_000, 2));
    let seen = cut_everywhere(|| Small::new(&old), &plan(&old, &new, New::Works, 512), 7).expect("it goes well");
    check(&seen, new.len(), 1_024);
    let (old, new) = (image(70_000, 1), image(90_001, 2));
    let seen = cut_everywhere(|| Large::new(&old), &plan(&old, &new, New::Works, 4_096), 61).expect("it goes well");
    check(&seen, new.len(), 256);
}

/// What runs on trial may not be written over: its slot holds the way back.
#[test]
fn nothing_is_written_while_an_image_is_on_trial() {
    let (old, new) = (image(2_500, 1), image(2_901, 2));
    let board = Small::new(&old);
    let mut slots = board.slots();
    block_on(async {
        slots.write(0, &new).await.expect("it is written");
        slots.finish(2_901).await.expect("it is marked");
        board.boot().expect("there is power");
        assert_eq!(slots.is_on_trial().await, Ok(true));
        assert_eq!(slots.write(0, &old).await, Err(BootError::OnTrial));
        assert_eq!(slots.finish(2_500).await, Err(BootError::OnTrial));
        slots.confirm().await.expect("it is confirmed");
        assert_eq!(slots.is_on_trial().await, Ok(false));
        slots.write(0, &old).await.expect("now it may");
        assert_eq!(slots.write(300, &old).await, Err(BootError::Offset), "something is left out");
        assert_eq!(slots.write(0, &[0; 4 * 1_024 + 1]).await, Err(BootError::Offset), "longer than the slot");
        assert_eq!(slots.finish(3 * 1_024 + 1).await, Err(BootError::Offset), "longer than the other slot");
        assert_eq!(slots.state().await, Ok(State::Boot));
    });
}

/// An implementation that is hasty: it tells the boot loader before the last page is written.
struct Hasty(Small);

struct HastySlots(Slots<Part<4, 1_024>, Part<4, 1_024>>);

impl Firmware for HastySlots {
    type Error = BootError;

    fn capacity(&self) -> u32 {
        self.0.capacity()
    }

    fn resume(&mut self, offset: u32) -> u32 {
        self.0.resume(offset)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), BootError> {
        self.0.write(offset, bytes).await?;
        // 2,048 bytes are in flash, and the rest of the image is on its way.
        if offset + u32::try_from(bytes.len()).expect("it is short") == 2_100 {
            self.0.finish(2_901).await
        } else {
            Ok(())
        }
    }

    async fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), BootError> {
        self.0.read(offset, out).await
    }

    async fn finish(&mut self, _: u32) -> Result<(), BootError> {
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), BootError> {
        self.0.confirm().await
    }
}

impl Slot for HastySlots {
    async fn is_on_trial(&mut self) -> Result<bool, BootError> {
        self.0.is_on_trial().await
    }
}

impl Board for Hasty {
    type Slots = HastySlots;

    fn chip(&self) -> &Rc<Chip> {
        &self.0.chip
    }

    fn load(&mut self) -> Result<Vec<u8>, Dead> {
        self.0.load()
    }

    fn slots(&self) -> HastySlots {
        HastySlots(self.0.slots())
    }

    fn start(&self, _: &mut HastySlots) -> Result<bool, BootError> {
        Ok(true)
    }
}

#[test]
fn an_implementation_that_marks_too_early_is_caught() {
    let (old, new) = (image(2_500, 1), image(2_901, 2));
    let broken = cut_everywhere(|| Hasty(Small::new(&old)), &plan(&old, &new, New::Works, 512), 1);
    assert!(matches!(broken, Err((_, Broken::Mixed | Broken::Lost))), "{broken:?}");
}

/// embassy-boot's own way to write: it erases the page in which it goes on.
struct Plain(Small);

struct PlainSlots(Slots<Part<4, 1_024>, Part<4, 1_024>>, FirmwareUpdater<'static, Part<4, 1_024>, Part<4, 1_024>>);

impl Firmware for PlainSlots {
    type Error = BootError;

    fn capacity(&self) -> u32 {
        self.0.capacity()
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), BootError> {
        let mut words = bytes.to_vec();
        words.resize(bytes.len().next_multiple_of(4), 0xFF);
        self.1.write_firmware(offset as usize, &words).await.map_err(|_| BootError::Flash)
    }

    async fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), BootError> {
        self.1.read_dfu(offset, out).await.map_err(|_| BootError::Flash)
    }

    async fn finish(&mut self, _: u32) -> Result<(), BootError> {
        self.1.mark_updated().await.map_err(|_| BootError::Flash)
    }

    async fn confirm(&mut self) -> Result<(), BootError> {
        self.0.confirm().await
    }
}

impl Slot for PlainSlots {
    async fn is_on_trial(&mut self) -> Result<bool, BootError> {
        self.0.is_on_trial().await
    }
}

impl Board for Plain {
    type Slots = PlainSlots;

    fn chip(&self) -> &Rc<Chip> {
        &self.0.chip
    }

    fn load(&mut self) -> Result<Vec<u8>, Dead> {
        self.0.load()
    }

    fn slots(&self) -> PlainSlots {
        let config = FirmwareUpdaterConfig { dfu: self.0.dfu(), state: self.0.state() };
        PlainSlots(self.0.slots(), FirmwareUpdater::new(config, Box::leak(Box::new([0; 4]))))
    }

    fn start(&self, _: &mut PlainSlots) -> Result<bool, BootError> {
        Ok(true)
    }
}

#[test]
fn an_implementation_that_forgets_what_it_has_is_caught() {
    let (old, new) = (image(2_500, 1), image(2_901, 2));
    let plan = plan(&old, &new, New::Works, 500);
    live(&mut Plain(Small::new(&old)), &plan).expect("without a reset it works");
    let broken = cut_everywhere(|| Plain(Small::new(&old)), &plan, 1);
    assert!(matches!(broken, Err((_, Broken::Lost))), "{broken:?}");
}
