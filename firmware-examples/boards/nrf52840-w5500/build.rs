//! The broker, and the linker script of the chip.

fn main() {
    parlor_secrets::hand_over(&["BROKER_HOST", "BROKER_PORT", "BROKER_PIN", "PAIRING_CODE", "DEVICE_NAME"]);
    println!("cargo:rustc-link-search={}", env!("CARGO_MANIFEST_DIR"));
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rustc-link-arg-bins=--nmagic");
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
}
