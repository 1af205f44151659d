//! What was found to be wrong while a command ran.

use std::cell::RefCell;

thread_local! {
    static PROBLEMS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The module has broken a rule of the API, or the server's.
pub fn problem(text: impl Into<String>) {
    PROBLEMS.with_borrow_mut(|problems| problems.push(text.into()));
}

/// The first one since this was asked last.
pub fn first() -> Option<String> {
    PROBLEMS.with_borrow_mut(|problems| {
        let first = problems.first().cloned();
        problems.clear();
        first
    })
}
