//! Wi-Fi and broker, and the linker script of the chip.

fn main() {
    parlor_secrets::hand_over(parlor_secrets::WIFI);
    println!("cargo:rustc-link-arg-bins=-Tlinkall.x");
}
