//! What searches ask for, parsed and bounded.

use crate::{Cursor, Filter, Invalid, KindRef, Sort, Timestamp, Version, limits};

/// A point in an entity's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// As of a version (1 or more).
    Version(Version),
    /// As of a time, inclusive.
    Time(Timestamp),
}

/// Which part of the results is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct PageRequest {
    /// Most results: 1 to 10,000.
    pub limit: u32,
    /// Results to leave out first. Zero when `after` is given.
    pub offset: u32,
    /// The last item of the page before.
    pub after: Option<Cursor>,
    /// Most bytes of results; the page ends before the item that would exceed it, but holds at
    /// least one.
    pub max_bytes: usize,
}

impl PageRequest {
    /// Parses `limit` and `offset` as the wire has them.
    pub fn new(limit: i32, offset: i32, after: Option<Cursor>) -> Result<Self, Invalid> {
        let limit = match u32::try_from(limit) {
            Ok(0) => limits::SEARCH_LIMIT_DEFAULT,
            Ok(limit) if limit <= limits::SEARCH_LIMIT_MAX => limit,
            _ => {
                return Err(Invalid::new(
                    "limit",
                    format!(
                        "is {limit}; it must be 0 (which means 100) to {}",
                        limits::SEARCH_LIMIT_MAX
                    ),
                ));
            }
        };
        let offset = u32::try_from(offset)
            .map_err(|_| Invalid::new("offset", format!("is {offset}; it must not be negative")))?;
        if offset > 0 && after.is_some() {
            return Err(Invalid::new(
                "offset",
                "cannot be combined with `page_token`; send one of them",
            ));
        }
        Ok(Self {
            limit,
            offset,
            after,
            max_bytes: limits::PAGE_BYTES,
        })
    }

    /// Refuses a window that a sorted search would have to hold in memory beyond its bound.
    pub fn check_sort_window(&self) -> Result<(), Invalid> {
        if u64::from(self.offset) + u64::from(self.limit) > limits::SORT_WINDOW {
            return Err(Invalid::new(
                "offset",
                format!(
                    "plus `limit` is above {}, the most that a sorted search reaches; continue with `page_token` instead",
                    limits::SORT_WINDOW
                ),
            ));
        }
        Ok(())
    }
}

/// A search of the current state.
#[derive(Debug, Clone)]
pub struct EntityQuery {
    /// What is searched.
    pub of: KindRef,
    /// What must hold of the values.
    pub filter: Filter,
    /// The order; by key when there is none.
    pub sort: Option<Sort>,
    /// The part that is wanted.
    pub page: PageRequest,
}

/// A search of the history.
#[derive(Debug, Clone)]
pub struct EventQuery {
    /// What is searched.
    pub of: KindRef,
    /// What must hold of the event.
    pub filter: Filter,
    /// Only events at this time or later.
    pub min: Option<Timestamp>,
    /// Only events at this time or earlier.
    pub max: Option<Timestamp>,
    /// The order; by position when there is none.
    pub sort: Option<Sort>,
    /// The part that is wanted.
    pub page: PageRequest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked_by_field() {
        assert_eq!(PageRequest::new(0, 0, None).unwrap().limit, 100);
        assert_eq!(PageRequest::new(10_000, 0, None).unwrap().limit, 10_000);
        assert_eq!(
            PageRequest::new(10_001, 0, None).unwrap_err().field,
            "limit"
        );
        assert_eq!(PageRequest::new(-1, 0, None).unwrap_err().field, "limit");
        assert_eq!(PageRequest::new(1, -1, None).unwrap_err().field, "offset");
        assert!(
            PageRequest::new(10_000, 90_001, None)
                .unwrap()
                .check_sort_window()
                .is_err()
        );
    }
}
