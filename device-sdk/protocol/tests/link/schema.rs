//! The shapes of this level are pinned: whoever changes one has to raise the level and say so here.

use parlor_protocol::link::{Down, Frame, LEVEL, SCHEMA, Up};

/// Every level that was ever released, with its schema.
const RELEASED: &[(u32, u64)] = &[(261_126, 0xA9B0_F02C_BCFA_57E8)];

#[test]
fn a_frame_changes_only_with_the_level() {
    let (level, schema) = *RELEASED.last().unwrap();
    println!("level {LEVEL}, schema 0x{SCHEMA:016X}\n{}\n{}", Up::SHAPE, Down::SHAPE);
    assert_eq!((LEVEL, format!("0x{SCHEMA:016X}")), (level, format!("0x{schema:016X}")));
    assert!(RELEASED.is_sorted_by(|a, b| a.0 < b.0));
}

#[test]
fn variants_are_appended_and_the_newest_is_of_the_level() {
    for (levels, count) in [(Up::LEVELS, Up::COUNT), (Down::LEVELS, Down::COUNT)] {
        assert_eq!(levels.len(), count as usize);
        assert!(levels.is_sorted());
    }
    assert_eq!(Up::LEVELS.iter().chain(Down::LEVELS).max(), Some(&LEVEL));
}
