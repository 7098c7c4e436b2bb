//! The account that a one-time code has given.

use super::Shared;
#[cfg(feature = "persist")]
use super::persist::key;
#[cfg(feature = "persist")]
use crate::bytes::{Put, Take};
use crate::config::Login;
use heapless::String;

/// Account and what belongs to it, as pairing gave it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paired {
    pub(crate) account: String<32>,
    pub(crate) password: String<64>,
    pub(crate) owner: String<32>,
    pub(crate) household: String<34>,
}

#[cfg(feature = "persist")]
impl Paired {
    pub(super) fn load(bytes: &[u8]) -> Self {
        let mut take = Take(bytes);
        Self {
            account: String::try_from(take.short()).unwrap_or_default(),
            password: String::try_from(take.short()).unwrap_or_default(),
            owner: String::try_from(take.short()).unwrap_or_default(),
            household: String::try_from(take.short()).unwrap_or_default(),
        }
    }

    pub(super) fn save(&self, out: &mut [u8]) -> Option<usize> {
        let mut put = Put::new(out);
        for text in [self.account.as_str(), &self.password, &self.owner, &self.household] {
            put.short(text.as_bytes());
        }
        put.done()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pairing {
    pub(crate) paired: Option<Paired>,
    code: String<16>,
    /// Flash does not say what is here.
    #[cfg(feature = "persist")]
    pub(super) dirty: bool,
}

impl Pairing {
    pub(super) const fn new() -> Self {
        Self {
            paired: None,
            code: String::new(),
            #[cfg(feature = "persist")]
            dirty: false,
        }
    }

    pub(super) fn set_code(&mut self, code: &str) {
        self.code = String::try_from(code).unwrap_or_default();
    }

    pub(super) fn login(&self) -> Option<(&str, &[u8], bool)> {
        if let Some(paired) = &self.paired {
            return Some((&paired.account, paired.password.as_bytes(), false));
        }
        if self.code.is_empty() { None } else { Some(("pair", self.code.as_bytes(), true)) }
    }
}

impl Shared {
    /// The name that the device asks for when it is paired.
    pub(crate) fn wanted_name(&self) -> &'static str {
        match self.config().login {
            Login::Pair { name, .. } => name,
            _ => self.config().terminal,
        }
    }

    /// Pairs with this code at the next opportunity.
    pub(crate) fn pair(&mut self, code: &str) {
        self.pairing.set_code(code.trim_ascii());
        self.pairing.paired = None;
        self.hurry_up();
    }

    /// Pairing has given the device an account.
    pub(crate) fn set_paired(&mut self, paired: Paired) {
        self.pairing.paired = Some(paired);
        self.pairing.code.clear();
        self.keep_paired();
    }

    /// Forgets the account that pairing gave.
    pub(crate) fn unpair(&mut self) {
        self.pairing.paired = None;
        self.keep_paired();
    }

    fn keep_paired(&mut self) {
        #[cfg(feature = "persist")]
        {
            self.pairing.dirty = self.flash.keeps();
        }
        self.wake_both();
    }

    /// Whether the account is where it has to be.
    #[cfg_attr(not(feature = "persist"), allow(clippy::unused_self, reason = "RAM is where it has to be"))]
    pub(crate) fn paired_is_kept(&self) -> bool {
        #[cfg(feature = "persist")]
        return !self.pairing.dirty && !self.flash.writes(key::PAIRED);
        #[cfg(not(feature = "persist"))]
        true
    }
}
