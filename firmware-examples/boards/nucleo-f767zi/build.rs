//! The broker, and which area of flash is whose.

fn main() {
    parlor_secrets::hand_over(parlor_secrets::CABLE);
    parlor_areas::link(&parlor_areas::STM32F767, parlor_areas::Program::App);
}
