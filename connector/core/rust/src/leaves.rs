//! Packed leaves: each behind its length, a big-endian uint16; and their hashes (RFC 6962, 2.1).

use sha2::{Digest, Sha256};

pub const HASH_BYTES: usize = 32;
pub type Hash = [u8; HASH_BYTES];

/// Why bytes were refused, for people.
pub type Refusal = &'static str;

/// Exactly one hash.
pub fn hash_of(bytes: &[u8]) -> Result<Hash, Refusal> {
    bytes.try_into().map_err(|_| "proof: a hash has 32 bytes")
}

/// The leaf hash of one entry.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

/// The hash of two neighbours, 64 bytes.
pub fn node_hash(pair: &[u8]) -> Hash {
    Sha256::new().chain_update([1]).chain_update(pair).finalize().into()
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
    for leaf in unpack(packed) {
        found.extend_from_slice(&leaf_hash(leaf?));
    }
    Ok(found)
}

/// Where leaves `skip`, `skip + step` ... begin.
pub fn offsets(packed: &[u8], skip: usize, step: usize) -> Result<Vec<usize>, Refusal> {
    let (mut found, mut at, mut wanted) = (Vec::new(), 0, skip);
    for (number, leaf) in unpack(packed).enumerate() {
        if number == wanted {
            found.push(at);
            wanted = wanted.saturating_add(step);
        }
        at += 2 + leaf?.len();
    }
    Ok(found)
}
