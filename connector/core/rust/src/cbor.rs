//! Deterministic CBOR (RFC 8949, section 4.2.1), the part of it that record leaves need: heads of
//! unsigned integers, byte strings, text and maps, each in its shortest form.

use crate::leaves::Refusal;

pub const UINT: u8 = 0;
pub const BYTES: u8 = 2;
pub const TEXT: u8 = 3;
pub const MAP: u8 = 5;

/// How many bytes `write_head` writes for this argument.
pub fn head_size(argument: u64) -> usize {
    match argument {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The head of a value: its major type and its argument (a number, or a length). Returns where
/// it ends.
pub fn write_head(out: &mut [u8], at: usize, major: u8, argument: u64) -> usize {
    let major = major << 5;
    match head_size(argument) {
        1 => out[at] = major | argument as u8,
        2 => out[at..at + 2].copy_from_slice(&[major | 24, argument as u8]),
        3 => {
            out[at] = major | 25;
            out[at + 1..at + 3].copy_from_slice(&(argument as u16).to_be_bytes());
        }
        5 => {
            out[at] = major | 26;
            out[at + 1..at + 5].copy_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out[at] = major | 27;
            out[at + 1..at + 9].copy_from_slice(&argument.to_be_bytes());
        }
    }
    at + head_size(argument)
}

/// The same, at the end of a vector, with what follows the head.
pub fn push(out: &mut Vec<u8>, major: u8, argument: u64, body: &[u8]) {
    let at = out.len();
    out.resize(at + head_size(argument), 0);
    write_head(out, at, major, argument);
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
        if head_size(argument) != 1 + bytes.len() {
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
