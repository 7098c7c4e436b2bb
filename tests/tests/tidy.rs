//! The documents hold to the source: docs/conformance.md names what is there, links lead somewhere, files stay readable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms whose citations are read, and how docs/conformance.md abbreviates them.
const ROOMS: [(&str, &str); 6] = [
    ("core/", "broker/core/src/"),
    ("broker/", "broker/src/"),
    ("protocol/", "device-sdk/protocol/src/"),
    ("codec/", "device-sdk/protocol/tests/codec/"),
    ("client/", "device-sdk/client/src/"),
    ("tests/", "tests/tests/"),
];

/// How many normative statements Appendix B lists: of 5.0, of 3.1.1.
const STATEMENTS: [(&str, usize); 2] = [("MQTT5-", 251), ("MQTT3-", 138)];

const LINES_MAX: usize = 700;

/// Files that may be longer, and why.
const LONG_FILES: [(&str, &str); 3] = [
    ("tests/src/world.rs", "one loop, and every event that it can take next; what talks in it lies beside it"),
    ("tests/src/checkers.rs", "one checker for each promise, which all read the same history"),
    ("tests/tests/wire/publish.rs", "one statement of the specification after another, in its order"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All files below `directory` with this ending, as paths from the root, sorted; what cargo built is left out.
fn files(directory: &str, ending: &str) -> Vec<String> {
    let mut found = vec![];
    let mut left = vec![root().join(directory)];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())) {
            let path = entry.expect("a directory can be read to its end").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                left.push(path);
            } else if path.is_file() && name.ends_with(ending) {
                found.push(path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

/// The statements cited in `text`: `[MQTT5-x.y.z-n]` and `[MQTT3-x.y.z-n]`.
fn citations(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("[MQTT") {
        let rest = &text[at + 1..];
        let Some(end) = rest.find(']') else { continue };
        let id = &rest[..end];
        let number = id.strip_prefix("MQTT5-").or_else(|| id.strip_prefix("MQTT3-"));
        if number.is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit())) {
            found.insert(id);
        }
    }
    found
}

/// One row of docs/conformance.md.
struct Row {
    statement: String,
    obeyed: String,
    tested: String,
}

fn rows() -> Vec<Row> {
    let text = read(&root().join("docs/conformance.md"));
    let mut rows = vec![];
    for line in text.lines().filter(|l| l.starts_with("| `[MQTT")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [statement, demand, obeyed, tested] = cells[..] else { panic!("four cells expected: {line}") };
        assert!(!demand.is_empty(), "what does it demand? {line}");
        let statement = statement.trim_matches(['`', '[', ']']).to_owned();
        rows.push(Row { statement, obeyed: obeyed.to_owned(), tested: tested.to_owned() });
    }
    rows
}

/// The places a cell names: what stands in backquotes and has `::` in it, as file from the root and item.
fn places(cell: &str) -> Vec<(String, String)> {
    let mut found = vec![];
    for quoted in cell.split('`').skip(1).step_by(2) {
        let Some((file, item)) = quoted.split_once("::") else { continue };
        let (short, long) = *ROOMS
            .iter()
            .find(|(short, _)| file.starts_with(short))
            .unwrap_or_else(|| panic!("`{quoted}` begins with no room"));
        found.push((format!("{long}{}", &file[short.len()..]), item.to_owned()));
    }
    found
}

/// The lines of each item called `name`, and how many comments and attributes stand above it.
fn items<'a>(text: &'a str, name: &str, kinds: &[&str]) -> Vec<(usize, Vec<&'a str>)> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let declares = |line: &str| {
        kinds.iter().any(|kind| {
            let Some(at) = line.find(&format!("{kind} {name}")) else { return false };
            let after = line[at + kind.len() + 1 + name.len()..].chars().next();
            let visible = |word: &str| word.starts_with("pub") || ["const", "async"].contains(&word);
            line[..at].split_whitespace().all(visible) && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    };
    let found = (0..lines.len()).filter(|at| declares(lines[*at]));
    let whole = found.map(|at| {
        let above = |line: &&&str| ["///", "//", "#["].iter().any(|mark| line.trim_start().starts_with(mark));
        let first = at - lines[..at].iter().rev().take_while(above).count();
        let ends = |i: &usize| indent(lines[*i]) == indent(lines[at]) && ["}", "];"].contains(&lines[*i].trim());
        let short = lines[at].trim_end().ends_with([';', '}']);
        let last = if short { at } else { (at + 1..lines.len()).find(ends).unwrap_or(lines.len() - 1) };
        (at - first, lines[first..=last].to_vec())
    });
    whole.collect()
}

fn fail_if_any(problems: &[String]) {
    let mut text = String::new();
    for problem in problems {
        let _ = writeln!(text, "  {problem}");
    }
    assert!(problems.is_empty(), "{} problems:\n{text}", problems.len());
}

#[test]
fn the_table_has_every_statement_once() {
    let rows = rows();
    for (prefix, count) in STATEMENTS {
        let all: Vec<&str> = rows.iter().map(|r| r.statement.as_str()).filter(|s| s.starts_with(prefix)).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{prefix}: a statement stands there twice");
        assert_eq!(all.len(), count, "{prefix}: statements in docs/conformance.md");
    }
}

#[test]
fn places_of_the_table_exist_and_cite_their_statement() {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut problems = vec![];
    for row in rows() {
        let said = |cell: &str, words: &[&str]| words.iter().any(|w| cell.starts_with(w));
        let (obeyed, tested) = (places(&row.obeyed), places(&row.tested));
        if obeyed.is_empty() && !said(&row.obeyed, &["client", "does not arise: ", "not obeyed"]) {
            problems.push(format!("{}: who obeys it? `{}`", row.statement, row.obeyed));
        }
        if tested.is_empty() && !said(&row.tested, &["not tested", "—"]) {
            problems.push(format!("{}: who tests it? `{}`", row.statement, row.tested));
        }
        let citation = format!("[{}]", row.statement);
        for (is_test, (file, name)) in obeyed.iter().map(|p| (false, p)).chain(tested.iter().map(|p| (true, p))) {
            let path = root().join(file);
            if !path.is_file() {
                problems.push(format!("{}: there is no file {file}", row.statement));
                continue;
            }
            let text = texts.entry(file.clone()).or_insert_with(|| read(&path));
            let kinds: &[&str] = if is_test { &["fn"] } else { &["fn", "struct", "enum", "trait", "const", "mod"] };
            let found = items(text, name, kinds);
            if found.is_empty() {
                problems.push(format!("{}: there is no `{name}` in {file}", row.statement));
                continue;
            }
            if is_test && !found.iter().any(|(above, lines)| lines[..*above].iter().any(|l| l.trim() == "#[test]")) {
                problems.push(format!("{}: `{name}` in {file} is no test", row.statement));
            }
            // Code moves within a file more often than a rule changes its file; a test is held to the letter.
            let cites = if is_test {
                found.iter().any(|(_, lines)| lines.iter().any(|l| l.contains(&citation)))
            } else {
                text.contains(&citation)
            };
            if !cites {
                problems.push(format!("{}: `{name}` in {file} does not cite it", row.statement));
            }
        }
    }
    fail_if_any(&problems);
}

/// Requirements and promises of docs/protocol.md: which there are, and what a cell without a test begins with.
const REQUIREMENTS: [(&str, usize); 2] = [("R", 88), ("G", 13)];
const WITHOUT_TEST: [&str; 5] = ["measured: ", "elsewhere: ", "said in ", "later", "out of scope"];

#[test]
fn requirements_of_messaging_name_tests_that_are_there() {
    let text = read(&root().join("docs/protocol.md"));
    let section =
        text.split("\n## ").find(|s| s.contains(". What shows it\n")).expect("docs/protocol.md, What shows it");
    let (mut problems, mut found) = (vec![], vec![]);
    for line in section.lines().filter(|l| l.starts_with("| R") || l.starts_with("| G")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, what, tested] = cells[..] else { panic!("three cells expected: {line}") };
        found.push(name.to_owned());
        let places = places(tested);
        if what.is_empty() || places.is_empty() && !WITHOUT_TEST.iter().any(|start| tested.starts_with(start)) {
            problems.push(format!("{name}: who shows it? `{tested}`"));
        }
        for (file, test) in places {
            let path = root().join(&file);
            let is_test = |(above, lines): &(usize, Vec<&str>)| lines[..*above].iter().any(|l| l.trim() == "#[test]");
            if !path.is_file() || !items(&read(&path), &test, &["fn"]).iter().any(is_test) {
                problems.push(format!("{name}: there is no test `{test}` in {file}"));
            }
        }
    }
    let wanted = REQUIREMENTS.iter().flat_map(|(letter, count)| (1..=*count).map(move |n| format!("{letter}{n}")));
    assert_eq!(found, wanted.collect::<Vec<_>>(), "docs/protocol.md, What shows it: each once, in order");
    fail_if_any(&problems);
}

