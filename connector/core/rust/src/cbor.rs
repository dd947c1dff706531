//! Deterministic CBOR (RFC 8949, section 4.2.1), the part of it that record leaves need: heads of
//! unsigned integers, byte strings, text and maps, each in its shortest form.

use crate::leaves::Refusal;

pub const UINT: u8 = 0;
pub const BYTES: u8 = 2;
pub const TEXT: u8 = 3;
pub const MAP: u8 = 5;

/// The head of a value: its major type and its argument (a number, or a length).
pub struct Head {
    pub bytes: [u8; HEAD_ROOM],
    pub size: usize,
}

pub const HEAD_ROOM: usize = 16; // more than any has; a copy of fixed size is a fast one

impl Head {
    #[inline]
    pub fn new(major: u8, argument: u64) -> Self {
        let (extra, width) = match argument {
            0..=23 => (argument as u8, 0),
            24..=0xff => (24, 1),
            0x100..=0xffff => (25, 2),
            0x1_0000..=0xffff_ffff => (26, 4),
            _ => (27, 8),
        };
        let mut bytes = [0; HEAD_ROOM];
        bytes[0] = major << 5 | extra;
        // Only the last bytes of the argument count; they are brought to the front.
        let shift = if width == 0 { 0 } else { 64 - 8 * width as u32 };
        bytes[1..9].copy_from_slice(&(argument << shift).to_be_bytes());
        Head { bytes, size: 1 + width }
    }

    /// Behind a key of a map, below 24.
    #[inline]
    pub fn under(key: u8, major: u8, argument: u64) -> Self {
        let head = Head::new(major, argument);
        let mut bytes = [key; HEAD_ROOM];
        bytes[1..].copy_from_slice(&head.bytes[..HEAD_ROOM - 1]);
        Head { bytes, size: 1 + head.size }
    }
}

/// A whole value, at the end of a vector.
pub fn push(out: &mut Vec<u8>, major: u8, argument: u64, body: &[u8]) {
    let head = Head::new(major, argument);
    out.extend_from_slice(&head.bytes[..head.size]);
    out.extend_from_slice(body);
}

/// Reads values from the front of bytes.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Reader { rest: data }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// `count` bytes as they are.
    fn take(&mut self, count: u64) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = usize::try_from(count)
            .ok()
            .and_then(|count| self.rest.split_at_checked(count))
            .ok_or("receipt: cut short")?;
        self.rest = rest;
        Ok(taken)
    }

    /// The argument of a head of this major type, in its shortest form.
    pub fn head(&mut self, major: u8) -> Result<u64, Refusal> {
        let first = self.take(1)?[0];
        if first >> 5 != major {
            return Err("receipt: a field of another type");
        }
        let width = match first & 31 {
            small @ 0..=23 => return Ok(u64::from(small)),
            extra @ 24..=27 => 1 << (extra - 24),
            _ => return Err("receipt: indefinite or reserved length"),
        };
        let bytes = self.take(width)?;
        let argument = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        if Head::new(major, argument).size != 1 + bytes.len() {
            return Err("receipt: a number is not in its shortest form");
        }
        Ok(argument)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Refusal> {
        let size = self.head(BYTES)?;
        self.take(size)
    }

    pub fn text(&mut self) -> Result<&'a str, Refusal> {
        let size = self.head(TEXT)?;
        std::str::from_utf8(self.take(size)?).map_err(|_| "receipt: text is not UTF-8")
    }
}
