//! How long a connect token is to live, as it is typed.

use crate::auth::TOKEN_TTL_MAX_SECS;

/// A lifetime cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TtlError {
    /// It is no number with a unit.
    #[error("write a number and s, m, h or d: 90s, 15m, 1h, 30d")]
    Spelling,
    /// It is nothing, or too long.
    #[error("a token lives for 1 second to {} days", TOKEN_TTL_MAX_SECS / 86_400)]
    Range,
}

/// Reads a time such as `1h`; gives seconds.
pub(super) fn parse_ttl(text: &str) -> Result<u64, TtlError> {
    let (number, unit_secs) = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "s")) => (number, 1),
        Some((number, "m")) => (number, 60),
        Some((number, "h")) => (number, 3_600),
        Some((number, "d")) => (number, 86_400),
        _ => return Err(TtlError::Spelling),
    };
    let number: u64 = number.parse().map_err(|_| TtlError::Spelling)?;
    let secs = number.checked_mul(unit_secs).ok_or(TtlError::Range)?;
    if (1..=TOKEN_TTL_MAX_SECS).contains(&secs) { Ok(secs) } else { Err(TtlError::Range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read() {
        let check = |text, expect| assert_eq!(parse_ttl(text), expect, "{text}");
        check("90s", Ok(90));
        check("15m", Ok(900));
        check("1h", Ok(3_600));
        check("30d", Ok(2_592_000));
        check("31d", Err(TtlError::Range));
        check("0s", Err(TtlError::Range));
        check("99999999999999999999d", Err(TtlError::Spelling));
        check("9999999999999999999d", Err(TtlError::Range));
        for bad in ["", "h", "1", "1 h", "-1h", "1.5h", "1ä", "1w"] {
            check(bad, Err(TtlError::Spelling));
        }
    }
}
