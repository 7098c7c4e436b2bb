//! Wi-Fi and broker, and the linker script of the chip.

fn main() {
    parlor_secrets::hand_over(&[
        "WIFI_NAME",
        "WIFI_PASSWORD",
        "BROKER_HOST",
        "BROKER_PORT",
        "BROKER_PIN",
        "PAIRING_CODE",
        "DEVICE_NAME",
    ]);
    println!("cargo:rustc-link-arg-bins=-Tlinkall.x");
}
