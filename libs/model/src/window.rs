//! Which part of an ordered result is the page that was asked for, in bounded memory.
//!
//! Every storage ends its searches in one of these, so that offset, limit, page size and
//! continuation mean the same everywhere: [`Scan`] for a source that is already in order and can stop
//! early, [`Window`] for one that is in no order.

use std::ops::ControlFlow;

use crate::{Cursor, PageRequest, order::Direction};

/// A page of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The results, in order.
    pub items: Vec<T>,
    /// The place of the last of them, if more follow it: what the next page continues after.
    pub next: Option<Cursor>,
}

/// Takes items in the order of the results, and says when the page is complete.
#[derive(Debug)]
pub struct Scan<T> {
    direction: Direction,
    after: Option<Cursor>,
    to_skip: u32,
    filling: Filling<T>,
}

impl<T> Scan<T> {
    /// For the page of a search that runs this way.
    pub fn new(page: &PageRequest, direction: Direction) -> Self {
        Self {
            direction,
            after: page.after.clone(),
            to_skip: page.offset,
            filling: Filling::new(page),
        }
    }

    /// Takes the next item that matches, of `size` bytes. After `Break` the page is complete, and no
    /// further item changes it.
    ///
    /// Items up to `page.after` are passed over, so a source that cannot start behind it need not.
    pub fn offer(&mut self, cursor: Cursor, size: usize, item: T) -> ControlFlow<()> {
        if is_before(self.direction, &cursor, self.after.as_ref()) {
            return ControlFlow::Continue(());
        }
        if self.to_skip > 0 {
            self.to_skip -= 1;
            return ControlFlow::Continue(());
        }
        self.filling.take(cursor, size, item)
    }

    /// The page, once the source has ended or the page is complete.
    pub fn finish(self) -> Page<T> {
        self.filling.finish()
    }
}

/// Takes items in any order, each once, and keeps those that can still be on the page.
///
/// It holds at most twice `offset + limit + 1` items, and of the items from the offset on little more
/// than twice `max_bytes`. What stands before the offset is held too, since a later item may push it
/// onto the page: where `offset` is large, let `T` be what finds the item again and not the item.
#[derive(Debug)]
pub struct Window<T> {
    page: PageRequest,
    direction: Direction,
    entries: Vec<Entry<T>>,
    /// Bytes taken since the entries were last cut back.
    fresh: usize,
    /// The last entry that was kept, if what comes after it cannot be on the page.
    bar: Option<Cursor>,
}

#[derive(Debug)]
struct Entry<T> {
    cursor: Cursor,
    size: usize,
    item: T,
}

impl<T> Window<T> {
    /// For the page of a search that runs this way.
    pub fn new(page: &PageRequest, direction: Direction) -> Self {
        Self {
            page: page.clone(),
            direction,
            entries: Vec::new(),
            fresh: 0,
            bar: None,
        }
    }

    /// Whether an item at this place could still be on the page: if not, it need not be read.
    pub fn wants(&self, cursor: &Cursor) -> bool {
        let beyond = self
            .bar
            .as_ref()
            .is_some_and(|bar| self.direction.compare(cursor, bar).is_gt());
        !beyond && !is_before(self.direction, cursor, self.page.after.as_ref())
    }

    /// Takes an item that matches, of `size` bytes.
    pub fn offer(&mut self, cursor: Cursor, size: usize, item: T) {
        if !self.wants(&cursor) {
            return;
        }
        self.entries.push(Entry { cursor, size, item });
        self.fresh = self.fresh.saturating_add(size);
        if self.entries.len() >= self.most().saturating_mul(2) || self.fresh > self.page.max_bytes {
            self.cut();
        }
    }

    /// The page, once everything was offered.
    pub fn finish(mut self) -> Page<T> {
        self.sort();
        let mut filling = Filling::new(&self.page);
        for Entry { cursor, size, item } in self.entries.into_iter().skip(offset(&self.page)) {
            if filling.take(cursor, size, item).is_break() {
                break;
            }
        }
        filling.finish()
    }

    /// Most entries that matter: the page, what stands before it, and one to tell that more follow.
    fn most(&self) -> usize {
        let limit = usize::try_from(self.page.limit).unwrap_or(usize::MAX);
        offset(&self.page).saturating_add(limit).saturating_add(1)
    }

    fn sort(&mut self) {
        let direction = self.direction;
        // The stable sort, because it is fast on what is mostly in order: all but the fresh entries.
        self.entries
            .sort_by(|a, b| direction.compare(&a.cursor, &b.cursor));
    }

    /// Drops what cannot be on the page any more. Later items only push entries further back, so an
    /// entry that is too far back now, by count or by the bytes before it, stays so.
    fn cut(&mut self) {
        self.sort();
        let mut bytes = 0usize;
        let fitting = self
            .entries
            .iter()
            .skip(offset(&self.page))
            .take_while(|entry| {
                bytes = bytes.saturating_add(entry.size);
                bytes <= self.page.max_bytes
            })
            .count();
        // Besides what fits: the first that does not, which is on the page if it is alone, and one
        // more to tell that something follows.
        let keep = offset(&self.page)
            .saturating_add(fitting)
            .saturating_add(2)
            .min(self.most());
        self.entries.truncate(keep);
        if self.entries.len() == keep {
            self.bar = self.entries.last().map(|entry| entry.cursor.clone());
        }
        self.fresh = 0;
    }
}

/// The page being filled, in order.
#[derive(Debug)]
struct Filling<T> {
    limit: usize,
    max_bytes: usize,
    bytes: usize,
    items: Vec<T>,
    last: Option<Cursor>,
    more: bool,
}

