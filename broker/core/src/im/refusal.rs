//! Why something was not done: what the peer hears and what the operator counts.

use parlor_protocol::mqtt::ReasonCode;

/// A refusal's code: one word for machines, one reason code for MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    BadRequest,
    BadTopic,
    NoAccount,
    NotFound,
    NoConsent,
    Blocked,
    Forbidden,
    IdReused,
    TooLate,
    ResponseTopic,
    Exists,
    TooLarge,
    Quota,
    Expired,
    LowSpace,
}

impl Code {
    /// As it is on the wire, and the label of the counter.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::BadTopic => "bad_topic",
            Self::NoAccount => "no_account",
            Self::NotFound => "not_found",
            Self::NoConsent => "no_consent",
            Self::Blocked => "blocked",
            Self::Forbidden => "forbidden",
            Self::IdReused => "id_reused",
            Self::TooLate => "too_late",
            Self::ResponseTopic => "response_topic",
            Self::Exists => "exists",
            Self::TooLarge => "too_large",
            Self::Quota => "quota",
            Self::Expired => "expired",
            Self::LowSpace => "low_space",
        }
    }

    /// The reason code of PUBACK and PUBREC.
    pub(crate) fn reason(self) -> ReasonCode {
        match self {
            Self::BadRequest => ReasonCode::PAYLOAD_FORMAT_INVALID,
            Self::BadTopic => ReasonCode::TOPIC_NAME_INVALID,
            // Packet too large (0x95) is no code of PUBACK [MQTT5-3.4.2-1].
            Self::TooLarge | Self::Quota | Self::LowSpace => ReasonCode::QUOTA_EXCEEDED,
            _ => ReasonCode::NOT_AUTHORIZED,
        }
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    /// What happened and what to do, for a person.
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The payload or one of its fields is wrong.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, text)
    }

    /// There is no such thing.
    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(Code::NotFound, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_puback_may_carry_every_reason() {
        use Code::*;
        let all = [
            BadRequest,
            BadTopic,
            NoAccount,
            NotFound,
            NoConsent,
            Blocked,
            Forbidden,
            IdReused,
            TooLate,
            ResponseTopic,
            Exists,
            TooLarge,
            Quota,
            Expired,
            LowSpace,
        ];
        for code in all {
            let reason = code.reason().0;
            assert!([0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99].contains(&reason), "{}: {reason:#x}", code.text());
        }
    }
}
