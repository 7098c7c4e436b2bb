//! What is shipped beside the program refers to what the program has.

use super::tools::*;

fn shipped(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every long option of this command line is one the sub-command has.
fn check_command(line: &[&str]) {
    let (program, rest) = line.split_first().expect("a command");
    assert!(program.ends_with("parlor"), "{line:?}");
    let help = parlor(&[rest[0], "--help"]).ends(0).out;
    for option in rest.iter().filter(|word| word.starts_with("--")) {
        let name = option.split('=').next().unwrap_or_default();
        assert!(help.contains(&format!("{name} ")) || help.contains(&format!("{name}\n")), "{name} in {line:?}");
    }
}

/// The systemd unit starts, checks and reloads with commands that exist, and has time to stop.
#[test]
fn the_systemd_unit_is_right() {
    let unit = shipped("broker/packaging/parlor.service");
    let value = |key: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{key} in the unit"))
    };
    for key in ["ExecStart", "ExecStartPre"] {
        check_command(&value(key).split_whitespace().collect::<Vec<_>>());
    }
    assert_eq!(value("ExecReload"), "/bin/kill -HUP $MAINPID");
    assert_eq!(value("Type"), "notify");
    let seconds: u64 = value("TimeoutStopSec").parse().expect("seconds");
    assert!(seconds > 10, "longer than drain_secs");
    let files: u64 = value("LimitNOFILE").parse().expect("a number");
    assert!(files >= 2 * 50_000, "room for limits.connections_max");
    assert!(value("ExecStart").contains(" --config /etc/parlor/parlor.toml"));
}

/// The Dockerfile copies what exists and starts with options that exist.
#[test]
fn the_dockerfile_is_right() {
    let file = shipped("broker/packaging/Dockerfile");
    let list = |key: &str| -> Vec<String> {
        let line = file.lines().find_map(|line| line.strip_prefix(key)).expect("a list");
        serde_json::from_str(line).expect("a JSON list")
    };
    let (entry, command) = (list("ENTRYPOINT "), list("CMD "));
    let line: Vec<&str> = entry.iter().chain(&command).map(String::as_str).collect();
    check_command(&line);
    for line in file.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from") && *line != "COPY . .")
    {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        for source in &words[..words.len() - 1] {
            assert!(repository().join(source).exists(), "{source} is copied");
        }
    }
    for needed in ["USER parlor", "VOLUME /data", "STOPSIGNAL SIGTERM", "HEALTHCHECK"] {
        assert!(file.contains(needed), "{needed}");
    }
}

/// The example configuration is one, and with every key written out as well.
#[test]
fn the_example_is_a_configuration() {
    let example = repository().join("docs/parlor.example.toml").display().to_string();
    let said = parlor(&["check-config", &example]).ends(0);
    assert!(said.out.starts_with("OK\n") && said.err.is_empty(), "{said:?}");
}
