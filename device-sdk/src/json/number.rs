//! Numbers: read and written without the tables that exact floats need.

use super::{FromJson, ToJson, Value, Writer};
use crate::bytes::Digits;

/// An integer; `-0` and a fraction of zeros are integers, exponents are not.
fn integer(value: Value<'_>) -> Option<(bool, u64)> {
    let (negative, digits) = match value.0.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, value.0),
    };
    let digits = match digits.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|b| b == b'0') => whole,
        Some(_) => return None,
        None => digits,
    };
    if digits.is_empty() {
        return None;
    }
    let mut number = 0u64;
    for byte in digits.bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    Some((negative, number))
}

macro_rules! integers {
    ($($unsigned:ty)* ; $($signed:ty)*) => {
        $(impl FromJson for $unsigned {
            fn from_json(value: Value<'_>) -> Option<Self> {
                match integer(value)? {
                    (true, 1..) => None,
                    (_, number) => number.try_into().ok(),
                }
            }
        }
        impl ToJson for $unsigned {
            fn to_json(&self, json: &mut Writer<'_>) {
                json.unsigned(u64::from(*self));
            }
        })*
        $(impl FromJson for $signed {
            fn from_json(value: Value<'_>) -> Option<Self> {
                let (negative, number) = integer(value)?;
                let number = if negative { 0i64.checked_sub_unsigned(number)? } else { number.try_into().ok()? };
                number.try_into().ok()
            }
        }
        impl ToJson for $signed {
            fn to_json(&self, json: &mut Writer<'_>) {
                json.signed(i64::from(*self));
            }
        })*
    };
}

integers!(u8 u16 u32 u64 ; i8 i16 i32 i64);

impl FromJson for f32 {
    /// Within a unit in the last place or two of the nearest: enough for what a sensor or actuator means, in a tenth of
    /// the code.
    fn from_json(value: Value<'_>) -> Option<Self> {
        let (negative, digits) = match value.0.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, value.0),
        };
        let (digits, exponent) = match digits.split_once(['e', 'E']) {
            Some((digits, exponent)) => {
                let exponent = Value(exponent.strip_prefix('+').unwrap_or(exponent));
                (digits, i32::from(i16::from_json(exponent)?))
            }
            None => (digits, 0),
        };
        let mut number = 0u64;
        let mut scale = exponent;
        let mut any = false;
        let mut behind_point = false;
        for byte in digits.bytes() {
            match byte {
                b'.' if any && !behind_point => behind_point = true,
                b'0'..=b'9' => {
                    any = true;
                    if number < 100_000_000_000_000_000 {
                        number = number * 10 + u64::from(byte - b'0');
                        scale -= i32::from(behind_point);
                    } else {
                        scale += i32::from(!behind_point);
                    }
                }
                _ => return None,
            }
        }
        if !any {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "a float has no more precision")]
        let mut float = number as f32;
        while scale > 0 && float.is_finite() && float != 0.0 {
            float *= 10.0;
            scale -= 1;
        }
        // In one division where that is exact.
        while scale < 0 && float != 0.0 {
            let step = scale.unsigned_abs().min(10);
            let mut power = 1.0f32;
            for _ in 0..step {
                power *= 10.0;
            }
            float /= power;
            scale += 10.min(scale.abs());
        }
        Some(if negative { -float } else { float })
    }
}

impl ToJson for f32 {
    /// With three digits behind the point, and none of them that says nothing; not a number is `null`.
    fn to_json(&self, json: &mut Writer<'_>) {
        if !self.is_finite() {
            return json.null();
        }
        let magnitude = self.abs();
        if magnitude >= 1e15 {
            // Beyond what a float tells apart anyway.
            let mut scaled = magnitude;
            let mut exponent = 0u8;
            while scaled >= 1e9 {
                scaled /= 10.0;
                exponent += 1;
            }
            json.comma();
            if *self < 0.0 {
                json.put(b"-");
            }
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it was made small and positive"
            )]
            json.put(Digits::decimal(scaled as u64).as_bytes());
            json.put(b"e");
            json.put(Digits::decimal(exponent.into()).as_bytes());
            return;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive and below 1e15")]
        let (mut whole, fraction) = {
            let whole = magnitude as u64;
            #[allow(clippy::cast_precision_loss, reason = "the whole part of a float is a float")]
            let rest = magnitude - whole as f32;
            (whole, (rest * 1000.0 + 0.5) as u16)
        };
        let mut fraction = fraction;
        if fraction >= 1000 {
            whole += 1;
            fraction -= 1000;
        }
        json.comma();
        if *self < 0.0 && (whole, fraction) != (0, 0) {
            json.put(b"-");
        }
        json.put(Digits::decimal(whole).as_bytes());
        if fraction > 0 {
            let digit = |place: u16| b'0' + (fraction / place % 10) as u8;
            let digits = [b'.', digit(100), digit(10), digit(1)];
            let len = if fraction % 100 == 0 {
                2
            } else if fraction % 10 == 0 {
                3
            } else {
                4
            };
            json.put(digits.get(..len).unwrap_or(&digits));
        }
    }
}
