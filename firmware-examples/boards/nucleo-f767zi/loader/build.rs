//! Which area of flash is whose.

fn main() {
    parlor_areas::link(&parlor_areas::STM32F767, parlor_areas::Program::Loader);
}
