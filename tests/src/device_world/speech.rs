//! The board's wire: whichever of the SDK's the plan says.

use super::Wire as Which;
use parlor_device::wire::{Hello, Incoming, Item, Subscribe, Wire};
use parlor_device::{LinkError, Mqtt, Native};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speech(pub(super) Which);

impl Speech {
    fn wire(self) -> &'static dyn Wire {
        match self.0 {
            Which::V5 => &Mqtt::V5,
            Which::V311 => &Mqtt::V311,
            Which::Native => &Native,
        }
    }
}

impl Wire for Speech {
    fn hello(&self, hello: &Hello<'_>, out: &mut [u8]) -> Option<usize> {
        self.wire().hello(hello, out)
    }

    fn whole(&self, bytes: &[u8]) -> Result<usize, LinkError> {
        self.wire().whole(bytes)
    }

    fn read<'a>(&self, packet: &'a [u8]) -> Option<Incoming<'a>> {
        self.wire().read(packet)
    }

    fn ack(&self, pid: u16, out: &mut [u8]) -> Option<usize> {
        self.wire().ack(pid, out)
    }

    fn ping(&self, out: &mut [u8]) -> Option<usize> {
        self.wire().ping(out)
    }

    fn bye(&self, out: &mut [u8]) -> Option<usize> {
        self.wire().bye(out)
    }

    fn subscribe(&self, pid: u16, what: Subscribe<'_>, out: &mut [u8]) -> Option<usize> {
        self.wire().subscribe(pid, what, out)
    }

    fn item(&self, item: &Item<'_>, pid: u16, dup: bool, out: &mut [u8]) -> Option<usize> {
        self.wire().item(item, pid, dup, out)
    }

    fn describe(&self, pid: u16, len: usize, out: &mut [u8]) -> Option<usize> {
        self.wire().describe(pid, len, out)
    }

    fn asleep(&self, pid: u16, for_s: u32, out: &mut [u8]) -> Option<usize> {
        self.wire().asleep(pid, for_s, out)
    }

    fn pair(&self, pid: u16, name: &str, out: &mut [u8]) -> Option<usize> {
        self.wire().pair(pid, name, out)
    }

    fn news_follow(&self) -> bool {
        self.wire().news_follow()
    }
}
