//! What a client that is not let in is told, and what the operator counts.

use parlor_core::auth::{AuthAnswer, AuthStep};
use parlor_protocol::mqtt::ReasonCode;

/// Why a client is refused: for the operator in full, for the client in a few words.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal {
    NoCredentials,
    NoPassword,
    NoUserName,
    Password,
    UnknownAccount,
    UnknownCertificate,
    OtherName,
    Disabled,
    Token,
    ExpiredToken,
    RevokedToken,
    ReservedName,
    Method,
    Scram,
    SlowedDown,
    Busy,
    NoRandom,
}

impl Refusal {
    fn parts(self) -> (ReasonCode, &'static str, &'static str) {
        const WRONG: &str = "the credentials are not accepted";
        let wrong = |label| (ReasonCode::BAD_USER_NAME_OR_PASSWORD, WRONG, label);
        match self {
            Self::NoCredentials => (ReasonCode::NOT_AUTHORIZED, "credentials are required", "no_credentials"),
            Self::NoPassword => wrong("no_password"),
            Self::NoUserName => wrong("no_user_name"),
            Self::Password => wrong("bad_password"),
            Self::UnknownAccount => wrong("unknown_account"),
            Self::UnknownCertificate => {
                (ReasonCode::NOT_AUTHORIZED, "the certificate is of no account", "unknown_certificate")
            }
            Self::OtherName => wrong("other_name"),
            Self::Disabled => (ReasonCode::NOT_AUTHORIZED, "the account is disabled", "disabled_account"),
            Self::Token => wrong("bad_token"),
            Self::ExpiredToken => (ReasonCode::NOT_AUTHORIZED, "the token has expired: get a new one", "expired_token"),
            Self::RevokedToken => (ReasonCode::NOT_AUTHORIZED, "the token was revoked: get a new one", "revoked_token"),
            Self::ReservedName => {
                (ReasonCode::NOT_AUTHORIZED, "the account's name is reserved: get another account", "reserved_name")
            }
            Self::Method => {
                (ReasonCode::BAD_AUTHENTICATION_METHOD, "the only authentication method is SCRAM-SHA-256", "bad_method")
            }
            Self::Scram => wrong("bad_scram"),
            Self::SlowedDown => {
                (ReasonCode::CONNECTION_RATE_EXCEEDED, "too many failed attempts: wait a minute", "slowed_down")
            }
            Self::Busy => (ReasonCode::SERVER_BUSY, "too many logins at the same time: try again", "busy"),
            Self::NoRandom => (ReasonCode::UNSPECIFIED_ERROR, "try again", "no_random"),
        }
    }

    /// The answer; to a re-authentication with 0x87, as DISCONNECT knows no 0x86 (MQTT 5 table 2-6).
    pub(super) fn for_step(self, step: AuthStep) -> AuthAnswer {
        let (mut reason, text, label) = self.parts();
        if step == AuthStep::ReAuthenticate && reason == ReasonCode::BAD_USER_NAME_OR_PASSWORD {
            reason = ReasonCode::NOT_AUTHORIZED;
        }
        AuthAnswer::Refuse { reason, text, label }
    }
}

impl From<Refusal> for AuthAnswer {
    fn from(refusal: Refusal) -> Self {
        refusal.for_step(AuthStep::Connect)
    }
}
