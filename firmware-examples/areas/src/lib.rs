//! For build scripts of boards with embassy-boot. A board's `areas.x` says where in flash the boot loader (LOADER), its state
//! (STATE), the program (ACTIVE), the image that comes over the air (DFU) and what the SDK keeps (KEPT) are. This looks whether
//! that can work, gives the linker the one that a program is linked to as `FLASH`, and the program all of them as `areas.rs`. (Were the file called
//! `memory.x`, the linker would find it before the one that is made of it.)

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Which program is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// What a board is for. Its Cargo.toml is beside `areas.x`.
    App,
    /// The boot loader. Its Cargo.toml is one folder below.
    Loader,
}

/// What the areas of a chip have to fit.
#[derive(Debug, Clone)]
pub struct Chip {
    /// All of its flash.
    pub flash: Range<u32>,
    /// Bytes erased at once where images are.
    pub page: u32,
    /// Bytes erased at once where the boot loader's state and the SDK's memory are.
    pub small_page: u32,
    /// Bytes written at once there.
    pub word: u32,
    /// What the linker has to do for a boot loader besides.
    pub loader_sections: &'static str,
}

/// RP2040 with 2 MB of flash. It runs `BOOT2` first, which is in front of the boot loader.
pub const RP2040: Chip =
    Chip { flash: 0x1000_0000..0x1020_0000, page: 4_096, small_page: 4_096, word: 1, loader_sections: "" };

/// RP2350 with 4 MB of flash. Its ROM looks for an image definition in the first 4 KB, and for none behind it: the boot loader
/// has it and the program needs none.
pub const RP2350: Chip = Chip {
    flash: 0x1000_0000..0x1040_0000,
    page: 4_096,
    small_page: 4_096,
    word: 1,
    loader_sections: "
SECTIONS
{
  .start_block : ALIGN(4) { __start_block_addr = .; KEEP(*(.start_block)); } > FLASH
}
INSERT AFTER .vector_table;
_stext = ADDR(.start_block) + SIZEOF(.start_block);
",
};

/// nRF52840.
pub const NRF52840: Chip = Chip { flash: 0..0x0010_0000, page: 4_096, small_page: 4_096, word: 4, loader_sections: "" };

/// STM32F767 with 2 MB in one bank: four sectors of 32 KB, one of 128 KB, seven of 256 KB. Images are in those of 256 KB.
pub const STM32F767: Chip =
    Chip { flash: 0x0800_0000..0x0820_0000, page: 256 * 1_024, small_page: 32 * 1_024, word: 16, loader_sections: "" };

/// The emulated `mps2-an385`, whose flash is a file: the addresses are those of its memory for code.
pub const AN385: Chip = Chip { flash: 0..0x0040_0000, page: 4_096, small_page: 4_096, word: 4, loader_sections: "" };

/// Areas by name, addresses.
type Areas = BTreeMap<String, Range<u32>>;

/// Number with K for 1,024, or a difference of two.
fn number(text: &str) -> Option<u32> {
    if let Some((from, less)) = text.split_once('-') {
        return number(from)?.checked_sub(number(less)?);
    }
    let text = text.trim();
    match (text.strip_prefix("0x"), text.strip_suffix('K')) {
        (Some(hex), _) => u32::from_str_radix(hex, 16).ok(),
        (None, Some(kilo)) => kilo.parse::<u32>().ok()?.checked_mul(1_024),
        (None, None) => text.parse().ok(),
    }
}

/// `NAME : ORIGIN = …, LENGTH = …`
fn line(line: &str) -> Option<(String, Range<u32>)> {
    let (name, rest) = line.split_once(':')?;
    let (origin, length) = rest.split_once(',')?;
    let origin = number(origin.trim().strip_prefix("ORIGIN")?.trim().strip_prefix('=')?)?;
    let length = number(length.trim().strip_prefix("LENGTH")?.trim().strip_prefix('=')?)?;
    Some((name.trim().to_owned(), origin..origin.checked_add(length)?))
}

fn len(range: &Range<u32>) -> u32 {
    range.end - range.start
}

