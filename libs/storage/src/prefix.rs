//! How many bytes one answer may hold, and so where an answer that may be cut ends.

/// Counts what an answer takes in, in the order of what was asked for.
///
/// Every storage cuts by this, so that all of them answer the same.
pub(crate) struct Prefix {
    limit: usize,
    size: usize,
    is_empty: bool,
}

impl Prefix {
    /// Of at most so many bytes, but for the first item, which may be larger.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            size: 0,
            is_empty: true,
        }
    }

    /// Counts the next item. False if it does not fit any more: the answer ends before it.
    pub(crate) fn takes(&mut self, size: usize) -> bool {
        self.size = self.size.saturating_add(size);
        let fits = self.size <= self.limit || self.is_empty;
        self.is_empty = false;
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::Prefix;

    #[test]
    fn the_first_item_always_fits_and_the_others_up_to_the_limit() {
        let taken = |limit, sizes: &[usize]| {
            let mut prefix = Prefix::new(limit);
            sizes.iter().take_while(|size| prefix.takes(**size)).count()
        };
        assert_eq!(taken(10, &[4, 6, 0, 1]), 3);
        assert_eq!(taken(0, &[4, 0]), 1);
        assert_eq!(taken(0, &[0, 0, 1]), 2);
        assert_eq!(taken(usize::MAX, &[usize::MAX, usize::MAX]), 2);
    }
}
