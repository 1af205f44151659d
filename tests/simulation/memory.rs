//! Memory in pieces that are used again at once: most of what a call takes is small, and goes with it.
//!
//! For the program alone, and not under AddressSanitizer, which watches memory that is not used again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;

/// Sizes are rounded up to a multiple of this, which is also how pieces are aligned.
const STEP: usize = 16;

/// Larger ones are the system's.
const LARGEST: usize = 1_024;

/// What is taken from the system at a time.
const BLOCK: usize = 64 * 1_024;

/// A piece that is free, as long as it is.
struct Free {
    next: *mut Free,
}

thread_local! {
    /// Pieces that are free, by size. Whoever frees a piece of another thread has it.
    static FREE: [Cell<*mut Free>; LARGEST / STEP + 1] = const { [const { Cell::new(null_mut()) }; LARGEST / STEP + 1] };
}

/// The allocator.
pub struct Pool;

fn is_small(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= STEP
}

/// More pieces of this size, one of which is not put aside.
#[cold]
fn more(free: &Cell<*mut Free>, size: usize) -> *mut u8 {
    let size = size.max(STEP);
    let Ok(layout) = Layout::from_size_align(BLOCK, STEP) else { return null_mut() };
    // SAFETY: the size is not 0.
    let block = unsafe { System.alloc(layout) };
    if block.is_null() {
        return block;
    }
    for at in (size..=BLOCK - size).step_by(size) {
        // SAFETY: it is within the block, which nobody else knows, and has room for a pointer.
        unsafe {
            let piece: *mut Free = block.add(at).cast();
            piece.write(Free { next: free.get() });
            free.set(piece);
        }
    }
    block
}

// SAFETY: a piece is on no list while it is in use, and as large as its layout says, rounded up, every time that it is asked.
unsafe impl GlobalAlloc for Pool {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_small(layout) {
            // SAFETY: as the caller promises.
            return unsafe { System.alloc(layout) };
        }
        let class = layout.size().div_ceil(STEP);
        FREE.with(|free| {
            let free = &free[class];
            let piece = free.get();
            if piece.is_null() {
                return more(free, class * STEP);
            }
            // SAFETY: a piece on the list is free.
            free.set(unsafe { (*piece).next });
            piece.cast()
        })
    }

    #[inline]
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if !is_small(layout) {
            // SAFETY: as the caller promises.
            return unsafe { System.dealloc(place, layout) };
        }
        FREE.with(|free| {
            let free = &free[layout.size().div_ceil(STEP)];
            let piece: *mut Free = place.cast();
            // SAFETY: the caller gives it back, and it has room for a pointer.
            unsafe { piece.write(Free { next: free.get() }) };
            free.set(piece);
        });
    }

    #[inline]
    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is one for this alignment, and that the place has the layout.
        unsafe {
            let new = Layout::from_size_align_unchecked(size, layout.align());
            match (is_small(layout), is_small(new)) {
                (true, true) if size.div_ceil(STEP) == layout.size().div_ceil(STEP) => place,
                (false, false) => System.realloc(place, layout, size),
                _ => {
                    let fresh = self.alloc(new);
                    if !fresh.is_null() {
                        place.copy_to_nonoverlapping(fresh, size.min(layout.size()));
                        self.dealloc(place, layout);
                    }
                    fresh
                }
            }
        }
    }
}