/// The areas of `areas.x`, or why they cannot work.
fn check(memory: &str, chip: &Chip) -> Result<Areas, String> {
    let areas: Areas = memory.lines().filter_map(line).collect();
    let area = |name: &str| areas.get(name).cloned().ok_or_else(|| format!("areas.x has no area {name}"));
    let (state, active, dfu, kept) = (area("STATE")?, area("ACTIVE")?, area("DFU")?, area("KEPT")?);
    area("LOADER")?;
    let mut in_flash: Vec<(&String, &Range<u32>)> = areas.iter().filter(|(name, _)| *name != "RAM").collect();
    in_flash.sort_by_key(|(_, range)| range.start);
    for (name, range) in &in_flash {
        if range.is_empty() || range.start < chip.flash.start || range.end > chip.flash.end {
            return Err(format!("{name} ({range:#x?}) is not in flash"));
        }
    }
    for two in in_flash.windows(2) {
        let [(first, a), (second, b)] = two else { continue };
        if a.end > b.start {
            return Err(format!("{first} ({a:#x?}) and {second} ({b:#x?}) overlap"));
        }
    }
    let pages = [
        ("STATE", &state, chip.small_page),
        ("KEPT", &kept, chip.small_page),
        ("ACTIVE", &active, chip.page),
        ("DFU", &dfu, chip.page),
    ];
    for (name, range, page) in pages {
        if !(range.start - chip.flash.start).is_multiple_of(page) || !len(range).is_multiple_of(page) {
            return Err(format!("{name} ({range:#x?}) is not made of whole pages of {page} bytes"));
        }
    }
    if len(&dfu) != len(&active) + chip.page {
        return Err(format!(
            "DFU must be one page of {} bytes longer than ACTIVE: the boot loader swaps through it",
            chip.page
        ));
    }
    let words = 2 + 4 * (len(&active) / chip.page);
    if len(&state) < words * chip.word {
        return Err(format!("STATE must hold {words} words of {} bytes", chip.word));
    }
    if len(&kept) < 2 * chip.small_page {
        return Err("KEPT must have two pages at least".to_owned());
    }
    Ok(areas)
}

/// `memory.x` for one of the programs.
fn script(memory: &str, chip: &Chip, program: Program) -> String {
    let (own, more) = match program {
        Program::App => ("ACTIVE", ""),
        Program::Loader => ("LOADER", chip.loader_sections),
    };
    let rename = |text: &str| match line(text) {
        Some((name, _)) if name == own => text.replacen(own, "FLASH", 1),
        _ => text.to_owned(),
    };
    memory.lines().map(rename).chain([more.to_owned()]).collect::<Vec<_>>().join("\n")
}

fn source(areas: &Areas) -> String {
    let mut text = String::new();
    for (name, range) in areas {
        let _ = writeln!(
            text,
            "/// The area {name}, addresses.\n#[allow(dead_code)]\npub const {name}: core::ops::Range<u32> = {:#x}..{:#x};",
            range.start, range.end
        );
    }
    text
}

/// For build scripts: checks `areas.x`, writes what the linker and the program need into `OUT_DIR`, and says so to cargo. A program
/// has `include!(concat!(env!("OUT_DIR"), "/areas.rs"));`. Ends the build with an explanation when the areas cannot work.
pub fn link(chip: &Chip, program: Program) {
    let folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let memory = match program {
        Program::App => folder.join("areas.x"),
        Program::Loader => folder.join("../areas.x"),
    };
    println!("cargo:rerun-if-changed={}", memory.display());
    let text = std::fs::read_to_string(&memory).unwrap_or_else(|error| end(&memory, &error.to_string()));
    let areas = check(&text, chip).unwrap_or_else(|why| end(&memory, &why));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(out.join("memory.x"), script(&text, chip, program)).expect("OUT_DIR can be written");
    std::fs::write(out.join("areas.rs"), source(&areas)).expect("OUT_DIR can be written");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg-bins=--nmagic");
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
}

