//! Updates of an emulated board through embassy-boot: the image that comes over the air is the one that runs.
//!
//! `firmware_boot LOADER OLD NEW BAD DEAF`: programs of `firmware-examples/boards/qemu-an385-boot`, of which OLD calls itself 1, NEW
//! 2-over-the-air, BAD, which ends as soon as it starts, 3, and DEAF, which never comes online, 4. One line for each case, PASS or FAIL; fails if one does.

use parlor_tests::firmware::{Board, Home};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

/// Bytes of the flash, and where in it ACTIVE begins (`areas.x`).
const FLASH: usize = 0x8A000;
const ACTIVE: usize = 0x9000;
/// Where the boot loader's state is: a word that says what to do, one that is unwritten, and two for each page that was swapped.
const STATE: usize = 0x8000;
/// Pages of ACTIVE.
const PAGES: usize = 64;
/// What NEW calls itself.
const NEW: &str = "2-over-the-air";
/// Where ACTIVE is in memory.
const LINKED: usize = 0x10_9000;

/// The image in a program: what its segments put where it is linked to.
fn image(elf: &Path) -> Vec<u8> {
    let elf = std::fs::read(elf).expect("the program is there");
    let word = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().expect("four bytes")) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().expect("two bytes")));
    assert_eq!(&elf[..5], b"\x7fELF\x01", "a program of 32 bits");
    let mut image = vec![];
    for n in 0..half(44) {
        let header = word(28) + n * half(42);
        let (kind, from, place, len) = (word(header), word(header + 4), word(header + 12), word(header + 16));
        if kind != 1 || len == 0 {
            continue;
        }
        let place = place.checked_sub(LINKED).expect("it is linked to ACTIVE");
        image.resize(image.len().max(place + len), 0xFF);
        image[place..place + len].copy_from_slice(&elf[from..from + len]);
    }
    image
}

/// How many pages the boot loader has swapped. `None`: it is not swapping.
fn swapped_pages(flash: &[u8]) -> Option<usize> {
    let mut words = flash[STATE..STATE + 4 * (2 + 2 * PAGES)].chunks(4);
    let swapping = words.next() == Some(&[0xF0; 4]) && words.next() == Some(&[0xFF; 4]);
    swapping.then(|| words.take_while(|word| *word == [0; 4]).count() / 2)
}

struct Case {
    home: Home,
    old: Vec<u8>,
    maker: String,
    key: String,
}

impl Case {
    fn new(loader: &Path, old: &Path) -> Self {
        let home = Home::new("an385", loader);
        let (key, public) = home.maker();
        Self { home, old: image(old), maker: format!("maker={public}"), key }
    }

    /// A board with the old firmware, paired and online.
    fn board(&mut self) -> Board {
        let mut flash = vec![0xFF; FLASH];
        flash[ACTIVE..ACTIVE + self.old.len()].copy_from_slice(&self.old);
        self.home.flash("lamp", &flash);
        let code = format!("code={}", self.home.code());
        let mut board = self.home.board("lamp", &[&self.maker, &code, "name=lamp"]);
        board.says("boot loader");
        assert_eq!(board.says("firmware"), "firmware 1");
        board.says("online");
        board
    }

    fn again(&mut self) -> Board {
        let maker = self.maker.clone();
        self.home.board("lamp", &[&maker])
    }
}

fn swapped(case: &mut Case, new: &Path) {
    let path = case.home.file("new.bin", &image(new));
    let mut board = case.board();
    let told = case.home.update("lamp", &path, &case.key, NEW);
    board.says("boot loader");
    assert_eq!(board.says("firmware"), format!("firmware {NEW}"));
    board.says("online");
    let (said, code) = told.join().expect("the update ends");
    assert!(code == 0 && said.contains("done"), "{code}: {said}");
    let said = case.home.command(&["lamp", "set", "on=true"]);
    assert!(said.contains("done"), "{said}");
    // It was confirmed: it stays.
    board.unplug();
    let mut board = case.again();
    assert_eq!(board.says("firmware"), format!("firmware {NEW}"));
    board.says("online");
}

fn rolled_back(case: &mut Case, bad: &Path) {
    let path = case.home.file("bad.bin", &image(bad));
    let mut board = case.board();
    let told = case.home.update("lamp", &path, &case.key, "3");
    board.says("boot loader");
    assert_eq!(board.says("firmware"), "firmware 3 is no good");
    board.says("boot loader");
    assert_eq!(board.says("firmware"), "firmware 1");
    board.says("online");
    let (said, code) = told.join().expect("the update ends");
    assert!(code == 1 && said.contains("went back"), "{code}: {said}");
    let said = case.home.command(&["lamp", "set", "on=true"]);
    assert!(said.contains("done"), "{said}");
}

fn given_up(case: &mut Case, deaf: &Path) {
    let path = case.home.file("deaf.bin", &image(deaf));
    let mut board = case.board();
    let told = case.home.update("lamp", &path, &case.key, "4");
    board.says("boot loader");
    assert_eq!(board.says("firmware"), "firmware 4");
    // Its time is over.
    board.says("boot loader");
    assert_eq!(board.says("firmware"), "firmware 1");
    board.says("online");
    let (said, code) = told.join().expect("the update ends");
    assert!(code == 1 && said.contains("went back"), "{code}: {said}");
}

fn cut_in_the_swap(case: &mut Case, new: &Path) {
    let path = case.home.file("new.bin", &image(new));
    let mut board = case.board();
    let told = case.home.update("lamp", &path, &case.key, NEW);
    // The last page is swapped first: the middle of ACTIVE.
    board.says("erases 0x129000");
    board.unplug();
    let done = swapped_pages(&case.home.content("lamp"));
    assert!(done.is_some_and(|done| (1..PAGES).contains(&done)), "the power went within the swap: {done:?}");
    let mut board = case.again();
    assert_eq!(board.says("firmware"), format!("firmware {NEW}"));
    board.says("online");
    let (said, code) = told.join().expect("the update ends");
    assert!(code == 0 && said.contains("done"), "{code}: {said}");
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [loader, old, new, bad, deaf] = &arguments[..] else {
        eprintln!("usage: firmware_boot LOADER OLD NEW BAD DEAF");
        return ExitCode::from(2);
    };
    let [loader, old, new, bad, deaf] = [loader, old, new, bad, deaf].map(|program| Path::new(program.as_str()));
    let cases: [(&str, fn(&mut Case, &Path), &Path); 4] = [
        ("an image over the air is started by the boot loader, and confirmed", swapped, new),
        ("an image that is no good is rolled back", rolled_back, bad),
        ("an image that never comes online is rolled back", given_up, deaf),
        ("a power cut while images are swapped", cut_in_the_swap, new),
    ];
    let mut failed = 0;
    for (name, run, program) in cases {
        let passed = catch_unwind(AssertUnwindSafe(|| run(&mut Case::new(loader, old), program))).is_ok();
        println!("{} boot: {name}", if passed { "PASS" } else { "FAIL" });
        failed += usize::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
