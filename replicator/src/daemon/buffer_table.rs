//! Which bytes a `BufferId` names. Reference counts of the memory itself are in `buffers`: an entry
//! here is one of them, given up by the node's `Release`.

use crate::buffers::Buffer;
use crate::node::{BufferId, NODE_BUFFER};
use rustc_hash::FxHashMap;

#[derive(Default)]
pub(super) struct BufferTable {
    named: FxHashMap<BufferId, Buffer>,
    last: u64,
}

impl BufferTable {
    /// Names payload that comes in.
    pub(super) fn name(&mut self, buffer: Buffer) -> BufferId {
        self.last += 1;
        let id = BufferId(self.last);
        assert_eq!(id.0 & NODE_BUFFER, 0, "2^63 buffers");
        self.named.insert(id, buffer);
        id
    }

    /// Binds the name the node chose for a disk read.
    pub(super) fn bind(&mut self, id: BufferId, buffer: Buffer) {
        let before = self.named.insert(id, buffer);
        assert!(before.is_none(), "{id:?} is bound once");
    }

    /// The bytes; another reference.
    pub(super) fn take(&self, id: BufferId) -> Buffer {
        self.named.get(&id).expect("the node mentions a buffer only until it releases it").clone()
    }

    /// The node is done with the name. Of a read that found zeros or failed, nothing was bound.
    pub(super) fn release(&mut self, id: BufferId) {
        self.named.remove(&id);
    }
}