#[test]
fn citations_name_statements_of_the_table() {
    let known: BTreeSet<String> = rows().into_iter().map(|r| r.statement).collect();
    let mut problems = vec![];
    for room in ["broker", "device-sdk", "tests"] {
        for file in files(room, ".rs") {
            let text = read(&root().join(&file));
            for (number, line) in text.lines().enumerate() {
                for id in citations(line).iter().filter(|id| !known.contains(**id)) {
                    problems.push(format!("{file}:{}: there is no statement [{id}]", number + 1));
                }
            }
        }
    }
    fail_if_any(&problems);
}

/// The targets of Markdown links, without those of code blocks.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = vec![];
    let mut code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            if let Some(end) = line[at + 2..].find(')') {
                found.push((number + 1, &line[at + 2..at + 2 + end]));
            }
        }
        // Documents and files are also named in backquotes, by their path from the root.
        for quoted in line.split('`').skip(1).step_by(2) {
            let path = ["docs/", "broker/", "device-sdk/", "tests/"].iter().any(|room| quoted.starts_with(room));
            let ending = [".md", ".toml", ".json", ".rs", ".sh", ".service"].iter().any(|end| quoted.ends_with(end));
            if path && ending && !quoted.contains(['<', '*', ' ', ':', '…']) {
                found.push((number + 1, quoted));
            }
        }
    }
    found
}

