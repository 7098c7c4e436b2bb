//! Every bound of the messaging client, with what happens at its edge.

/// Conversations kept in memory; a message of one more makes room by forgetting the one that was quiet for longest.
pub const CONVERSATIONS_MAX: usize = 1_024;
/// Messages kept of one conversation; the oldest are forgotten first and can be pulled again.
pub const MESSAGES_MAX: usize = 2_000;
/// Messages asked for at a time.
pub const PAGE: u64 = 50;
/// Publishes that wait for the broker's answer, where nothing else is said; one more is refused with a text.
pub const OUTBOX_MAX: usize = 512;
/// Connections that ended with a publish as the first without an answer; then it is given up, because it may be what ends
/// them.
pub const ATTEMPTS_MAX: u32 = 10;
/// Events that wait for the one who polls; the oldest are dropped, and how many is said.
pub const EVENTS_MAX: usize = 4_096;
/// Commands remembered; the oldest are forgotten first.
pub const COMMANDS_MAX: usize = 256;
/// Refusals remembered, because each comes twice: as PUBACK and on `im/v1/me/err`.
pub const REFUSALS_MAX: usize = 32;
/// Contacts, presences and device states remembered, each; more are not shown.
pub const NAMES_MAX: usize = 4_096;
/// Counts of group receipts kept for one conversation; those of the oldest messages are forgotten first.
pub const GROUP_MARKS_MAX: usize = 512;
/// Pages pulled in a row to close one gap; what is missing then is shown when one scrolls there.
pub const PULLS_MAX: u32 = 40;
/// How long "is typing" is shown after it was heard, milliseconds.
pub const TYPING_MS: u64 = 6_000;
/// How often the own typing is told, milliseconds.
pub const TYPING_TOLD_MS: u64 = 3_000;
/// The broker's deadline of a command that names none, milliseconds.
pub const DEADLINE_MS: u64 = 10_000;
/// The same of one that waits for a device that is offline.
pub const PERSIST_DEADLINE_MS: u64 = 7 * 86_400_000;
/// The `im-level` this client understands, as the day of its protocol: yyMMdd.
pub const LEVEL: u64 = 261_126;
