//! Which area of flash is whose.

fn main() {
    parlor_areas::link(&parlor_areas::RP2040, parlor_areas::Program::Loader);
    println!("cargo:rustc-link-arg-bins=-Tlink-rp.x");
}