fn end(memory: &Path, why: &str) -> ! {
    eprintln!("\n{}: {why}\n", memory.display());
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boards() -> [(&'static str, Chip, &'static str); 5] {
        [
            ("pico-w", RP2040, include_str!("../../boards/pico-w/areas.x")),
            ("pico2-w", RP2350, include_str!("../../boards/pico2-w/areas.x")),
            ("nrf52840-w5500", NRF52840, include_str!("../../boards/nrf52840-w5500/areas.x")),
            ("nucleo-f767zi", STM32F767, include_str!("../../boards/nucleo-f767zi/areas.x")),
            ("qemu-an385-boot", AN385, include_str!("../../boards/qemu-an385-boot/areas.x")),
        ]
    }

    #[test]
    fn the_areas_of_the_boards_work() {
        for (name, chip, memory) in boards() {
            let areas = check(memory, &chip).unwrap_or_else(|why| panic!("{name}: {why}"));
            let app = script(memory, &chip, Program::App);
            let linked: Areas = app.lines().filter_map(line).collect();
            assert_eq!(linked["FLASH"], areas["ACTIVE"], "{name}");
            let loader = script(memory, &chip, Program::Loader);
            let linked: Areas = loader.lines().filter_map(line).collect();
            assert_eq!(linked["FLASH"], areas["LOADER"], "{name}");
            assert!(
                source(&areas)
                    .contains(&format!("pub const KEPT: core::ops::Range<u32> = {:#x}..", areas["KEPT"].start))
            );
        }
    }

    /// The rows of a partition table of ESP-IDF: name, offset, length.
    fn rows(table: &str) -> Vec<(&str, u32, u32)> {
        let rows = table.lines().filter(|line| !line.trim_start().starts_with('#') && !line.is_empty());
        let row = |line| {
            let cells: Vec<&str> = str::split(line, ',').map(str::trim).collect();
            (cells[0], number(cells[3]).expect("an offset"), number(cells[4]).expect("a length"))
        };
        rows.map(row).collect()
    }

    /// What is wrong with a table of an ESP32 with 4 MB.
    fn wrong(table: &str) -> Option<String> {
        let rows = rows(table);
        // The boot loader and the table itself are in front.
        let mut end = 0x9000;
        for (name, offset, len) in &rows {
            if *offset < end {
                return Some(format!("{name} overlaps what is in front of it"));
            }
            end = offset + len;
        }
        let len = |name| rows.iter().find(|row| row.0 == name).map(|row| row.2);
        let aligned = |row: &(&str, u32, u32)| !row.0.starts_with("ota_") || row.1.is_multiple_of(0x1_0000);
        if end > 0x40_0000 {
            Some("it is longer than the flash".into())
        } else if len("ota_0").is_none() || len("ota_0") != len("ota_1") {
            Some("the slots differ".into())
        } else if len("otadata") != Some(0x2000) {
            Some("otadata is two sectors".into())
        } else {
            (!rows.iter().all(aligned)).then(|| "a slot begins at a multiple of 64 KB".into())
        }
    }

    #[test]
    fn the_tables_of_the_esp32_boards_work() {
        let table = include_str!("../../boards/esp32c3/partitions.csv");
        assert_eq!(wrong(table), None);
        for other in [
            include_str!("../../boards/esp32c6/partitions.csv"),
            include_str!("../../boards/esp32s3/partitions.csv"),
            include_str!("../../template/partitions.csv"),
        ] {
            assert_eq!(other, table);
        }
        for (from, to, why) in [
            ("0x200000, 0x1E0000", "0x1F0000, 0x1E0000", "ota_1 overlaps what is in front of it"),
            ("0x200000, 0x1E0000", "0x200000, 0x210000", "it is longer than the flash"),
            ("0x200000, 0x1E0000", "0x200000, 0x1D0000", "the slots differ"),
            ("0xF000,   0x2000", "0xF000,   0x1000", "otadata is two sectors"),
            ("0x20000,  0x1E0000", "0x18000,  0x1E0000", "a slot begins at a multiple of 64 KB"),
        ] {
            assert!(table.contains(from));
            assert_eq!(wrong(&table.replace(from, to)).as_deref(), Some(why));
        }
    }

    const GOOD: &str = "
  LOADER : ORIGIN = 0x00000000, LENGTH = 24K
  STATE  : ORIGIN = 0x00006000, LENGTH = 4K
  ACTIVE : ORIGIN = 0x00007000, LENGTH = 480K
  DFU    : ORIGIN = 0x0007F000, LENGTH = 484K
  KEPT   : ORIGIN = 0x000F8000, LENGTH = 32K
  RAM    : ORIGIN = 0x20000000, LENGTH = 256K
";

    #[test]
    fn areas_that_cannot_work_are_refused() {
        check(GOOD, &NRF52840).expect("it is right");
        let refused = |from: &str, to: &str, why: &str| {
            assert!(GOOD.contains(from));
            let error = check(&GOOD.replace(from, to), &NRF52840).expect_err(why);
            assert!(error.contains(why), "{error}");
        };
        refused("LENGTH = 24K", "LENGTH = 25K", "LOADER (0x0..0x6400) and STATE (0x6000..0x7000) overlap");
        refused("0x000F8000, LENGTH = 32K", "0x000F7000, LENGTH = 32K", "DFU (0x7f000..0xf8000) and KEPT");
        refused("0x000F8000, LENGTH = 32K", "0x000F8000, LENGTH = 36K", "KEPT (0xf8000..0x101000) is not in flash");
        refused("LENGTH = 484K", "LENGTH = 480K", "one page of 4096 bytes longer");
        refused("0x00007000, LENGTH = 480K", "0x00007800, LENGTH = 478K", "whole pages");
        refused("LENGTH = 32K", "LENGTH = 4K", "two pages");
        refused("  KEPT   :", "  KEEP   :", "no area KEPT");
        let short = Chip { word: 16, ..NRF52840 };
        assert!(check(GOOD, &short).expect_err("it is short").contains("482 words of 16 bytes"));
    }
}
