//! Reads the few DER structures that name accounts and keys.

/// A place in DER bytes.
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(&'a [u8]);

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

impl<'a> Der<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next element: its tag and its contents. Only definite, minimal lengths are DER (X.690 s10.1).
    pub(super) fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&short, mut rest) = rest.split_first()?;
        let mut len = usize::from(short);
        if short >= 0x80 {
            let count = usize::from(short & 0x7F);
            if count == 0 || count > 3 {
                return None;
            }
            let (bytes, after) = rest.split_at_checked(count)?;
            len = bytes.iter().fold(0, |len, &b| len << 8 | usize::from(b));
            if len < 0x80 || bytes.first() == Some(&0) {
                return None;
            }
            rest = after;
        }
        let (contents, after) = rest.split_at_checked(len)?;
        self.0 = after;
        Some((tag, contents))
    }

    /// The contents of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, contents) = self.element()?;
        (found == tag).then_some(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_minimal_elements_are_read() {
        let check = |bytes: &[u8], expect: Option<(u8, usize)>| {
            assert_eq!(Der::new(bytes).element().map(|(t, c)| (t, c.len())), expect, "{bytes:?}");
        };
        check(&[], None);
        check(&[0x30], None);
        check(&[0x30, 0], Some((0x30, 0)));
        check(&[0x30, 2, 1], None);
        check(&[0x30, 2, 1, 1], Some((0x30, 2)));
        check(&[0x30, 0x80, 0, 0], None);
        check(&[0x30, 0x81, 1, 9], None);
        check(&[0x30, 0x84, 0, 0, 0, 1, 9], None);
        check(&[0x30, 0x83, 0xFF, 0xFF, 0xFF], None);
        let mut long = vec![0x04, 0x81, 0x80];
        long.resize(3 + 0x80, 7);
        check(&long, Some((4, 0x80)));
    }
}
