//! What a disk of the simulator holds of data: one token per sector. Clones share what is equal. When something gets here is decided
//! by `disk`.

use crate::model::Token;
use std::fmt;
use std::sync::Arc;

const PAGE: usize = 64;

#[derive(Clone)]
struct Page {
    token: [u64; PAGE],
    order: [u32; PAGE],
}

/// The cells of the data area; clones share what is equal.
#[derive(Clone)]
pub(super) struct Cells {
    pages: Vec<Arc<Page>>,
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pages.iter().map(|page| &page.token[..])).finish()
    }
}

impl Cells {
    pub(super) fn new(disk: u32, sectors: u32) -> Self {
        let page = |p: u32| {
            let mut token = [0; PAGE];
            for (i, t) in (0..).zip(&mut token) {
                *t = Token::garbage(disk, p * PAGE as u32 + i).0;
            }
            Arc::new(Page { token, order: [0; PAGE] })
        };
        Self { pages: (0..sectors.div_ceil(PAGE as u32)).map(page).collect() }
    }

    pub(super) fn token(&self, s: u32) -> u64 {
        self.pages[s as usize / PAGE].token[s as usize % PAGE]
    }

    /// Takes over what another holds.
    pub(super) fn copy(&mut self, s: u32, from: &Self) {
        let (page, i) = (s as usize / PAGE, s as usize % PAGE);
        let to = Arc::make_mut(&mut self.pages[page]);
        (to.token[i], to.order[i]) = (from.pages[page].token[i], from.pages[page].order[i]);
    }

    /// A newer write keeps its place against an older one that arrives late.
    pub(super) fn put(&mut self, s: u32, token: u64, order: u32) {
        let page = Arc::make_mut(&mut self.pages[s as usize / PAGE]);
        let i = s as usize % PAGE;
        if order >= page.order[i] {
            page.order[i] = order;
            page.token[i] = token;
        }
    }
}
