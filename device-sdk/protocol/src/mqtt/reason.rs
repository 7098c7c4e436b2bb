//! Reason codes.
/// A reason code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct ReasonCode(pub u8);
