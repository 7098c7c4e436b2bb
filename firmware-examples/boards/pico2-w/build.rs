//! Wi-Fi and broker, which area of flash is whose, and the radio's firmware.

fn main() {
    parlor_secrets::hand_over(parlor_secrets::WIFI);
    parlor_secrets::radio_firmware();
    parlor_areas::link(&parlor_areas::RP2350, parlor_areas::Program::App);
}
