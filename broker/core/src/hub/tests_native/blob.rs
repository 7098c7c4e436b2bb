//! Blobs over the native link.

use super::*;
use crate::im::{BlobOrder, NewBlob};

#[test]
fn bytes_of_a_blob_fit_the_frames_of_a_native_device() {
    let mut house = House::new(|_| ());
    house.hub.describe_account(house.now, "lamp", "device", None, 1);
    house.settle();
    let content: Vec<u8> = (0..20_000_u32).map(|at| (at % 251).to_le_bytes()[0]).collect();
    let begin = BlobOrder::Begin { readers: vec!["lamp".into()], size: None };
    let blob = NewBlob { sha256: [0xAB; 32], readers: vec!["lamp".into()], ..NewBlob::default() };
    for order in [begin, BlobOrder::Append { upload: 1, bytes: content.clone() }, BlobOrder::Finish { upload: 1, blob }]
    {
        house.hub.blob(house.now, order, 9);
        house.settle();
    }
    let path = format!("me/blob/{}", "ab".repeat(32));
    for (frame_max, most) in [(0, 16_384), (300, 300), (100, 100)] {
        let mut frame = hello("lamp", "board", 0);
        if let Up::Hello { frame_max: most, .. } = &mut frame {
            *most = frame_max;
        }
        let board = house.greet(&frame);
        house.frames(board);
        let mut got = vec![];
        while got.len() < content.len() {
            let payload = format!(r#"{{"offset":{}}}"#, got.len());
            house.tell(board, &Up::Request { packet_id: 3, path: &path, payload: payload.as_bytes() });
            let frames = house.frames(board);
            let range = frames.iter().find_map(|frame| match frame {
                Down::Publish { topic: "im/v1/me/blob/res", payload, .. } => Some(*payload),
                _ => None,
            });
            let range = range.unwrap_or_else(|| panic!("{frame_max}: {frames:?}"));
            assert!((18..=most + 16).contains(&range.len()), "{frame_max}: {}", range.len());
            assert_eq!(range[..8], (got.len() as u64).to_be_bytes());
            got.extend_from_slice(&range[16..]);
        }
        assert!(got == content, "{frame_max}");
        house.gone(board);
    }
}
