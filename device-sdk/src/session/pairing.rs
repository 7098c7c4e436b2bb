//! Pairing: a connection of its own, on which a one-time code is changed for an account.

use super::{Phase, Session};
use crate::error::LinkError;
use crate::json::Text;
use crate::shared::{Paired, Shared};
use crate::wire::{self, Subscribe, Wire};
use heapless::String;

/// How far it is.
#[derive(Debug)]
pub(super) struct Pairing {
    /// This connection is one for pairing.
    pub(super) active: bool,
    asked: bool,
    /// The packet with the credentials: acknowledged when they are kept.
    pid: Option<u16>,
}

impl Pairing {
    pub(super) const NONE: Self = Self { active: false, asked: false, pid: None };

    /// There is a new connection; what the last one was for is known until its first packet.
    pub(super) fn begin(&mut self) {
        *self = Self { active: self.active, ..Self::NONE };
    }

    /// The account has come.
    pub(super) fn paired(&mut self, shared: &mut Shared, pid: u16, paired: &wire::Paired<'_>) -> Result<(), LinkError> {
        let paired = Paired {
            account: string(paired.account)?,
            password: string(paired.password)?,
            owner: string(paired.owner)?,
            household: string(paired.household)?,
        };
        self.pid = Some(pid);
        shared.set_paired(paired);
        Ok(())
    }
}

impl<W: Wire> Session<W> {
    pub(super) fn pair(&mut self, shared: &mut Shared, out: &mut [u8]) -> Option<usize> {
        if let Some(pid) = self.pairing.pid {
            if !shared.paired_is_kept() {
                return None;
            }
            let len = if pid == 0 { self.wire.ping(out)? } else { self.wire.ack(pid, out)? };
            self.pairing.pid = None;
            self.phase = Phase::Bye;
            return Some(len);
        }
        if self.own != 0 || self.pairing.asked {
            return None;
        }
        let pid = self.pid(shared);
        if self.step == 0 {
            match self.wire.subscribe(pid, Subscribe::Paired, out)? {
                0 => self.step = 1,
                len => {
                    self.own = pid;
                    return Some(len);
                }
            }
        }
        let len = self.wire.pair(pid, shared.wanted_name(), out)?;
        self.own = pid;
        self.pairing.asked = true;
        Some(len)
    }
}

fn string<const N: usize>(text: Text<'_>) -> Result<String<N>, LinkError> {
    let mut bytes = [0; 64];
    let len = text.copy_to(&mut bytes).ok_or(LinkError::TooLarge)?;
    let text = crate::bytes::text(bytes.get(..len).unwrap_or(&[]));
    String::try_from(text).map_err(|_| LinkError::TooLarge)
}
