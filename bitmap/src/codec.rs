//! Fixed-layout little-endian records: a named field knows its offset and size, and a record is
//! sealed by a checksum over all of it. What the fields mean is said where they are declared.

use core::ops::Range;

/// Bytes that are written whole or not at all, and the size of every self-checking unit except
/// the superblock.
pub const SECTOR: usize = 512;

/// One sector's bytes.
pub(crate) type Sector = [u8; SECTOR];

/// A field of a record. `docs/metadata.md` lists them all, and a test compares the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name, as in the documentation.
    pub name: &'static str,
    /// Offset in the record, in bytes.
    pub offset: usize,
    /// Size in bytes. Up to 8 it is one unsigned integer, beyond that an array.
    pub size: usize,
}

impl Field {
    pub(crate) const fn new(name: &'static str, offset: usize, size: usize) -> Self {
        Self { name, offset, size }
    }

    /// The bytes of the field in its record.
    pub(crate) const fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.size
    }

    /// Element `index` of an array whose elements have `size` bytes.
    pub(crate) fn element(&self, index: usize, size: usize) -> Self {
        assert!((index + 1) * size <= self.size, "element {index} is outside of {}", self.name);
        Self { name: self.name, offset: self.offset + index * size, size }
    }

    /// Writes an integer.
    pub(crate) fn put(&self, record: &mut [u8], value: impl Into<u64>) {
        let bytes = value.into().to_le_bytes();
        assert!(bytes[self.size..].iter().all(|&byte| byte == 0), "{} overflows", self.name);
        record[self.range()].copy_from_slice(&bytes[..self.size]);
    }

    /// Reads an integer of up to 8 bytes. Inlined, it is one load: fields are constants.
    #[inline]
    pub(crate) fn u64(&self, record: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        bytes[..self.size].copy_from_slice(&record[self.range()]);
        u64::from_le_bytes(bytes)
    }

    /// Reads an integer of up to 4 bytes.
    #[inline]
    pub(crate) fn u32(&self, record: &[u8]) -> u32 {
        u32::try_from(self.u64(record)).expect("the field has at most 4 bytes")
    }

    /// Reads an integer of up to 2 bytes.
    #[inline]
    pub(crate) fn u16(&self, record: &[u8]) -> u16 {
        u16::try_from(self.u64(record)).expect("the field has at most 2 bytes")
    }

    /// Reads an integer of one byte.
    pub(crate) fn u8(&self, record: &[u8]) -> u8 {
        record[self.offset]
    }
}

/// Puts the checksum over the record into `crc`.
pub(crate) fn seal(record: &mut [u8], crc: Field) {
    crc.put(record, checksum(record, crc));
}

/// Whether the checksum in `crc` is right.
pub(crate) fn is_sealed(record: &[u8], crc: Field) -> bool {
    crc.u32(record) == checksum(record, crc)
}

/// CRC-32 over the record, its own four bytes counting as zeros.
fn checksum(record: &[u8], crc: Field) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..crc.offset]);
    hasher.update(&[0; 4]);
    hasher.update(&record[crc.offset + 4..]);
    hasher.finalize()
}

/// Declares the fields of a record as constants, and the list of all of them.
macro_rules! record {
    ($(#[$doc:meta])* $all:ident: $($field:ident = $name:literal, $offset:expr, $size:expr;)*) => {
        $(pub(crate) const $field: crate::codec::Field = crate::codec::Field::new($name, $offset, $size);)*
        $(#[$doc])*
        pub(crate) const $all: &[crate::codec::Field] = &[$($field),*];
    };
}

/// Declares a struct of flags, bit 0 first.
macro_rules! flags {
    ($(#[$doc:meta])* $name:ident { $($(#[$flag_doc:meta])* $flag:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$flag_doc])* pub $flag: bool,)*
        }

        impl $name {
            const NAMES: &[&str] = &[$(stringify!($flag)),*];

            /// As a word, the first flag lowest.
            pub(crate) fn word(self) -> u32 {
                let flags = [$(self.$flag),*];
                flags.iter().rev().fold(0, |word, &flag| word << 1 | u32::from(flag))
            }

            /// `None` if a bit is set that has no name.
            pub(crate) fn from_word(word: u32) -> Option<Self> {
                let mut rest = word;
                $(
                    let $flag = rest & 1 == 1;
                    rest >>= 1;
                )*
                (rest == 0).then_some(Self { $($flag),* })
            }

            /// Names of the flags that are set.
            pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
                let set = move |bit: &usize| self.word() >> bit & 1 == 1;
                (0..Self::NAMES.len()).filter(set).map(|bit| Self::NAMES[bit])
            }
        }
    };
}

pub(crate) use {flags, record};