/// How headings are named in links.
fn anchors(text: &str) -> BTreeSet<String> {
    let heading = |line: &str| {
        let title = line.strip_prefix('#')?.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
    };
    text.lines().filter_map(heading).collect()
}

#[test]
fn relative_links_lead_somewhere() {
    let mut documents = files("docs", ".md");
    documents.push("README.md".to_owned());
    let mut problems = vec![];
    for document in documents {
        let text = read(&root().join(&document));
        let directory = root().join(&document).parent().expect("a file lies in a directory").to_owned();
        for (number, link) in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let beside = if path.is_empty() { root().join(&document) } else { directory.join(path) };
            let Some(target) = [beside, root().join(path)].into_iter().find(|p| p.exists()) else {
                problems.push(format!("{document}:{number}: {link} leads nowhere"));
                continue;
            };
            if let Some(anchor) = anchor
                && target.is_file()
                && !anchors(&read(&target)).contains(anchor)
            {
                problems.push(format!("{document}:{number}: {link}: there is no such heading"));
            }
        }
    }
    fail_if_any(&problems);
}

#[test]
fn files_stay_short() {
    let mut problems = vec![];
    for file in ["broker", "device-sdk", "tests", "firmware-examples"].into_iter().flat_map(|room| files(room, ".rs")) {
        let lines = read(&root().join(&file)).lines().count();
        let allowed = LONG_FILES.iter().any(|(name, _)| *name == file);
        if lines > LINES_MAX && !allowed {
            problems.push(format!("{file} has {lines} lines; more than {LINES_MAX} need a reason in LONG_FILES"));
        }
    }
    for (file, reason) in LONG_FILES {
        assert!(!reason.is_empty(), "{file}: why?");
        if !root().join(file).is_file() {
            problems.push(format!("{file} is gone: take it from LONG_FILES"));
        }
    }
    fail_if_any(&problems);
}

/// The checks above are worth what these find.
mod checks {
    use super::*;

    #[test]
    fn wrong_citations_are_seen() {
        // No statement has the second number, so it is put together here.
        let text = format!("a [MQTT5-3.1.2-24] and `[MQTT3-{}]`, not [MQTT5-…] nor MQTT5-1.5.4-1", "9.9.9-9");
        let cited = citations(&text);
        assert_eq!(cited.into_iter().collect::<Vec<_>>(), ["MQTT3-9.9.9-9", "MQTT5-3.1.2-24"]);
    }

    #[test]
    fn items_are_found_with_their_comments() {
        let text = "/// One [A].\n#[test]\nfn one() {\n    // [B]\n}\n\nfn one_more() {\n    // [C]\n}\n";
        let found = items(text, "one", &["fn"]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1.len()), (2, 5));
        assert!(found[0].1.iter().any(|l| l.contains("[B]")) && !found[0].1.iter().any(|l| l.contains("[C]")));
        assert!(items(text, "on", &["fn"]).is_empty() && items(text, "one", &["struct"]).is_empty());
    }

    #[test]
    fn places_are_spelt_out() {
        let found = places("client; checked in `core/hub/mod.rs::packet`, `tests/wire/will.rs::x`");
        assert_eq!(found[0], ("broker/core/src/hub/mod.rs".to_owned(), "packet".to_owned()));
        assert_eq!(found[1].0, "tests/tests/wire/will.rs");
        assert!(places("does not arise: `QoS` is fine").is_empty());
    }

    #[test]
    fn links_and_headings_are_found() {
        let text = "# A b, c!\nsee [x](docs/a.md#b) and `docs/no.md`\n```\n[y](z)\n```\n";
        assert_eq!(links(text), [(2, "docs/a.md#b"), (2, "docs/no.md")]);
        assert!(anchors(text).contains("a-b-c"));
    }
}
