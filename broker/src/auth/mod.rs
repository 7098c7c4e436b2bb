//! Placeholder
use parlor_core::auth::*;
pub struct Authenticator;
impl Authenticator {
    pub fn answer(&self, _r: &AuthRequest, _now: u64) -> AuthAnswer {
        AuthAnswer::Refuse { reason: parlor_protocol::mqtt::ReasonCode::NOT_AUTHORIZED, text: "no", label: "no" }
    }
    pub fn forget(&self, _e: u64) {}
}
