//! How deep the stack has been: free RAM is painted at the start, and what is still painted was never used.

const PAINT: u32 = 0xA5A5_5A5A;

unsafe extern "C" {
    /// Where static memory ends.
    static mut __sheap: u32;
    /// Where the stack begins: the end of RAM.
    static mut _stack_start: u32;
}

/// Paints what lies below the caller's frame.
#[inline(never)]
pub fn paint() {
    let here = cortex_m::register::msp::read() as usize - 256;
    // SAFETY: everything between the end of static memory and 256 bytes below the stack pointer is unused; there is no heap.
    unsafe {
        let mut place = &raw mut __sheap;
        while (place as usize) < here {
            place.write_volatile(PAINT);
            place = place.add(1);
        }
    }
}

/// Bytes of stack used at most until now.
pub fn deepest() -> usize {
    // SAFETY: reads words of RAM between two symbols of the linker.
    unsafe {
        let mut place = &raw const __sheap;
        let end = &raw const _stack_start;
        while place < end && place.read_volatile() == PAINT {
            place = place.add(1);
        }
        end as usize - place as usize
    }
}
