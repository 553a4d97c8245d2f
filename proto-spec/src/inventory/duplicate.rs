//! Looks for ids that occur twice.
//!
//! A table of a million ids would cost more memory than the list itself. Sixteen bytes a book suffice: hashes are
//! sorted, and only ids of equal hash are compared.

use xxhash_rust::xxh3::xxh3_64;

use super::error::{Fault, Problem, line_of};
use super::{BookId, List};

/// Finds the earliest book whose id an earlier one has.
pub(super) fn check(list: &List, input: &[u8]) -> Result<(), Fault> {
    let mut hashed: Vec<(u64, usize)> =
        list.books.iter().enumerate().map(|(index, book)| (xxh3_64(book.id.as_bytes()), index)).collect();
    hashed.sort_unstable();
    let earliest = hashed
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|run| run.len() > 1)
        .filter_map(|run| repeated(run, |index| &list.books[index].id))
        .min_by_key(|(_, second)| *second);
    let Some((first, second)) = earliest else { return Ok(()) };
    let first_line = line_of(input, list.id_offsets[first]);
    let id = list.books[second].id;
    Err(Fault { offset: list.id_offsets[second], problem: Problem::Duplicate { id, first_line } })
}

/// Of the books in a run of equal hashes, the earliest one that repeats an id, with the first bearer of that id.
fn repeated<'a>(run: &[(u64, usize)], id: impl Fn(usize) -> &'a BookId) -> Option<(usize, usize)> {
    let mut indices: Vec<usize> = run.iter().map(|(_, index)| *index).collect();
    indices.sort_unstable_by_key(|index| (id(*index), *index));
    indices
        .chunk_by(|a, b| id(*a) == id(*b))
        .filter_map(|same| Some((*same.first()?, *same.get(1)?)))
        .min_by_key(|p| p.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_hashes_of_different_ids_are_no_duplicates() {
        let ids: Vec<BookId> = ["b", "a", "c", "a", "b"].iter().map(|id| BookId::new(id).unwrap()).collect();
        let run = |indices: &[usize]| indices.iter().map(|index| (7, *index)).collect::<Vec<_>>();
        assert_eq!(repeated(&run(&[0, 1, 2]), |index| &ids[index]), None);
        assert_eq!(repeated(&run(&[0, 1, 2, 3, 4]), |index| &ids[index]), Some((1, 3)));
        assert_eq!(repeated(&run(&[0, 2, 4]), |index| &ids[index]), Some((0, 4)));
    }
}
