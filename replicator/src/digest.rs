//! What stands for content that two nodes compare without sending it: 128 bits of BLAKE3. A digest may replace a copy, so it must be
//! one that nobody can make collide, by accident or on purpose; a checksum is none.
//!
//! Not here: what is compared, and what follows from it (`node/compare.rs`).

/// The digest of some bytes, or of the digests of their parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; Self::LEN]);

impl Digest {
    /// Bytes of a digest.
    pub const LEN: usize = 16;

    /// Of content.
    pub fn of(bytes: &[u8]) -> Self {
        Self::cut(&blake3::hash(bytes))
    }

    /// Of parts that have digests, in their order: equal if and only if all parts are.
    pub fn of_all(parts: &[Self]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&part.0);
        }
        Self::cut(&hasher.finalize())
    }

    fn cut(hash: &blake3::Hash) -> Self {
        let first = hash.as_bytes().first_chunk().expect("a hash is longer than a digest");
        Self(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_half_of_blake3() {
        // The first test vector of BLAKE3's authors: no input.
        let known = [0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6];
        assert_eq!(Digest::of(b"").0[..8], known);
        assert_ne!(Digest::of(&[0; 4096]), Digest::of(&[0; 4095]));
    }

    #[test]
    fn order_and_number_of_parts_count() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_ne!(Digest::of_all(&[a, b]), Digest::of_all(&[b, a]));
        assert_ne!(Digest::of_all(&[a, b]), Digest::of_all(&[a]));
    }
}
