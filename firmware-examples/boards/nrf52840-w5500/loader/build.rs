//! Which area of flash is whose.

fn main() {
    parlor_areas::link(&parlor_areas::NRF52840, parlor_areas::Program::Loader);
}
