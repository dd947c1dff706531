//! The Merkle tree: appending many leaves (RFC 6962, 2.1) and inclusion proofs (RFC 9162, 2.1.3.2).

use crate::sha::{add_block, hash, hash_of, hash_two, state_of};
use crate::sha::{Block, Hash, Message, State, BEGIN, BLOCK_BYTES, HASH_BYTES};
use std::mem::take;

pub const MAX_SIZE: u64 = i64::MAX as u64; // leaves in a log
pub const MAX_PROOF: usize = 64; // hashes
const TILE_HEIGHT: u32 = 8;
const NODE: [u8; 1] = [1]; // what the hash of two subtrees begins with

/// Hashes pairs of neighbours, two such pairs at a time: the blocks of a node, padded, in which the
/// hashes below are put in.
struct Pairs([[Block; 2]; 2]);

impl Pairs {
    fn new() -> Self {
        Pairs([Self::node(); 2])
    }

    fn node() -> [Block; 2] {
        let mut node = Message::of(&NODE);
        node.add(&[0; 2 * HASH_BYTES]);
        let mut blocks = [[0; BLOCK_BYTES]; 2];
        blocks.copy_from_slice(node.padded());
        blocks
    }

    #[inline]
    fn put(blocks: &mut [Block; 2], pair: &[u8]) {
        blocks.as_flattened_mut()[NODE.len()..][..2 * HASH_BYTES].copy_from_slice(pair);
    }

    fn hash(&mut self, pair: &[u8]) -> Hash {
        Self::put(&mut self.0[0], pair);
        hash(&self.0[0])
    }

    fn hash_two(&mut self, one: &[u8], other: &[u8]) -> [Hash; 2] {
        Self::put(&mut self.0[0], one);
        Self::put(&mut self.0[1], other);
        hash_two(&self.0[0], &self.0[1])
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
            above.extend_from_slice(&nodes.hash([*left, *first].as_flattened()));
            (rest, alone) = (others, None);
        }
        let fours = rest.chunks_exact(4 * HASH_BYTES);
        rest = fours.remainder();
        for four in fours {
            let (one, other) = four.split_at(2 * HASH_BYTES);
            above.extend_from_slice(nodes.hash_two(one, other).as_flattened());
        }
        if rest.len() >= 2 * HASH_BYTES {
            let (pair, others) = rest.split_at(2 * HASH_BYTES);
            above.extend_from_slice(&nodes.hash(pair));
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
pub struct Claim<'a> {
    pub leaf: Hash,
    pub index: u64,
    pub size: u64,
    pub proof: &'a [Hash],
    pub root: Hash,
}

pub fn verify_inclusion(claim: &Claim<'_>) -> Result<(), Wrong> {
    verify_inclusions(std::slice::from_ref(claim))
}

const AT_A_TIME: usize = 4;

/// All of them, some at a time: in one proof every hash waits for the one below it. Else why the
/// first that does not hold does not.
pub fn verify_inclusions(claims: &[Claim<'_>]) -> Result<(), Wrong> {
    let empty = Pairs::node();
    for claims in claims.chunks(AT_A_TIME) {
        let mut walks: Vec<_> = claims.iter().map(|claim| Walk::of(claim, empty)).collect();
        loop {
            walks.iter_mut().for_each(Walk::next);
            if walks.iter().all(|walk| walk.is_over) {
                break;
            }
            for block in 0..empty.len() {
                for walk in walks.iter_mut().filter(|walk| !walk.is_over) {
                    add_block(&mut walk.state, &walk.node[block]);
                }
            }
        }
        walks.into_iter().try_for_each(Walk::end)?;
    }
    Ok(())
}

/// The way from a leaf up to the root: RFC 9162, 2.1.3.2. It is not begun where it cannot be.
struct Walk<'a> {
    claim: &'a Claim<'a>,
    above: std::slice::Iter<'a, Hash>,
    index: u64,
    last: u64,
    state: State, // after the blocks of `node`, if it was begun: the hash so far
    node: [Block; 2],
    is_over: bool,
}

impl<'a> Walk<'a> {
    fn of(claim: &'a Claim<'a>, node: [Block; 2]) -> Self {
        let above = claim.proof.iter();
        let (index, last) = (claim.index, claim.size.saturating_sub(1));
        let is_over = claim.size > MAX_SIZE || index >= claim.size;
        Walk { claim, above, index, last, state: state_of(&claim.leaf), node, is_over }
    }

    /// Make ready what is hashed next, if there is more.
    fn next(&mut self) {
        self.is_over |= self.last == 0;
        let Some(sibling) = (if self.is_over { None } else { self.above.next() }) else {
            self.is_over = true;
            return;
        };
        let is_right = self.index & 1 == 1 || self.index == self.last;
        // A node without a right neighbour moves up until it is one.
        while is_right && self.index & 1 == 0 && self.index != 0 {
            (self.index, self.last) = (self.index >> 1, self.last >> 1);
        }
        (self.index, self.last) = (self.index >> 1, self.last >> 1);
        let computed = hash_of(&self.state);
        let pair = if is_right { [*sibling, computed] } else { [computed, *sibling] };
        Pairs::put(&mut self.node, pair.as_flattened());
        self.state = BEGIN;
    }

    fn end(self) -> Result<(), Wrong> {
        if self.claim.size > MAX_SIZE {
            return Err(Wrong::Impossible("log: a size that cannot be"));
        }
        if self.claim.index >= self.claim.size {
            return Err(Wrong::Impossible("inclusion proof: the index is not in the tree"));
        }
        if self.above.len() > 0 {
            return Err(Wrong::Proof("inclusion proof: too long"));
        }
        if self.last != 0 {
            return Err(Wrong::Proof("inclusion proof: too short"));
        }
        if hash_of(&self.state) != self.claim.root {
            return Err(Wrong::Proof("inclusion proof: does not lead to the root"));
        }
        Ok(())
    }
}
