//! A log that is read through its cursor, and keeps the cursor correct when it is written.

use super::cursor::{Cursor, Expiry};
use crate::error::Error;
use crate::log::{Entry, Hit, Id, Log};
use crate::plan::{Applied, Plan, Store};

/// A log with its cursor, if it has one.
pub struct CachedLog<S> {
    store: S,
    cursor: Option<Box<Cursor>>,
}

impl<S: Store> CachedLog<S> {
    pub fn new(store: S, cursor: Option<Box<Cursor>>) -> Self {
        Self { store, cursor }
    }

    /// The hash of the key, if it is already known.
    pub fn hash(&self) -> Option<u64> {
        self.cursor.as_ref().map(|cursor| cursor.hash)
    }

    /// The log, and the cursor to put back into its table.
    pub fn into_parts(self) -> (S, Option<Box<Cursor>>) {
        let Self { store, mut cursor } = self;
        if let Some(cursor) = &mut cursor {
            cursor.length = store.length();
        }
        (store, cursor)
    }
}

impl<S: Store> Store for CachedLog<S> {
    fn length(&self) -> u64 {
        self.store.length()
    }

    fn expires_at(&mut self) -> Option<u64> {
        let Some(cursor) = &mut self.cursor else {
            return self.store.expires_at();
        };
        match cursor.expiry {
            Expiry::Known(at) => at,
            Expiry::Unknown => {
                let at = self.store.expires_at();
                cursor.expiry = Expiry::Known(at);
                at
            }
        }
    }

    /// The cursor is lost if the log does not carry out the plan.
    #[inline]
    fn apply(&mut self, plan: &Plan) -> Result<Applied, Error> {
        if matches!(plan, Plan::Nothing) {
            return Ok(Applied::Done { oldest: None });
        }
        let cursor = self.cursor.take();
        let applied = self.store.apply(plan)?;
        let (Some(mut cursor), Applied::Done { oldest }) = (cursor, applied) else {
            return Ok(applied);
        };
        if let Plan::Append(append) = plan {
            if append.restart {
                cursor.clear();
            }
            cursor.append(append.entry);
        }
        if let Some(oldest) = oldest {
            cursor.drop_before(oldest);
        }
        if let Some(at) = plan.expire_at() {
            cursor.expiry = Expiry::Known(Some(at));
        }
        self.cursor = Some(cursor);
        Ok(applied)
    }
}

impl<S: Store> Log for CachedLog<S> {
    fn newest(&mut self) -> Result<Option<Entry>, Error> {
        let Some(cursor) = &mut self.cursor else {
            return self.store.newest();
        };
        if cursor.newest.is_none() {
            cursor.newest = self.store.newest()?;
            cursor.since = cursor.newest.map_or(Id::default(), |newest| newest.hit.id);
        }
        Ok(cursor.newest)
    }

    fn last_id(&mut self) -> Result<Id, Error> {
        self.store.last_id()
    }

    fn walk(&mut self, from: u64, visit: &mut dyn FnMut(Hit) -> bool) -> Result<(), Error> {
        self.store.walk(from, visit)
    }

    fn window_start(&mut self, from: u64) -> Result<Option<Hit>, Error> {
        let Some(cursor) = &mut self.cursor else {
            return self.store.window_start(from);
        };
        let since = cursor.since;
        let Some(window) = cursor.window(from) else {
            return self.store.window_start(from);
        };
        if let Some(hit) = window.first(from) {
            return Ok(Some(hit));
        }
        let mut left = window.begin(from);
        let mut first = None;
        let walked = self.store.walk_since(from, since, &mut |hit| {
            left = left.saturating_sub(1);
            match first {
                None => {
                    first = Some(hit);
                    window.push_first(hit);
                    // At least two are read.
                    true
                }
                Some(_) => window.push(hit) && left > 0,
            }
        });
        match first {
            // An error after it does not concern the caller yet.
            Some(hit) => Ok(Some(hit)),
            None => walked.map(|()| None),
        }
    }
}
