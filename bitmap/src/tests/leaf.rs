//! Leaves of the dirty bitmap as bytes.

use crate::dirty::{DirtyBitmap, LEAF_BITS, LEAF_BYTES};

#[test]
fn a_leaf_goes_through_bytes_and_no_bit_behind_the_end_counts() {
    let len = LEAF_BITS + 13;
    for filled in [false, true] {
        let mut bitmap = DirtyBitmap::new(len);
        if filled {
            bitmap.fill();
        }
        bitmap.set(LEAF_BITS - 1..LEAF_BITS + 2);
        bitmap.clear(LEAF_BITS + 5..LEAF_BITS + 6);
        let mut copy = DirtyBitmap::new(len);
        for leaf in 0..2 {
            copy.load_leaf(leaf, &bitmap.leaf_bytes(leaf));
        }
        assert!(copy.runs().eq(bitmap.runs()));
        assert_eq!(copy.count(), bitmap.count());

        // From a disk may come what we would not write.
        bitmap.load_leaf(1, &[0xff; LEAF_BYTES]);
        bitmap.load_leaf(0, &[0; LEAF_BYTES]);
        assert_eq!(bitmap.count(), 13);
        assert_eq!(bitmap.next_run(0, u64::MAX), Some(LEAF_BITS..len));
        assert_eq!(bitmap.leaf_bytes(1)[..3], [0xff, 0x1f, 0]);
    }
}