impl<T> Filling<T> {
    fn new(page: &PageRequest) -> Self {
        Self {
            limit: usize::try_from(page.limit).unwrap_or(usize::MAX),
            max_bytes: page.max_bytes,
            bytes: 0,
            items: Vec::new(),
            last: None,
            more: false,
        }
    }

    fn take(&mut self, cursor: Cursor, size: usize, item: T) -> ControlFlow<()> {
        let bytes = self.bytes.saturating_add(size);
        let fits = self.items.is_empty() || bytes <= self.max_bytes;
        if self.more || self.items.len() >= self.limit || !fits {
            self.more = true;
            return ControlFlow::Break(());
        }
        self.bytes = bytes;
        self.items.push(item);
        self.last = Some(cursor);
        ControlFlow::Continue(())
    }

    fn finish(self) -> Page<T> {
        Page {
            items: self.items,
            next: if self.more { self.last } else { None },
        }
    }
}

fn offset(page: &PageRequest) -> usize {
    usize::try_from(page.offset).unwrap_or(usize::MAX)
}

/// Whether an item was on an earlier page.
fn is_before(direction: Direction, cursor: &Cursor, after: Option<&Cursor>) -> bool {
    after.is_some_and(|after| direction.compare(cursor, after).is_le())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Lane, Path, Position, SortKey, Tie, Value};

    /// An item: what it sorts by, if there is a sort, and its size. Its place in the vector is its tie.
    type Item = (i8, usize);

    fn cursor(items: &[Item], sorted: bool, index: usize) -> Cursor {
        let path = Path::parse_entity("sort.field", "a").unwrap();
        let values = [("a".to_owned(), Value::Number(f64::from(items[index].0)))].into();
        Cursor {
            key: sorted.then(|| SortKey::of_values(&path, &values)),
            tie: Tie::Place(Lane(0), Position::new(index as u64)),
        }
    }

    fn in_order(items: &[Item], sorted: bool, direction: Direction) -> Vec<usize> {
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&i| cursor(items, sorted, i));
        if direction == Direction::Reverse {
            order.reverse();
        }
        order
    }

    /// Sort everything, cut out the slice.
    fn naive(order: &[usize], items: &[Item], start: usize, page: &PageRequest) -> Vec<usize> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        for &i in order.iter().skip(start + page.offset as usize) {
            bytes += items[i].1;
            let fits = taken.is_empty() || bytes <= page.max_bytes;
            if taken.len() == page.limit as usize || !fits {
                break;
            }
            taken.push(i);
        }
        taken
    }

    fn window(
        items: &[Item],
        sorted: bool,
        page: &PageRequest,
        direction: Direction,
    ) -> Page<usize> {
        let mut window = Window::new(page, direction);
        let most = 2 * (page.offset as usize + page.limit as usize + 1);
        let largest = items.iter().map(|item| item.1).max().unwrap_or(0);
        for (i, item) in items.iter().enumerate() {
            window.offer(cursor(items, sorted, i), item.1, i);
            assert!(window.entries.len() <= most);
            if page.offset == 0 {
                let held: usize = window.entries.iter().map(|entry| entry.size).sum();
                assert!(held <= page.max_bytes.saturating_mul(2).saturating_add(3 * largest));
            }
        }
        window.finish()
    }

    fn scan(items: &[Item], sorted: bool, page: &PageRequest, direction: Direction) -> Page<usize> {
        let mut scan = Scan::new(page, direction);
        for i in in_order(items, sorted, direction) {
            if scan
                .offer(cursor(items, sorted, i), items[i].1, i)
                .is_break()
            {
                break;
            }
        }
        scan.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn paging_gives_every_item_once_in_order(
            items in prop::collection::vec((-3..3i8, 0..12usize), 0..60),
            sorted in any::<bool>(),
            reverse in any::<bool>(),
            limit in 1..12u32,
            offset in 0..8u32,
            max_bytes in prop_oneof![0..40usize, Just(usize::MAX)],
        ) {
            let direction = if reverse { Direction::Reverse } else { Direction::Forward };
            let order = in_order(&items, sorted, direction);
            let first = PageRequest { limit, offset, after: None, max_bytes };
            for collect in [window, scan] {
                let mut page = first.clone();
                let mut seen = 0;
                loop {
                    let found = collect(&items, sorted, &page, direction);
                    prop_assert_eq!(&found.items, &naive(&order, &items, seen, &page));
                    seen += page.offset as usize + found.items.len();
                    prop_assert_eq!(found.next.is_some(), seen < order.len());
                    match found.next {
                        Some(next) => page = PageRequest { offset: 0, after: Some(next), ..page },
                        None => break,
                    }
                }
                prop_assert!(seen >= order.len());
            }
        }
    }

    #[test]
    fn what_cannot_be_on_the_page_is_not_wanted() {
        let page = PageRequest {
            limit: 2,
            offset: 0,
            after: None,
            max_bytes: usize::MAX,
        };
        let items = [(0, 1); 100];
        let mut window = Window::new(&page, Direction::Forward);
        for i in 0..6 {
            window.offer(cursor(&items, false, i), 1, i);
        }
        assert!(window.wants(&cursor(&items, false, 1)));
        assert!(!window.wants(&cursor(&items, false, 50)));
        let found = window.finish();
        assert_eq!(found.items, [0, 1]);
        assert_eq!(found.next, Some(cursor(&items, false, 1)));
    }
}
