//! Pages of one list: of a topic's books, or of the topics.

use pygmy_proto::types::InlineStr;
use pygmy_proto::{BookId, Kind};

/// Pages kept of one list; of more the one that is longest there goes.
const PAGES_MAX: usize = 64;

/// What is kept of a page.
#[derive(Debug)]
pub(super) enum Content {
    /// Its answer, without the position at its beginning.
    Encoded {
        /// The kind of the answer.
        kind: Kind,
        /// Its body behind the position.
        rest: Box<[u8]>,
    },
    /// Which books are on it. The books are kept by themselves, so that one that is bought leaves the page as it is.
    Books {
        /// Books of the topic.
        total: u64,
        /// Those of the page.
        ids: Box<[BookId]>,
        /// Cursor of the next page.
        next: Option<BookId>,
    },
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    limit: u32,
    after: Option<InlineStr<64>>,
    /// Own position.
    pub(super) seq: u64,
    pub(super) content: Content,
}

impl Page {
    pub(super) fn new(limit: u32, after: Option<&str>, seq: u64, content: Content) -> Self {
        Self { limit, after: after.map(InlineStr::truncated), seq, content }
    }

    fn is(&self, limit: u32, after: Option<&str>) -> bool {
        self.limit == limit && self.after.as_deref() == after
    }

    fn bytes(&self) -> usize {
        let content = match &self.content {
            Content::Encoded { rest, .. } => rest.len(),
            Content::Books { ids, .. } => size_of_val(&**ids),
        };
        size_of::<Self>() + content
    }
}

/// The pages of a list that are kept.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: Vec<Page>,
    /// What they take; asked for whenever room is made.
    bytes: usize,
}

impl Pages {
    pub(super) fn get(&self, limit: u32, after: Option<&str>) -> Option<&Page> {
        self.pages.iter().find(|page| page.is(limit, after))
    }

    /// Keeps a page, unless a later one of the same cut is there.
    pub(super) fn put(&mut self, page: Page) {
        let after = page.after.as_deref();
        match self.pages.iter_mut().find(|kept| kept.is(page.limit, after)) {
            Some(kept) if kept.seq >= page.seq => {}
            Some(kept) => *kept = page,
            None => {
                if self.pages.len() == PAGES_MAX {
                    self.pages.remove(0);
                }
                self.pages.push(page);
            }
        }
        self.weigh();
    }

    /// The list changed at `seq`: pages from before go. How many did.
    pub(super) fn drop_before(&mut self, seq: u64) -> u64 {
        let before = self.pages.len();
        self.pages.retain(|page| page.seq >= seq);
        self.weigh();
        (before - self.pages.len()) as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn weigh(&mut self) {
        self.bytes = self.pages.iter().map(Page::bytes).sum();
    }
}
