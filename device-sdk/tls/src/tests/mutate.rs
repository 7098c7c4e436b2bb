//! Thousands of damaged handshakes from seeds: none is believed that should not be, none is a panic, and each error tells what was wrong.
//! `SEED=n` plays one again. The tests at the end leave a check of the client out and see that it is noticed.

use super::rogue::{Play, rogue};
use super::*;
use crate::record::{ALERT, APPLICATION, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER};
use std::string::String;

/// What a server can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Hello,
    Extensions,
    Request,
    Certificate,
    Proof,
    Finished,
    /// Nothing: it goes over to the application's keys.
    Open,
    Update,
    /// Nothing: it goes over to the next keys.
    Rekey,
    Ticket,
    Goodbye,
    Text,
    Change,
}

use What::{
    Certificate, Change, Extensions, Finished, Goodbye, Hello, Open, Proof, Rekey, Request, Text, Ticket, Update,
};

const HONEST: [What; 7] = [Hello, Extensions, Certificate, Proof, Finished, Open, Text];
const HONEST_WITH_REQUEST: [What; 8] = [Hello, Extensions, Request, Certificate, Proof, Finished, Open, Text];

/// A part of what it says, and how it is damaged.
#[derive(Clone, Debug)]
struct Part {
    what: What,
    edits: Vec<Edit>,
    /// Bytes of a record at most.
    piece: usize,
}

impl From<What> for Part {
    fn from(what: What) -> Self {
        Self { what, edits: Vec::new(), piece: usize::MAX }
    }
}

/// A change of bytes. The place is taken modulo the length.
#[derive(Clone, Copy, Debug)]
pub(super) enum Edit {
    Set(usize, u8),
    Flip(usize, u8),
    Add(usize, u8),
    Insert(usize, u8),
    Remove(usize, usize),
    Cut(usize),
    Append(u8, usize),
}

impl Edit {
    pub(super) fn apply(self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        let at = |place: usize| place % length;
        match self {
            Self::Append(byte, count) => bytes.resize(bytes.len() + count, byte),
            _ if bytes.is_empty() => {}
            Self::Set(place, byte) => bytes[at(place)] = byte,
            Self::Flip(place, mask) => bytes[at(place)] ^= mask,
            Self::Add(place, by) => bytes[at(place)] = bytes[at(place)].wrapping_add(by),
            Self::Insert(place, byte) => bytes.insert(at(place), byte),
            Self::Remove(place, count) => drop(bytes.drain(at(place)..length.min(at(place) + count))),
            Self::Cut(place) => bytes.truncate(at(place)),
        }
    }
}

/// A server, and what becomes of its bytes on their way.
#[derive(Clone, Debug)]
struct Case {
    parts: Vec<Part>,
    /// It has the key that the board knows.
    has_key: bool,
    /// It shows the certificate of that key, whether it has it or not.
    shows_it: bool,
    on_the_way: Vec<Edit>,
    sip: usize,
}

impl Case {
    fn of(what: &[What]) -> Self {
        let parts = what.iter().copied().map(Part::from).collect();
        Self { parts, has_key: true, shows_it: true, on_the_way: Vec::new(), sip: usize::MAX }
    }
}

/// What the server really said.
#[derive(Default)]
struct Facts {
    /// Those messages came as they should be.
    order: Vec<What>,
    certificate_is_right: bool,
    proof_is_right: bool,
    finished_is_right: bool,
    texts: Vec<Vec<u8>>,
    /// The bytes as they were sent, up to the end of the first text, and as they came.
    sent: Vec<u8>,
    came: Vec<u8>,
}

impl Facts {
    /// Whether a board may believe the server.
    fn may_be_believed(&self) -> bool {
        let handshake = self.order.iter().copied().filter(|what| HONEST_WITH_REQUEST[..6].contains(what));
        let handshake: Vec<What> = handshake.collect();
        let in_order = handshake == HONEST[..5] || handshake == HONEST_WITH_REQUEST[..6];
        let whole =
            self.came.get(..self.sent.len()).is_some_and(|came| without_versions(came) == without_versions(&self.sent));
        in_order && self.certificate_is_right && self.proof_is_right && self.finished_is_right && whole
    }
}

