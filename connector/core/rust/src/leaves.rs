//! Packed leaves: each behind its length, a big-endian uint16; and their hashes (RFC 6962, 2.1).

use crate::sha::{hash, hash_two, Hash, Message};
use std::hint::black_box;

/// What the hash of a leaf begins with.
pub const LEAF: [u8; 1] = [0];

/// Why bytes were refused, for people.
pub type Refusal = &'static str;

/// Exactly one hash.
pub fn one_hash(bytes: &[u8]) -> Result<Hash, Refusal> {
    bytes.try_into().map_err(|_| "proof: a hash has 32 bytes")
}

/// The leaves of packed bytes, in order. After a refusal there is nothing more.
pub struct Unpack<'a> {
    rest: &'a [u8],
}

pub fn unpack(packed: &[u8]) -> Unpack<'_> {
    Unpack { rest: packed }
}

impl<'a> Iterator for Unpack<'a> {
    type Item = Result<&'a [u8], Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let cut = self.rest.split_first_chunk::<2>().and_then(|(length, rest)| {
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
        });
        let Some((leaf, rest)) = cut else {
            self.rest = &[];
            return Some(Err("log: leaves are cut short"));
        };
        self.rest = rest;
        Some(Ok(leaf))
    }
}

/// The leaf hashes, one after the other.
pub fn hashes(packed: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut found = Vec::with_capacity(packed.len() / 4);
    let (mut one, mut other) = (Message::of(&LEAF), Message::of(&LEAF));
    let mut leaves = unpack(packed);
    while let Some(leaf) = leaves.next() {
        one.cut(LEAF.len());
        one.add(leaf?);
        if let Some(leaf) = leaves.next() {
            other.cut(LEAF.len());
            other.add(leaf?);
            found.extend_from_slice(hash_two(one.padded(), other.padded()).as_flattened());
        } else {
            found.extend_from_slice(&hash(one.padded()));
        }
    }
    Ok(found)
}

const AHEAD: usize = 8; // leaves

/// Where leaves `skip`, `skip + step` ... begin.
///
/// Where a leaf begins is known when the length of the one before was read, so memory would be
/// waited for at each; leaves are mostly as long as the one before, and their beginnings are asked
/// for some leaves ahead.
pub fn offsets(packed: &[u8], skip: usize, step: usize) -> Result<Vec<usize>, Refusal> {
    let (mut found, mut at, mut wanted) = (Vec::new(), 0, skip);
    for (number, leaf) in unpack(packed).enumerate() {
        if number == wanted {
            found.push(at);
            wanted = wanted.saturating_add(step);
        }
        let length = 2 + leaf?.len();
        black_box(packed.get(at + AHEAD * length).copied());
        at += length;
    }
    Ok(found)
}
