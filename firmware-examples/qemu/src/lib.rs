//! What both emulated boards have instead of pins and chips: arguments, a console, entropy, and a flash that is a file of the host,
//! so that a reboot finds what was written. All of it is semihosting: the program stops, QEMU acts for it, the program goes on.

#![no_std]

pub mod echo;
mod flash;

pub use flash::{FileFlash, FlashError};
/// Writes a line to the console of QEMU.
pub use semihosting::println as say;

use semihosting::experimental::env;
use semihosting::fs::File;
use semihosting::io::Read;

/// Longest command line, bytes.
const ARGS_BYTES: usize = 1_024;

/// The arguments QEMU was started with, `-semihosting-config arg=NAME=VALUE`.
pub struct Args(Option<env::Args<ARGS_BYTES>>);

impl Args {
    /// Reads them. A command line that is too long or no UTF-8 has no arguments.
    pub fn read() -> Self {
        Self(env::args().ok())
    }

    /// The value of an argument.
    pub fn value(&self, name: &str) -> Option<&str> {
        let args = self.0.as_ref()?;
        args.filter_map(Result::ok).find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
    }

    /// The value of an argument that is a number.
    pub fn number<N: core::str::FromStr>(&self, name: &str) -> Option<N> {
        self.value(name)?.parse().ok()
    }
}

/// Fills `bytes` with randomness of the host. It ends the program when there is none, for keys would follow from nothing.
pub fn entropy(bytes: &mut [u8]) {
    let read = File::open(c"/dev/urandom").and_then(|mut file| file.read_exact(bytes));
    if read.is_err() {
        say!("no entropy: the host has no /dev/urandom");
        exit(1);
    }
}

/// Ends QEMU with this exit code.
pub fn exit(code: i32) -> ! {
    semihosting::process::exit(code)
}