/// The same with the versions of records in the open zeroed: they are to be ignored (RFC 8446 s5.1).
fn without_versions(stream: &[u8]) -> Vec<u8> {
    let mut out = stream.to_vec();
    let mut at = 0;
    while let Some([kind, high, low, length @ ..]) = out.get_mut(at..at + HEADER) {
        if *kind != APPLICATION {
            (*high, *low) = (0, 0);
        }
        at += HEADER + (usize::from(length[0]) << 8 | usize::from(length[1]));
    }
    out
}

/// Who is in the play: the server that is known, and another one.
struct Cast {
    known: Party,
    other: Party,
}

fn say(play: &mut Play, cast: &Cast, case: &Case, facts: &mut Facts) {
    for Part { what, edits, piece } in &case.parts {
        let key = if case.has_key { &cast.known } else { &cast.other };
        let honest = match what {
            Hello => Play::message(2, &Play::hello_body([9; 32], 0x1301, &Play::agree().1)),
            Extensions => Play::extensions(),
            Request => Play::message(13, &[0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]),
            Certificate => Play::certificate(if case.shows_it { &cast.known } else { &cast.other }),
            Proof => play.proof(key),
            Finished => play.finished(),
            Update => Play::message(24, &[1]),
            Ticket => Play::message(4, &[7; 50]),
            Goodbye => std::vec![1, 0],
            Text => b"hi".to_vec(),
            Change => std::vec![1],
            Open | Rekey => Vec::new(),
        };
        let mut bytes = honest.clone();
        for edit in edits {
            edit.apply(&mut bytes);
        }
        // What comes behind the first text or alert the board has not heard when it believes.
        let counts = facts.sent.is_empty();
        if counts {
            facts.order.push(*what);
        }
        match what {
            Open => {
                play.open();
                continue;
            }
            Rekey => {
                play.rekey();
                continue;
            }
            Certificate if counts => {
                facts.certificate_is_right = bytes.windows(91).any(|part| part == cast.known.public);
            }
            Proof if counts => facts.proof_is_right = case.has_key && bytes == honest,
            Finished if counts => facts.finished_is_right = bytes == honest,
            Text => facts.texts.push(bytes.clone()),
            _ => {}
        }
        if [Hello, Extensions, Request, Certificate, Proof, Finished].contains(what) {
            play.said(&bytes);
        }
        let kind = match what {
            Text => APPLICATION,
            Goodbye => ALERT,
            Change => CHANGE_CIPHER_SPEC,
            _ => HANDSHAKE,
        };
        let pieces = if bytes.is_empty() { std::vec![&bytes[..]] } else { bytes.chunks(*piece).collect() };
        for piece in pieces {
            if *what == Hello || *what == Change || !play.is_sealed() {
                play.plain(kind, piece);
            } else {
                play.sealed(kind, piece);
            }
        }
        if *what == Hello {
            play.derive(&Play::agree().0);
        }
        if (kind == APPLICATION || kind == ALERT) && counts {
            facts.sent.clone_from(&play.out);
        }
    }
    if facts.sent.is_empty() {
        facts.sent.clone_from(&play.out);
    }
    for edit in &case.on_the_way {
        edit.apply(&mut play.out);
    }
    facts.came.clone_from(&play.out);
}

/// Says which case it was when it ends in a panic.
struct Note<'a>(&'a Case, u64);

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::eprintln!("SEED={}: {:?}", self.1, self.0);
        }
    }
}

/// What is wrong with how the board took it, if anything is.
fn fault(cast: &Rc<Cast>, case: &Case, seed: u64) -> Option<String> {
    play(cast, case, seed).1
}

