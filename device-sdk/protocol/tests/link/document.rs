//! docs/protocol.md, section 12, says what the frames are: its tables are the declarations, and its bytes are read.

use crate::samples::{downs, ups};
use crate::{encoded, hex, whole};
use core::fmt::Debug;
use parlor_protocol::link::{
    Body, Code, CommandState, Decoded, Down, Frame, LEVEL, Message, PresenceState, SCHEMA, Up,
};

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

fn section() -> &'static str {
    DOCUMENT.split("\n## ").find(|section| section.starts_with("12. ")).expect("section 12")
}

/// A field's type as the document writes it.
fn plain(kind: &str) -> String {
    let kind = kind.replace("&'a str", "text").replace("&'a [u8]", "bytes").replace("Secret<'a>", "bytes");
    let kind = kind.replace("<'a>", "");
    match kind.strip_prefix("Option<").and_then(|kind| kind.strip_suffix('>')) {
        Some(kind) => format!("{kind}?"),
        None => kind,
    }
}

/// `name{field:type,…}` once or several times, as rows of a table.
fn rows(shape: &str) -> Vec<String> {
    let variants = shape.split_once('{').unwrap().1.trim_end_matches('}');
    let rows = variants.split('}').enumerate().map(|(tag, variant)| {
        let (name, fields) = variant.split_once('{').unwrap();
        let fields: Vec<String> = fields
            .split(',')
            .filter_map(|field| field.split_once(':'))
            .map(|(name, kind)| format!("{} {}", name.trim(), plain(kind.trim())))
            .collect();
        format!("| {tag} | `{}` | {} |", name.trim(), fields.join(", "))
    });
    rows.collect()
}

#[test]
fn its_tables_are_the_declarations() {
    for rows in [rows(Up::SHAPE), rows(Down::SHAPE)] {
        let all = rows.join("\n");
        assert!(section().contains(&all), "this is to stand there:\n{all}");
    }
    let fields = rows(&format!("x{{{}}}", Message::SHAPE));
    let fields = fields[0].split('|').nth(3).unwrap().trim();
    assert!(section().contains(fields), "this is to stand there: {fields}");
    for (at, kind) in ["Text", "Json", "Bytes", "Both"].into_iter().enumerate() {
        assert!(Body::SHAPE.contains(kind) && section().contains(&format!("{at} `{kind}`")), "{kind}");
    }
    assert!(section().contains(&LEVEL.to_string()) && section().contains(&format!("0x{SCHEMA:016X}")));
}

#[test]
fn its_words_are_the_enums() {
    let check = |words: Vec<(u8, &str)>| {
        let all = words.iter().map(|(value, text)| format!("{value} `{text}`")).collect::<Vec<_>>().join(", ");
        assert!(section().contains(&all), "this is to stand there: {all}");
    };
    check(Code::ALL.iter().map(|word| (word.value(), word.text())).collect());
    check(CommandState::ALL.iter().map(|word| (word.value(), word.text())).collect());
    check(PresenceState::ALL.iter().map(|word| (word.value(), word.text())).collect());
}

/// The lines of the examples that begin with this sign: bytes, and what they mean.
fn examples(sign: &str) -> Vec<(Vec<u8>, &'static str)> {
    let block = section().split("```frames\n").nth(1).unwrap().split("```").next().unwrap();
    let lines = block.lines().filter_map(|line| line.strip_prefix(sign)).map(|line| {
        let (bytes, meaning) = line.split_once(" = ").unwrap();
        let digits: String = bytes.split_whitespace().collect();
        let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        (bytes.collect(), meaning)
    });
    lines.collect()
}

fn check<F: Frame<'static> + Debug + PartialEq + Copy>(sign: &str, samples: &[F]) {
    let examples = examples(sign);
    let shown = |frame: &F| {
        let bytes = hex(&encoded(frame));
        format!("{sign}{} {} {} {} = {frame:?}", &bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..])
    };
    let all = samples.iter().map(shown).collect::<Vec<_>>().join("\n");
    assert_eq!(examples.len(), samples.len(), "this is to stand there:\n{all}");
    for ((bytes, meaning), sample) in examples.into_iter().zip(samples) {
        let Ok(Decoded::Frame(frame)) = whole::<F>(bytes.leak()) else { panic!("{meaning}") };
        assert_eq!(format!("{frame:?}"), meaning, "{}", shown(sample));
        assert_eq!(frame, *sample);
    }
}

#[test]
fn its_examples_are_read() {
    check("up   ", &ups());
    check("down ", &downs());
}
