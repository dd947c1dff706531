//! The Merkle tree: appending many leaves (RFC 6962, 2.1) and inclusion proofs (RFC 9162, 2.1.3.2).

use crate::sha::{hash, hash_two, Block, Hash, Message, HASH_BYTES};
use std::mem::take;

pub const MAX_SIZE: u64 = i64::MAX as u64; // leaves in a log
pub const MAX_PROOF: usize = 64; // hashes
const TILE_HEIGHT: u32 = 8;
const NODE: [u8; 1] = [1]; // what the hash of two subtrees begins with

/// Hashes pairs of neighbours, 64 bytes each.
struct Pairs([Message; 2]);

impl Pairs {
    fn new() -> Self {
        Pairs([Message::of(&NODE), Message::of(&NODE)])
    }

    fn blocks<'a>(message: &'a mut Message, left: &[u8], right: &[u8]) -> &'a [Block] {
        message.cut(NODE.len());
        message.add(left);
        message.add(right);
        message.padded()
    }

    fn hash(&mut self, left: &[u8], right: &[u8]) -> Hash {
        hash(Self::blocks(&mut self.0[0], left, right))
    }

    fn hash_two(&mut self, four: &[u8]) -> [Hash; 2] {
        let (one, other) = four.split_at(2 * HASH_BYTES);
        let [first, second] = &mut self.0;
        hash_two(Self::blocks(first, one, &[]), Self::blocks(second, other, &[]))
    }
}

/// A tree's complete subtrees, largest first, and what its tiles gained: level and hashes.
pub struct Grown {
    pub subtrees: Vec<Hash>,
    pub completed: Vec<(u32, Vec<u8>)>,
}

/// Append leaf hashes, whole ones, to a tree of `size` leaves with these complete subtrees, one
/// for each bit of `size`. Level by level: what is new in a row joins with what was left of it.
pub fn extend(size: u64, subtrees: &[Hash], hashes: &[u8]) -> Grown {
    let mut smallest_first = subtrees.iter().rev();
    let mut grown = Grown { subtrees: Vec::new(), completed: Vec::new() };
    let mut row = hashes.to_vec();
    let mut nodes = Pairs::new();
    for level in 0..64 {
        if size >> level == 0 && row.is_empty() {
            break;
        }
        let left = if size >> level & 1 == 1 { smallest_first.next() } else { None };
        let mut above = Vec::with_capacity(row.len() / 2 + HASH_BYTES);
        let mut rest = &row[..];
        let mut alone = left.copied();
        if let (Some(left), Some((first, others))) = (left, rest.split_first_chunk::<HASH_BYTES>())
        {
            above.extend_from_slice(&nodes.hash(left, first));
            (rest, alone) = (others, None);
        }
        let fours = rest.chunks_exact(4 * HASH_BYTES);
        rest = fours.remainder();
        for four in fours {
            above.extend_from_slice(nodes.hash_two(four).as_flattened());
        }
        if rest.len() >= 2 * HASH_BYTES {
            let (pair, others) = rest.split_at(2 * HASH_BYTES);
            above.extend_from_slice(&nodes.hash(pair, &[]));
            rest = others;
        }
        alone = rest.try_into().ok().or(alone);
        grown.subtrees.extend(alone);
        if !row.is_empty() && level % TILE_HEIGHT == 0 {
            grown.completed.push((level / TILE_HEIGHT, take(&mut row)));
        }
        row = above;
    }
    grown.subtrees.reverse();
    grown
}

/// Why a proof was refused: it cannot be one, or it does not hold.
pub enum Wrong {
    Impossible(&'static str),
    Proof(&'static str),
}

/// That `leaf`, a leaf hash, is leaf `index` of the tree of `size` leaves with this root.
pub fn verify_inclusion(
    leaf: Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), Wrong> {
    if size > MAX_SIZE {
        return Err(Wrong::Impossible("log: a size that cannot be"));
    }
    if index >= size {
        return Err(Wrong::Impossible("inclusion proof: the index is not in the tree"));
    }
    let (mut node, mut last) = (index, size - 1);
    let mut nodes = Pairs::new();
    let mut computed = leaf;
    for sibling in proof {
        if last == 0 {
            return Err(Wrong::Proof("inclusion proof: too long"));
        }
        let is_right = node & 1 == 1 || node == last;
        let (left, right) = if is_right { (sibling, &computed) } else { (&computed, sibling) };
        computed = nodes.hash(left, right);
        // A node without a right neighbour moves up until it is one.
        while is_right && node & 1 == 0 && node != 0 {
            (node, last) = (node >> 1, last >> 1);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(Wrong::Proof("inclusion proof: too short"));
    }
    if computed != *root {
        return Err(Wrong::Proof("inclusion proof: does not lead to the root"));
    }
    Ok(())
}
