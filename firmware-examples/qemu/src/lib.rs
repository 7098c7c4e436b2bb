//! What both emulated boards have instead of pins and chips: arguments, a console, entropy, and a flash that is a file of the host,
//! so that a reboot finds what was written. All of it is semihosting: the program stops, QEMU acts for it, the program goes on.

#![no_std]

pub mod device;
pub mod echo;
mod flash;
mod slot;

pub use flash::{FileFlash, FlashError};
pub use slot::Slot;
/// Writes a line to the console of QEMU.
pub use semihosting::println as say;

use semihosting::experimental::env;
use semihosting::fs::File;
use semihosting::io::Read;

/// Longest command line, bytes.
const ARGS_BYTES: usize = 1_024;

/// The arguments QEMU was started with, `-semihosting-config arg=NAME=VALUE`, one behind the other, each with a NUL.
pub struct Args {
    text: [u8; ARGS_BYTES],
    length: usize,
}

impl Args {
    /// Reads them. Those that are no UTF-8 or have no room are left out.
    pub fn read() -> Self {
        let mut all = Self { text: [0; ARGS_BYTES], length: 0 };
        let args = env::args::<ARGS_BYTES>();
        for arg in args.iter().flatten().filter_map(Result::ok) {
            let end = all.length + arg.len();
            if let Some(room) = all.text.get_mut(all.length..end) {
                room.copy_from_slice(arg.as_bytes());
                all.length = end + 1;
            }
        }
        all
    }

    /// The value of an argument.
    pub fn value(&self, name: &str) -> Option<&str> {
        let args = self.text.split(|byte| *byte == 0).filter_map(|arg| core::str::from_utf8(arg).ok());
        args.into_iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
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
