//! The map in flash: at whichever byte the power goes, each key has the value before or the one that was being written.

use embassy_futures::block_on;
use embedded_storage_async::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use parlor_device::flash::{Flash, FlashMap};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const PAGE: usize = 512;
const PAGES: usize = 3;
const END: u32 = 1_536;

/// NOR flash with words of 4 bytes, each of which is written once between two erasures. It loses power after so many
/// bytes that were written or erased.
#[derive(Clone)]
struct Nor(Rc<RefCell<State>>);

#[derive(Clone)]
struct State {
    bytes: Vec<u8>,
    written: Vec<bool>,
    left: Option<u64>,
    off: bool,
    erases: u64,
}

impl Nor {
    fn new() -> Self {
        let state = State {
            bytes: vec![0xFF; PAGE * PAGES],
            written: vec![false; PAGE * PAGES / 4],
            left: None,
            off: false,
            erases: 0,
        };
        Self(Rc::new(RefCell::new(state)))
    }

    fn copy(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    fn cut_after(&self, steps: u64) {
        self.0.borrow_mut().left = Some(steps);
    }

    fn power_on(&self) {
        let mut state = self.0.borrow_mut();
        state.off = false;
        state.left = None;
    }
}

impl State {
    fn step(&mut self) -> Result<(), Broken> {
        if self.off || self.left == Some(0) {
            self.off = true;
            return Err(Broken);
        }
        self.left = self.left.map(|left| left - 1);
        Ok(())
    }
}

#[derive(Debug)]
struct Broken;

impl NorFlashError for Broken {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl ErrorType for Nor {
    type Error = Broken;
}

impl ReadNorFlash for Nor {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Broken> {
        let state = self.0.borrow();
        if state.off {
            return Err(Broken);
        }
        bytes.copy_from_slice(&state.bytes[offset as usize..offset as usize + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        PAGE * PAGES
    }
}

impl NorFlash for Nor {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Broken> {
        assert!((from as usize).is_multiple_of(PAGE) && (to as usize).is_multiple_of(PAGE), "pages are erased");
        let mut state = self.0.borrow_mut();
        for at in from as usize..to as usize {
            state.step()?;
            state.bytes[at] = 0xFF;
            state.written[at / 4] = false;
        }
        state.erases += 1;
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Broken> {
        assert!(offset.is_multiple_of(4) && bytes.len().is_multiple_of(4), "words are written");
        let mut state = self.0.borrow_mut();
        for (at, byte) in bytes.iter().enumerate() {
            let at = offset as usize + at;
            assert!(!at.is_multiple_of(4) || !state.written[at / 4], "a word is written twice");
            state.step()?;
            state.bytes[at] &= byte;
            // A word that the power cut in two is not a word yet.
            state.written[at / 4] = at % 4 == 3;
        }
        Ok(())
    }
}

type Map = FlashMap<Nor, 128>;

fn open(nor: &Nor) -> Map {
    Map::new(nor.clone(), 0..END).expect("whole pages")
}

fn store(map: &mut Map, key: u8, value: &[u8]) -> bool {
    let fill = |out: &mut [u8]| {
        out.get_mut(..value.len())?.copy_from_slice(value);
        Some(value.len())
    };
    block_on(map.store(key, &fill)).is_ok()
}

fn load(map: &mut Map, key: u8) -> Option<Vec<u8>> {
    block_on(map.load(key)).expect("it can be read").map(<[u8]>::to_vec)
}

/// What a device writes: a counter, an account, commands and rows that come and go.
fn writes() -> Vec<(u8, Vec<u8>)> {
    let mut all = vec![(0, vec![0, 0, 0, 1]), (1, b"lamp and its password".to_vec())];
    for n in 0..60u8 {
        all.push((32 + n % 4, vec![n; 20 + usize::from(n % 30)]));
        all.push((8 + n % 2, vec![n; 12]));
        if n % 3 > 0 {
            all.push((32 + n % 4, vec![]));
        }
    }
    all
}

#[test]
fn the_power_may_go_at_every_byte() {
    let nor = Nor::new();
    let mut kept: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    for (key, value) in writes() {
        // The same write again and again, cut one byte later each time, on a copy of the flash.
        for cut in 0.. {
            let copy = nor.copy();
            copy.cut_after(cut);
            if store(&mut open(&copy), key, &value) {
                break;
            }
            copy.power_on();
            let mut map = open(&copy);
            for other in [0, 1, 8, 9, 32, 33, 34, 35] {
                let (found, before) = (load(&mut map, other), kept.get(&other).cloned());
                let is_new = other == key && found.as_ref() == Some(&value);
                assert!(found == before || is_new, "cut at {cut}: key {other} is {found:?}, was {before:?}");
            }
            // And it goes on from there.
            for n in 0..6 {
                let value = [n; 40];
                assert!(store(&mut map, 33, &value), "cut at {cut}: it cannot be written any more");
                assert_eq!(load(&mut map, 33).as_deref(), Some(&value[..]));
            }
        }
        assert!(store(&mut open(&nor), key, &value));
        kept.insert(key, value);
    }
    let erases = nor.0.borrow().erases;
    assert!(erases > 3, "pages were erased {erases} times: too seldom to show anything");
}

#[test]
fn what_is_too_long_is_refused_and_changes_nothing() {
    let nor = Nor::new();
    let mut map = open(&nor);
    assert!(store(&mut map, 1, b"short"));
    assert!(!store(&mut map, 1, &[7; 200]));
    assert_eq!(load(&mut map, 1), Some(b"short".to_vec()));
    assert!(FlashMap::<Nor, 128>::new(Nor::new(), 0..512).is_none(), "one page is too little");
    assert!(FlashMap::<Nor, 128>::new(Nor::new(), 0..1_000).is_none(), "pages must be whole");
}
