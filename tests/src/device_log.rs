//! What devices on this host write to their log.

use log::{LevelFilter, Log, Metadata, Record};
use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Keeps the lines of the thread that asked for them.
struct Keeper;

impl Log for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "parlor_device"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            LINES.with_borrow_mut(|lines| {
                if let Some(lines) = lines {
                    lines.push(format!("{} {}", record.level(), record.args()));
                }
            });
        }
    }

    fn flush(&self) {}
}

/// What a device says while `work` is done, which has to run it in this thread: lines of every level, with that in front.
pub fn lines_of(work: impl FnOnce()) -> Vec<String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Keeper).expect("nobody else in this program keeps a log of this kind");
        log::set_max_level(LevelFilter::Trace);
    });
    LINES.set(Some(vec![]));
    work();
    LINES.take().expect("they were asked for above")
}
