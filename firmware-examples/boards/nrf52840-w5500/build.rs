//! The broker, and which area of flash is whose.

fn main() {
    parlor_secrets::hand_over(parlor_secrets::CABLE);
    parlor_areas::link(&parlor_areas::NRF52840, parlor_areas::Program::App);
    println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
}