/// How the board took it, and what is wrong with that.
fn play(cast: &Rc<Cast>, case: &Case, seed: u64) -> (Result<Vec<u8>, TlsError>, Option<String>) {
    let _note = Note(case, seed);
    let facts = Rc::new(RefCell::new(Facts::default()));
    let config = pinned(&cast.known);
    let (their, said, whole) = (Rc::clone(cast), Rc::clone(&facts), case.clone());
    let wire = rogue(move |play| say(play, &their, &whole, &mut said.borrow_mut())).sipping(case.sip);
    let outcome = outcome(&wire, &config);
    let facts = facts.borrow();
    let wrong = match &outcome {
        Ok(text) if !facts.may_be_believed() => std::format!("believed, and said {text:?}"),
        Ok(text) if !text.is_empty() && !facts.texts.iter().any(|said| said.starts_with(text)) => {
            std::format!("heard {text:?}")
        }
        // These tell of the board and not of the server.
        Err(error @ (TlsError::Socket(_) | TlsError::Closed | TlsError::BuffersTooSmall | TlsError::BadIdentity)) => {
            std::format!("{error:?}")
        }
        _ => return (outcome, None),
    };
    (outcome, Some(std::format!("SEED={seed}: {wrong}: {case:?}")))
}

fn cast() -> Rc<Cast> {
    Rc::new(Cast { known: lonely(), other: lonely() })
}

/// Numbers from a seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll() % sides as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        let any = self.roll().to_le_bytes()[0];
        [0, 1, 2, 4, 0x7F, 0x80, 0xFE, 0xFF, any, any][self.below(10)]
    }

    pub(super) fn edit(&mut self, length: usize) -> Edit {
        let place = self.below(length);
        match self.below(10) {
            0 | 1 => Edit::Set(place, self.byte()),
            2 => Edit::Flip(place, 1 << self.below(8)),
            // Lengths that are a little too long or too short.
            3 | 4 => Edit::Add(place, [1, 2, 0xFF, 0xFE][self.below(4)]),
            5 => Edit::Insert(place, self.byte()),
            6 => Edit::Remove(place, 1 + self.below(4)),
            7 => Edit::Cut(place),
            _ => Edit::Append(self.byte(), 1 + self.below(40)),
        }
    }
}

/// A case from a seed: an honest flight, with or without the key, damaged in one to three ways.
fn case(seed: u64) -> Case {
    let dice = &mut Dice(seed);
    let mut case = Case::of(if dice.below(3) == 0 { &HONEST_WITH_REQUEST } else { &HONEST });
    (case.has_key, case.shows_it) = [(true, true), (true, true), (false, true), (false, false)][dice.below(4)];
    case.sip = [usize::MAX, usize::MAX, 1, 7, 100][dice.below(5)];
    for _ in 0..=dice.below(3) {
        let count = case.parts.len();
        if count == 0 {
            break;
        }
        let (at, other) = (dice.below(count), dice.below(count));
        match dice.below(13) {
            0..=4 => {
                let edit = dice.edit(120);
                case.parts[at].edits.push(edit);
            }
            5 => drop(case.parts.remove(at)),
            6 => case.parts.swap(at, other),
            7 => case.parts.insert(other, case.parts[at].clone()),
            8 => case.parts[at].piece = 1 + dice.below(40),
            9 => {
                let all = [Update, Rekey, Ticket, Goodbye, Text, Change, Request, Extensions, Proof, Finished];
                case.parts.insert(at, all[dice.below(all.len())].into());
            }
            10 => {
                let many = [Change, Ticket, Text][dice.below(3)];
                let edits = if many == Text { std::vec![Edit::Cut(0)] } else { Vec::new() };
                case.parts.splice(at..at, std::iter::repeat_n(Part { edits, ..many.into() }, 40));
            }
            _ => case.on_the_way.push(dice.edit(1_200)),
        }
    }
    case
}

fn assert_none(faults: impl Iterator<Item = String>) {
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{} faults, the first: {}", faults.len(), faults[0]);
}

/// The cases of the seeds that a test runs, or the one of `SEED`.
fn seeds() -> std::ops::Range<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..2_500,
    }
}

