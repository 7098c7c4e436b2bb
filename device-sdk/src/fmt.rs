//! Lines for a log: of the feature `log` for programs of an operating system and whatever else implements that crate, of
//! the feature `defmt` for boards. Without them nothing of a line is compiled.
//!
//! What may stand in a line: reasons, numbers, names. What may not, because logs are copied, kept and shown: passwords,
//! tokens, pairing codes, and what people say. Lines are written outside of the lock, for writing one may take long.

/// Whether anybody reads lines; for what has to be found out for one.
pub(crate) const LOGS: bool = cfg!(any(feature = "log", feature = "defmt"));

/// A line of this level.
macro_rules! line {
    ($level:ident, $text:literal $(, $value:expr)* $(,)?) => {{
        #[cfg(feature = "log")]
        ::log::$level!(target: "parlor_device", $text $(, $value)*);
        #[cfg(feature = "defmt")]
        ::defmt::$level!($text $(, $value)*);
        #[cfg(not(any(feature = "log", feature = "defmt")))]
        if false {
            $(let _ = &$value;)*
        }
    }};
}

/// What is done.
macro_rules! debug {
    ($($line:tt)*) => { line!(debug, $($line)*) };
}

/// What has changed.
macro_rules! info {
    ($($line:tt)*) => { line!(info, $($line)*) };
}

/// What went wrong, and heals or has to be healed.
macro_rules! warn {
    ($($line:tt)*) => { line!(warn, $($line)*) };
}
