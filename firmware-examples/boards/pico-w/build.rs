//! Wi-Fi and broker, which area of flash is whose, and the radio's firmware.

use std::path::{Path, PathBuf};

fn main() {
    parlor_secrets::hand_over(&[
        "WIFI_NAME",
        "WIFI_PASSWORD",
        "BROKER_HOST",
        "BROKER_PORT",
        "BROKER_PIN",
        "PAIRING_CODE",
        "DEVICE_NAME",
    ]);
    radio();
    parlor_areas::link(&parlor_areas::RP2040, parlor_areas::Program::App);
}

/// The three files of the CYW43439's firmware are not this project's to give away. They lie in the folder that `CYW43_FIRMWARE` names,
/// or in `cyw43` beside this file. With `CYW43_FIRMWARE=none` empty ones take their place: the program links, and finds no radio.
fn radio() {
    println!("cargo:rerun-if-env-changed=CYW43_FIRMWARE");
    let folder =
        std::env::var("CYW43_FIRMWARE").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/cyw43").into());
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
                std::process::exit(1);
            }
        };
        std::fs::write(out.join(name), bytes).expect("OUT_DIR can be written");
    }
}
