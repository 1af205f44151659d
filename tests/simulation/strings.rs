//! Strings of the server, as the module holds them: who owns each, and whether it was freed.

use std::cell::Cell;
use std::ptr::null_mut;

use crate::problems::problem;
use crate::stream::Text;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// An argument of a command or of an event.
    Server,
    Module,
    Freed,
}

const MAGIC: u64 = 0x5354_5249_4e47_2121;

pub struct Str {
    magic: u64,
    owner: Owner,
    /// How often the module holds a string that is the server's.
    retained: u32,
    text: Text,
    /// Of those that wait no longer, the one that is used next.
    next: *mut Str,
}

struct Strings {
    /// Strings that were freed wait here in turn, so that whoever uses one is found.
    freed: [Cell<*mut Str>; WAITING],
    turn: Cell<usize>,
    /// One that has waited long enough, and after it the others.
    spare: Cell<*mut Str>,
    /// How many the module owns.
    owned: Cell<i64>,
}

thread_local! {
    static STRINGS: Strings = const { Strings {
        freed: [const { Cell::new(null_mut()) }; WAITING],
        turn: Cell::new(0),
        spare: Cell::new(null_mut()),
        owned: Cell::new(0),
    } };
}

/// How many freed strings wait before their memory is used again.
const WAITING: usize = 32;

fn make(text: Text, owner: Owner) -> *mut Str {
    STRINGS.with(|strings| {
        strings.owned.set(strings.owned.get() + i64::from(owner == Owner::Module));
        let place = strings.spare.get();
        // SAFETY: one that is spare came from a box, and nobody else uses it. There are none where AddressSanitizer watches
        // memory that is not used again.
        match unsafe { place.as_mut() } {
            Some(old) => {
                strings.spare.set(old.next);
                (old.owner, old.text, old.retained) = (owner, text, 0);
                place
            }
            None => Box::into_raw(Box::new(Str { magic: MAGIC, owner, text, retained: 0, next: null_mut() })),
        }
    })
}

/// A string that the module may read until it is taken back.
pub fn lend(text: &Text) -> *mut Str {
    make(text.clone(), Owner::Server)
}

/// A string of the module's own.
pub fn give(text: Text) -> *mut Str {
    make(text, Owner::Module)
}

fn free(string: *mut Str, by: Owner) {
    // SAFETY: every string that was ever made still has its memory, or is found by AddressSanitizer.
    let known = unsafe { string.as_mut() };
    match known {
        Some(one) if one.magic == MAGIC && by == Owner::Module && one.owner != Owner::Freed && one.retained > 0 => {
            one.retained -= 1;
        }
        Some(one) if one.magic == MAGIC && by == Owner::Server && one.retained > 0 => {
            problem("the module keeps an argument");
        }
        Some(one) if one.magic == MAGIC && one.owner == by => {
            one.owner = Owner::Freed;
            STRINGS.with(|strings| {
                strings.owned.set(strings.owned.get() - i64::from(by == Owner::Module));
                if cfg!(feature = "sanitized") {
                    // SAFETY: it was made by `make`, and is freed once, as its owner says.
                    drop(unsafe { Box::from_raw(string) });
                    return;
                }
                let turn = strings.turn.get();
                strings.turn.set((turn + 1) % WAITING);
                let waited = strings.freed[turn].replace(string);
                // SAFETY: one that waits came from a box, and nobody else uses it.
                if let Some(one) = unsafe { waited.as_mut() } {
                    one.next = strings.spare.replace(waited);
                }
            });
        }
        Some(one) => problem(format!("{by:?} frees a string that is {:?}", one.owner)),
        None => problem("a null string is freed"),
    }
}

pub fn take_back(string: *mut Str) {
    free(string, Owner::Server);
}

pub fn free_by_module(string: *mut Str) {
    free(string, Owner::Module);
}

/// The server needs an argument no longer. Whoever has retained it owns it from now on.
pub fn release(string: *mut Str) {
    // SAFETY: as in `free`.
    match unsafe { string.as_mut() } {
        Some(one) if one.magic == MAGIC && one.owner == Owner::Server && one.retained > 0 => {
            one.retained -= 1;
            one.owner = Owner::Module;
            STRINGS.with(|strings| strings.owned.set(strings.owned.get() + 1));
        }
        _ => free(string, Owner::Server),
    }
}

/// The module holds a string for longer, and frees it then.
pub fn retain(string: *mut Str) {
    // SAFETY: as in `free`.
    match unsafe { string.as_mut() } {
        Some(one) if one.magic == MAGIC && one.owner != Owner::Freed => one.retained += 1,
        _ => problem("a string is retained that is gone"),
    }
}

/// What a string holds, for whoever may read it.
pub fn text_of(string: *const Str) -> Option<Text> {
    // SAFETY: as in `free`.
    match unsafe { string.as_ref() } {
        Some(one) if one.magic == MAGIC && one.owner != Owner::Freed => Some(one.text.clone()),
        Some(_) => {
            problem("a string is used after it was freed");
            None
        }
        None => {
            problem("a null string is used");
            None
        }
    }
}

/// Where a string keeps its bytes.
pub fn place_of(string: *const Str) -> (*const u8, usize) {
    // SAFETY: as in `free`.
    match unsafe { string.as_ref() } {
        Some(one) if one.magic == MAGIC && one.owner != Owner::Freed => (one.text.as_ptr(), one.text.len()),
        Some(_) => {
            problem("a string is used after it was freed");
            (std::ptr::null(), 0)
        }
        None => {
            problem("a null string is used");
            (std::ptr::null(), 0)
        }
    }
}

/// How many strings the module owns.
pub fn owned() -> i64 {
    STRINGS.with(|strings| strings.owned.get())
}
