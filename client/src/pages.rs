//! Lists that come in pages, as one iterator.

use crate::blocking::Client;
use crate::error::Error;

/// Fetches a page when the one before has been taken. After an error there is nothing more.
pub(crate) struct Pages<'c, T, C, F> {
    client: &'c mut Client,
    page: std::vec::IntoIter<T>,
    /// Where the next page begins: `None` when there is none, `Some(None)` for the first.
    next: Option<Option<C>>,
    fetch: F,
}

impl<'c, T, C, F> Pages<'c, T, C, F>
where
    F: FnMut(&mut Client, Option<C>) -> Result<(Vec<T>, Option<C>), Error>,
{
    pub(crate) fn new(client: &'c mut Client, fetch: F) -> Self {
        Self { client, page: Vec::new().into_iter(), next: Some(None), fetch }
    }
}

impl<T, C, F> Iterator for Pages<'_, T, C, F>
where
    F: FnMut(&mut Client, Option<C>) -> Result<(Vec<T>, Option<C>), Error>,
{
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.page.next() {
                return Some(Ok(item));
            }
            let cursor = self.next.take()?;
            match (self.fetch)(self.client, cursor) {
                Ok((items, next)) => {
                    self.page = items.into_iter();
                    self.next = next.map(Some);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
