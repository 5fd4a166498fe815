//! Buffers are borrowed while bytes are in flight: an idle session holds none.

use std::cell::RefCell;

/// What a read starts with. Most queries and results are far smaller.
pub const SMALL: usize = 16 * 1024;
/// What a read goes on with once it has filled a small one: fewer, larger calls for bulk transfers.
pub const LARGE: usize = 128 * 1024;
/// Free buffers kept per thread and size; more are given back to the allocator.
const SPARE: usize = 8;

thread_local! {
    static SPARES: RefCell<[Vec<Box<[u8]>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A borrowed buffer; it returns to its thread's spares when dropped.
pub(super) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(super) fn small() -> Self {
        Self::borrow(0, SMALL)
    }

    pub(super) fn large() -> Self {
        Self::borrow(1, LARGE)
    }

    fn borrow(class: usize, size: usize) -> Self {
        let spare = SPARES.with_borrow_mut(|spares| spares[class].pop());
        Self(spare.unwrap_or_else(|| vec![0; size].into_boxed_slice()))
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let class = usize::from(self.0.len() > SMALL);
        let bytes = std::mem::take(&mut self.0);
        // At the end of a thread its spares are gone before the last session may be.
        let _ = SPARES.try_with(|spares| {
            if let Ok(mut spares) = spares.try_borrow_mut()
                && spares[class].len() < SPARE
            {
                spares[class].push(bytes);
            }
        });
    }
}