/// What is undamaged is believed, and each kind of error is seen: not every case is refused by the first check.
#[test]
fn damaged_handshakes_from_seeds() {
    let cast = cast();
    let (mut faults, mut seen) = (Vec::new(), Vec::<String>::new());
    for seed in seeds() {
        let (outcome, fault) = play(&cast, &case(seed), seed);
        faults.extend(fault);
        let name = outcome.map_or_else(|error| std::format!("{error:?}"), |_| "open".into());
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    assert_none(faults.into_iter());
    if seeds().count() == 1 {
        return;
    }
    for name in [
        "open",
        "Cut",
        "WrongPin",
        "NoCertificate",
        "NoProof",
        "WrongProof",
        "BadCertificate",
        "Unsupported",
        "WrongProtocol",
        "TooLarge",
        "Forged",
        "BadServer(Malformed)",
        "BadServer(Unasked)",
        "BadServer(Illegal)",
        "BadServer(UnexpectedMessage)",
        "BadServer(UnexpectedRecord)",
        "BadServer(EmptyRecord)",
        "BadServer(Flood)",
        "BadServer(AcrossKeys)",
        "BadServer(WrongFinished)",
    ] {
        assert!(seen.iter().any(|other| other == name), "{name} is not among {seen:?}");
    }
}

/// Every byte of every message of the flight, lengths among them, in four ways; the server seals and counts them itself.
#[test]
fn every_byte_of_every_message() {
    let cast = cast();
    let lengths = [
        (Hello, 123),
        (Extensions, Play::extensions().len()),
        (Request, 15),
        (Certificate, Play::certificate(&cast.known).len()),
        (Proof, 76),
        (Finished, 36),
    ];
    let mut cases = Vec::new();
    for (what, length) in lengths {
        for place in 0..length {
            for edit in [Edit::Add(place, 1), Edit::Add(place, 0xFF), Edit::Flip(place, 0x80), Edit::Set(place, 0)] {
                // Most of a certificate is nothing to a board with a pin.
                if what == Certificate && place > 40 && !matches!(edit, Edit::Add(_, 1)) {
                    continue;
                }
                let mut case = Case::of(&HONEST_WITH_REQUEST);
                case.parts.iter_mut().find(|part| part.what == what).unwrap().edits.push(edit);
                cases.push(case);
            }
        }
    }
    assert!(cases.len() > 1_200, "{}", cases.len());
    assert_none(cases.iter().filter_map(|case| fault(&cast, case, 0)));
}

/// Leaves a check of the client out and plays these cases: whether anything is noticed.
fn is_noticed(check: Check, cases: impl Iterator<Item = Case>) -> bool {
    let cast = cast();
    let cases: Vec<Case> = cases.collect();
    assert!(cases.iter().all(|case| fault(&cast, case, 0).is_none()), "something is wrong with all checks");
    LEFT_OUT.set(Some(check));
    let noticed = cases.iter().any(|case| fault(&cast, case, 0).is_some());
    LEFT_OUT.set(None);
    noticed
}

/// A client without one of its checks is caught by the seeds, and by the plain case that the check is for.
#[test]
fn a_client_without_a_check_is_caught() {
    let seeds = || (0..400).map(case);
    for check in [Check::Pin, Check::Signature, Check::Finished, Check::Order] {
        assert!(is_noticed(check, seeds()), "{check:?} from seeds");
        let mut plain = Case::of(&HONEST);
        match check {
            Check::Pin => (plain.has_key, plain.shows_it) = (false, false),
            Check::Signature => plain.has_key = false,
            Check::Finished => plain.parts[4].edits.push(Edit::Flip(20, 1)),
            Check::Order => drop(plain.parts.remove(3)),
        }
        assert!(is_noticed(check, std::iter::once(plain)), "{check:?}");
        assert!(!is_noticed(check, std::iter::once(Case::of(&HONEST))), "an honest server is none to notice");
    }
}
