//! Which area of flash is whose.

fn main() {
    parlor_areas::link(&parlor_areas::RP2350, parlor_areas::Program::Loader);
}
