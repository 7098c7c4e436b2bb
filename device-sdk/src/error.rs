//! Why something did not work: one enum for the connection, one for what was sent.

/// Why the device is not online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no network: no cable, no Wi-Fi, no address.
    NoNetwork,
    /// The broker's name leads nowhere.
    NameUnknown,
    /// Nobody answers at the broker's address.
    Unreachable,
    /// The broker did not answer in time.
    Timeout,
    /// The connection ended without a word.
    Closed,
    /// TLS: the server's key is neither the current pin nor the next.
    WrongPin,
    /// TLS: the server's certificate is not valid now.
    CertificateExpired,
    /// TLS: the server's certificate was not signed by an authority that the device trusts.
    CertificateUnknown,
    /// TLS: the server did not prove that the certificate is its own.
    NotAuthenticated,
    /// TLS: the two sides found no common ground.
    Tls,
    /// The broker does not accept the account and password.
    CredentialsRefused,
    /// The account was disabled: the device is no longer wanted.
    Disabled,
    /// The token or certificate of the device has expired.
    CredentialsExpired,
    /// The token of the device was revoked.
    CredentialsRevoked,
    /// The broker does not let this client in, and does not say more.
    NotAuthorized,
    /// The pairing code is wrong or too old.
    PairingCode,
    /// There are neither credentials nor a pairing code.
    NoCredentials,
    /// The broker is busy or slows the device down; it is tried again later.
    Busy,
    /// The broker shuts down.
    ShuttingDown,
    /// Another connection with the same client identifier took over: two boards with one name?
    TakenOver,
    /// Somebody ended the connection at the broker.
    Kicked,
    /// The broker speaks another version or build of the protocol.
    Version,
    /// The broker said something that makes no sense; or it could not read what the device said.
    Protocol,
    /// A packet is longer than the receive buffer (`RX` of `Resources`).
    TooLarge,
    /// What must be known at start could not be read from flash.
    Flash,
}

impl LinkError {
    /// What happened and what to do, for a log.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoNetwork => "there is no network",
            Self::NameUnknown => "the broker's name leads nowhere: check it, and the DNS server",
            Self::Unreachable => "nobody answers at the broker's address",
            Self::Timeout => "the broker did not answer in time",
            Self::Closed => "the connection ended",
            Self::WrongPin => "the server's key is none of the pinned ones",
            Self::CertificateExpired => "the server's certificate is not valid now",
            Self::CertificateUnknown => "the server's certificate is not signed by a trusted authority",
            Self::NotAuthenticated => "the server did not prove that the certificate is its own",
            Self::Tls => "TLS found no common ground",
            Self::CredentialsRefused => "the broker does not accept account and password",
            Self::Disabled => "the account is disabled",
            Self::CredentialsExpired => "the device's token or certificate has expired",
            Self::CredentialsRevoked => "the device's token was revoked",
            Self::NotAuthorized => "the broker does not let this client in",
            Self::PairingCode => "the pairing code is wrong or too old: ask for a new one",
            Self::NoCredentials => "there are neither credentials nor a pairing code",
            Self::Busy => "the broker is busy",
            Self::ShuttingDown => "the broker shuts down",
            Self::TakenOver => "another connection with the same client identifier took over",
            Self::Kicked => "the connection was ended at the broker",
            Self::Version => "the broker speaks another version of the protocol",
            Self::Protocol => "the broker and the device do not understand each other",
            Self::TooLarge => "a packet is longer than the receive buffer",
            Self::Flash => "flash could not be read",
        }
    }

    /// Whether trying again soon is pointless: somebody has to change something first. The longest pause is kept.
    pub(crate) const fn is_final(self) -> bool {
        matches!(
            self,
            Self::WrongPin
                | Self::CertificateUnknown
                | Self::NotAuthenticated
                | Self::CredentialsRefused
                | Self::Disabled
                | Self::CredentialsExpired
                | Self::CredentialsRevoked
                | Self::NotAuthorized
                | Self::PairingCode
                | Self::NoCredentials
                | Self::TakenOver
                | Self::Version
        )
    }
}

impl core::fmt::Display for LinkError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for LinkError {}

/// Why something could not be queued; nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// It is longer than the outbox, the transmit buffer, or a field of it is longer than 255 bytes.
    TooLarge,
    /// The outbox is full and its policy is to keep what is there. The waiting calls wait instead.
    Full,
    /// It was to be kept in flash, and that failed or there is none.
    Flash,
}

impl SendError {
    /// What happened, for a log.
    pub const fn text(self) -> &'static str {
        match self {
            Self::TooLarge => "too large for the device's buffers",
            Self::Full => "the outbox is full",
            Self::Flash => "it could not be kept in flash",
        }
    }
}

impl core::fmt::Display for SendError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for SendError {}

/// What became of something that was queued: exactly one of these, and the first is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has it, on disk.
    Acked {
        /// Of a message: its number in the conversation; else 0.
        seq: u64,
    },
    /// The broker will never have it from this device.
    Lost(Why),
}

/// Why something that was queued was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The broker refused it.
    Refused(Refusal),
    /// A newer value for the same topic took its place. What was queued before a reboot may have got there all the same.
    Replaced,
    /// The outbox was full, and the policy is to drop the oldest. What was queued before a reboot may have got there all the
    /// same.
    Dropped,
    /// It is longer than the broker takes, or than the transmit buffer.
    TooLarge,
    /// It was sent without asking for an acknowledgement: nobody knows.
    NotAsked,
    /// It was to be kept in flash, and that failed.
    Flash,
}

/// Why the broker refused something (docs/protocol.md, section 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It could not be read, or a field is wrong.
    BadRequest,
    /// No such topic.
    BadTopic,
    /// The connection has no account.
    NoAccount,
    /// No such account, group, message or command.
    NotFound,
    /// The receiver has not agreed.
    NoConsent,
    /// The receiver has blocked the device.
    Blocked,
    /// The device's role does not allow it.
    Forbidden,
    /// This id was used for another content.
    IdReused,
    /// The time for it is over.
    TooLate,
    /// The name is taken.
    Exists,
    /// Longer than the receiver takes.
    TooLarge,
    /// Too fast, or too many.
    Quota,
    /// The broker's disk is nearly full.
    LowSpace,
    /// Anything else; an MQTT reason code, or the number of a newer broker's code.
    Other(u8),
}

impl Refusal {
    /// From the word of section 10.
    #[cfg(all(feature = "mqtt", feature = "im"))]
    pub(crate) fn parse(word: &[u8]) -> Option<Self> {
        const WORDS: [(&[u8], Refusal); 13] = [
            (b"bad_request", Refusal::BadRequest),
            (b"bad_topic", Refusal::BadTopic),
            (b"no_account", Refusal::NoAccount),
            (b"not_found", Refusal::NotFound),
            (b"no_consent", Refusal::NoConsent),
            (b"blocked", Refusal::Blocked),
            (b"forbidden", Refusal::Forbidden),
            (b"id_reused", Refusal::IdReused),
            (b"too_late", Refusal::TooLate),
            (b"exists", Refusal::Exists),
            (b"too_large", Refusal::TooLarge),
            (b"quota", Refusal::Quota),
            (b"low_space", Refusal::LowSpace),
        ];
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, refusal)| *refusal)
    }

    /// Whether the same again, later, may be accepted: the row is kept and sent once more a little later.
    pub(crate) const fn is_passing(self) -> bool {
        matches!(self, Self::Quota | Self::LowSpace)
    }
}
