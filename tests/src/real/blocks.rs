//! Blocks that tell who wrote them: magic, their own offset, the sequence number of the write, and a filling that follows from
//! these, so that a torn, misplaced or mixed block can never pass for a whole one.

/// Bytes of a block.
pub const BLOCK: u64 = 4096;
const MAGIC: u64 = 0x506f_6c6c_7578_3a29;

/// What a block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Never written.
    Zeros,
    /// Written whole by the write of this number, for this place.
    Sequence(u64),
    /// Nothing that anybody wrote: torn, or of another place.
    Garbage,
}

/// The block a write of this number puts at this offset.
pub fn encode(offset: u64, sequence: u64) -> Vec<u8> {
    let mut state = MAGIC ^ offset.rotate_left(32) ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let head = [MAGIC, offset, sequence];
    let filling = std::iter::from_fn(move || {
        // xorshift64; the state is never zero in practice, and if it were the block would still be what follows from its head.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state)
    });
    let words = head.into_iter().chain(filling).take(BLOCK as usize / 8);
    let mut block = Vec::with_capacity(BLOCK as usize);
    words.for_each(|word| block.extend_from_slice(&word.to_le_bytes()));
    block
}

/// What the block at this offset says.
pub fn decode(offset: u64, block: &[u8]) -> Content {
    if block.iter().all(|&byte| byte == 0) {
        return Content::Zeros;
    }
    let Some(sequence) = block.get(16..24) else { return Content::Garbage };
    let sequence = u64::from_le_bytes(sequence.try_into().expect("eight bytes"));
    match encode(offset, sequence) == block {
        true => Content::Sequence(sequence),
        false => Content::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_its_write_and_nothing_else_passes() {
        let block = encode(8192, 7);
        assert_eq!(decode(8192, &block), Content::Sequence(7));
        assert_eq!(decode(4096, &block), Content::Garbage);
        assert_eq!(decode(8192, &vec![0; 4096]), Content::Zeros);
        for place in [0, 8, 16, 24, 4095] {
            let mut torn = block.clone();
            torn[place] ^= 1;
            assert_eq!(decode(8192, &torn), Content::Garbage, "byte {place}");
        }
        let mixed = [&block[..2048], &encode(8192, 8)[2048..]].concat();
        assert_eq!(decode(8192, &mixed), Content::Garbage);
    }
}
