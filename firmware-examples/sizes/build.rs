//! The linker script is the same for every target; where the program runs it is that of the board.

fn main() {
    let here = env!("CARGO_MANIFEST_DIR");
    if std::env::var_os("CARGO_FEATURE_AN385").is_some() {
        println!("cargo:rustc-link-search={here}/../boards/qemu-mps2-an385");
        println!("cargo:rustc-link-arg-bins=-Tlink.x");
        println!("cargo:rustc-link-arg-bins=--nmagic");
    } else if std::env::var_os("CARGO_FEATURE_VIRT").is_some() {
        println!("cargo:rustc-link-search={here}/../boards/qemu-riscv-virt");
        println!("cargo:rustc-link-arg-bins=-Tmemory.x");
        println!("cargo:rustc-link-arg-bins=-Tlink.x");
    } else {
        println!("cargo:rustc-link-search={here}");
        println!("cargo:rustc-link-arg-bins=-Tsizes.x");
    }
    println!("cargo:rerun-if-changed=sizes.x");
}
