//! For build scripts of boards: what must be in a board and never in a commit, like the name and password of a Wi-Fi network. It comes
//! from the environment, or from a file `secrets.env` beside the board's Cargo.toml or in `firmware-examples`, which git ignores.

use std::path::{Path, PathBuf};
use std::process::exit;

/// The settings of boards, and what they are.
const KNOWN: &[(&str, &str)] = &[
    ("WIFI_NAME", "name of your Wi-Fi network"),
    ("WIFI_PASSWORD", "password of your Wi-Fi network"),
    ("BROKER_HOST", "name or IPv4 address of the broker, like 192.168.1.2"),
    ("BROKER_PORT", "port of its mqtts:// listener, like 8883"),
    (
        "BROKER_PIN",
        "SHA-256 of the broker's key, 64 hexadecimal digits (firmware-examples/README.md says how to get it)",
    ),
    ("PAIRING_CODE", "one-time code for this device, from `/pair` in `parlor chat`; good for 10 minutes"),
    ("DEVICE_NAME", "name that the device would like to have, like lamp"),
];

/// What a board on a cable has to be told.
pub const CABLE: &[&str] = &["BROKER_HOST", "BROKER_PORT", "BROKER_PIN", "PAIRING_CODE", "DEVICE_NAME"];

/// What a board with a radio has to be told.
pub const WIFI: &[&str] =
    &["WIFI_NAME", "WIFI_PASSWORD", "BROKER_HOST", "BROKER_PORT", "BROKER_PIN", "PAIRING_CODE", "DEVICE_NAME"];

/// What may be left out.
const OPTIONAL: &[&str] = &["UPDATE_KEY", "BROKER_NEXT_PIN"];

/// Hands these settings to the program, as `env!("NAME")`. Ends the build with an explanation when one is missing. What may be
/// missing is handed over besides, as `option_env!("NAME")`: `UPDATE_KEY`, the public key of who signs images, and `BROKER_NEXT_PIN`, a
/// key that the broker will have one day.
pub fn hand_over(names: &[&str]) {
    let board = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let files = [board.join("secrets.env"), Path::new(env!("CARGO_MANIFEST_DIR")).join("../secrets.env")];
    let mut text = String::new();
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
        text += &std::fs::read_to_string(file).unwrap_or_default();
        text.push('\n');
    }
    let mut missing = Vec::new();
    for name in names.iter().chain(OPTIONAL) {
        println!("cargo:rerun-if-env-changed={name}");
        let in_file = || {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            lines.into_iter().find(|(key, _)| key.trim() == *name).map(|(_, value)| value.trim().to_owned())
        };
        match std::env::var(name).ok().or_else(in_file).filter(|value| !value.is_empty()) {
            Some(value) => println!("cargo:rustc-env={name}={value}"),
            None if OPTIONAL.contains(name) => {}
            None => missing.push(*name),
        }
    }
    if missing.is_empty() {
        return;
    }
    eprintln!("\nThis board has to be told:\n");
    for name in missing {
        let what = KNOWN.iter().find(|(known, _)| *known == name).map_or("", |(_, what)| what);
        eprintln!("  {name:<14} {what}");
    }
    eprintln!(
        "\nPut each as a line NAME=VALUE into a file secrets.env beside this board's Cargo.toml, or in\nfirmware-examples for all boards, or into the environment. git ignores that file.\n"
    );
    exit(1);
}

/// The three files of the CYW43439's firmware are not this project's to give away. They lie in the folder that `CYW43_FIRMWARE` names,
/// or in `cyw43` beside the board's Cargo.toml. With `CYW43_FIRMWARE=none` empty ones take their place: the program links, and finds no radio.
pub fn radio_firmware() {
    println!("cargo:rerun-if-env-changed=CYW43_FIRMWARE");
    let beside = || std::env::var("CARGO_MANIFEST_DIR").map_or_else(|_| "cyw43".to_owned(), |board| board + "/cyw43");
    let folder = std::env::var("CYW43_FIRMWARE").unwrap_or_else(|_| beside());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    for name in ["43439A0.bin", "43439A0_clm.bin", "nvram_rp2040.bin"] {
        let file = Path::new(&folder).join(name);
        println!("cargo:rerun-if-changed={}", file.display());
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(_) if folder == "none" => vec![0; 16],
            Err(error) => {
                eprintln!("\n{}: {error}\n", file.display());
                eprintln!(
                    "Get the radio's firmware from the folder cyw43-firmware of the embassy project, and put it there.\n"
                );
                exit(1);
            }
        };
        std::fs::write(out.join(name), bytes).expect("OUT_DIR can be written");
    }
}
