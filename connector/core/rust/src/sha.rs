//! SHA-256 (FIPS 180-4) of many messages: the compression is that of the crate `sha2`, which takes
//! the processor's SHA instructions where it has them; here is the padding, and the order.
//!
//! A round waits for the one before it, so one message leaves much of the processor idle. Where
//! there are two, their blocks are taken in turn: then it works on both at once.

use crate::cbor::{Head, HEAD_ROOM};
use sha2::block_api::compress256;

pub const HASH_BYTES: usize = 32;
pub const BLOCK_BYTES: usize = 64;
const LENGTH_BYTES: usize = 8;

pub type Hash = [u8; HASH_BYTES];
pub type Block = [u8; BLOCK_BYTES];
pub type State = [u32; 8];

/// Before the first block.
pub const BEGIN: State = [
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];

/// A message in blocks. What is behind its end is left over from earlier.
#[derive(Clone, Default)]
pub struct Message {
    blocks: Vec<Block>,
    size: usize,
}

impl Message {
    pub fn of(bytes: &[u8]) -> Self {
        let mut message = Message::default();
        message.add(bytes);
        message
    }

    /// Keep the first bytes.
    pub fn cut(&mut self, size: usize) {
        self.size = size;
    }

    /// Add bytes; returns where they begin.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) -> usize {
        let begin = self.size;
        self.size += bytes.len();
        self.make_room(self.size);
        self.blocks.as_flattened_mut()[begin..self.size].copy_from_slice(bytes);
        begin
    }

    #[inline]
    pub fn add_head(&mut self, head: &Head) {
        let begin = self.size;
        self.make_room(begin + HEAD_ROOM);
        self.blocks.as_flattened_mut()[begin..begin + HEAD_ROOM].copy_from_slice(&head.bytes);
        self.size += head.size;
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.blocks.as_flattened()[..self.size]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.blocks.as_flattened_mut()[..self.size]
    }

    /// How many blocks end at this byte or before.
    pub fn whole_blocks(&self, size: usize) -> usize {
        size / BLOCK_BYTES
    }

    /// The first so many blocks.
    pub fn begun(&self, blocks: usize) -> &[Block] {
        &self.blocks[..blocks]
    }

    /// All blocks of the message: padded with one bit, zeros and the number of bits.
    pub fn padded(&mut self) -> &[Block] {
        let blocks = (self.size + 1 + LENGTH_BYTES).div_ceil(BLOCK_BYTES);
        self.make_room(blocks * BLOCK_BYTES);
        let (_, rest) = self.blocks[..blocks].as_flattened_mut().split_at_mut(self.size);
        let zeros = rest.len() - LENGTH_BYTES;
        rest[0] = 0x80;
        rest[1..zeros].fill(0);
        rest[zeros..].copy_from_slice(&(8 * self.size as u64).to_be_bytes());
        &self.blocks[..blocks]
    }

    #[inline]
    fn make_room(&mut self, bytes: usize) {
        if bytes > self.blocks.len() * BLOCK_BYTES {
            self.grow(bytes);
        }
    }

    #[cold]
    fn grow(&mut self, bytes: usize) {
        self.blocks.resize(bytes.div_ceil(BLOCK_BYTES) + 1, [0; BLOCK_BYTES]);
    }
}

/// The hash of a padded message.
pub fn hash(message: &[Block]) -> Hash {
    let mut state = BEGIN;
    compress256(&mut state, message);
    hash_of(&state)
}

/// The hashes of two padded messages.
pub fn hash_two(one: &[Block], other: &[Block]) -> [Hash; 2] {
    let mut states = [BEGIN, BEGIN];
    let [state, other_state] = &mut states;
    in_turn(state, one, other_state, other);
    [hash_of(&states[0]), hash_of(&states[1])]
}

/// Take blocks of two messages in turn, each into its state.
pub fn in_turn(state: &mut State, blocks: &[Block], other_state: &mut State, others: &[Block]) {
    let both = blocks.len().min(others.len());
    for (block, other) in blocks.iter().zip(others) {
        compress256(state, std::slice::from_ref(block));
        compress256(other_state, std::slice::from_ref(other));
    }
    compress256(state, &blocks[both..]);
    compress256(other_state, &others[both..]);
}

/// Take one more block of a message into its state.
#[inline]
pub fn add_block(state: &mut State, block: &Block) {
    compress256(state, std::slice::from_ref(block));
}

/// The state of which `hash_of` is this hash.
pub fn state_of(hash: &Hash) -> State {
    let mut state = [0; 8];
    for (word, part) in state.iter_mut().zip(hash.chunks_exact(4)) {
        *word = u32::from_be_bytes(part.try_into().unwrap_or_default());
    }
    state
}

/// What a state after the last block says.
pub fn hash_of(state: &State) -> Hash {
    let mut hash = [0; HASH_BYTES];
    for (part, word) in hash.chunks_exact_mut(4).zip(state) {
        part.copy_from_slice(&word.to_be_bytes());
    }
    hash
}
