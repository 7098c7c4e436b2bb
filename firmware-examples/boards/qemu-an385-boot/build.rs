//! Which area of flash is whose, and which firmware this is.

fn main() {
    parlor_areas::link(&parlor_areas::AN385, parlor_areas::Program::App);
    println!("cargo:rerun-if-env-changed=FIRMWARE_VERSION");
    println!("cargo:rerun-if-env-changed=FIRMWARE_IS_NO_GOOD");
    println!("cargo:rerun-if-env-changed=FIRMWARE_IS_DEAF");
}
