//! Which area of flash is whose.

fn main() {
    parlor_areas::link(&parlor_areas::AN385, parlor_areas::Program::Loader);
}
