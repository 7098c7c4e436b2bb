//! From the figures of all rounds to a table of medians and ratios, and to JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::brokers::Kind;
use crate::generator::Violations;
use crate::loads::{Aim, Load, Outcome};

/// All figures of a run of the bench.
#[derive(Debug, Default)]
pub struct Report {
    results: BTreeMap<(usize, Kind), Runs>,
}

#[derive(Debug, Default)]
struct Runs {
    outcomes: Vec<Outcome>,
    failures: Vec<String>,
}

impl Report {
    /// Adds what the load with this number in the list of loads gave in one round.
    pub fn add(&mut self, load: usize, kind: Kind, result: Result<Outcome, String>) {
        let runs = self.results.entry((load, kind)).or_default();
        match result {
            Ok(outcome) => runs.outcomes.push(outcome),
            Err(failure) => runs.failures.push(failure),
        }
    }

    /// The median of one figure, if the broker gave any.
    pub fn median(&self, load: usize, kind: Kind, measure: usize) -> Option<f64> {
        let runs = self.results.get(&(load, kind))?;
        median(runs.outcomes.iter().filter_map(|outcome| outcome.values.get(measure).copied()).collect())
    }

    /// The table in Markdown: medians, ratios to mosquitto, Parlor's aim and its ratio to the relay.
    pub fn table(&self, loads: &[Load], kinds: &[Kind]) -> String {
        let compared: Vec<Kind> = kinds.iter().copied().filter(|&kind| kind != Kind::Mosquitto).collect();
        let parlor = kinds.contains(&Kind::Parlor);
        let mut head = vec!["load".to_owned(), "figure".to_owned()];
        head.extend(kinds.iter().map(|kind| kind.name().to_owned()));
        if kinds.contains(&Kind::Mosquitto) {
            head.extend(compared.iter().map(|kind| format!("{} / mosquitto", kind.name())));
        }
        if parlor && kinds.contains(&Kind::Relay) {
            head.push("parlor / relay (aim 1.5)".to_owned());
        }
        head.push("aim".to_owned());
        if parlor {
            head.push("met".to_owned());
        }
        let mut rows = vec![head];
        for (number, load) in loads.iter().enumerate() {
            for (at, measure) in load.measures.iter().enumerate() {
                let value = |kind| self.median(number, kind, at);
                let mut row = vec![load.name.to_owned(), format!("{}, {}", measure.name, measure.unit)];
                row.extend(kinds.iter().map(|&kind| figure(value(kind))));
                if kinds.contains(&Kind::Mosquitto) {
                    row.extend(compared.iter().map(|&kind| figure(ratio(value(kind), value(Kind::Mosquitto)))));
                }
                if parlor && kinds.contains(&Kind::Relay) {
                    row.push(figure(ratio(value(Kind::Parlor), value(Kind::Relay))));
                }
                row.push(match measure.aim {
                    Aim::OfMosquitto(most) => format!("{most} of mosquitto"),
                    Aim::AtMost(most) => format!("{most}"),
                    Aim::Open => String::new(),
                });
                if parlor {
                    row.push(self.verdict(number, at, measure.aim));
                }
                rows.push(row);
            }
        }
        markdown(&rows)
    }

    fn verdict(&self, load: usize, measure: usize, aim: Aim) -> String {
        let value = self.median(load, Kind::Parlor, measure);
        let (reached, most) = match aim {
            Aim::OfMosquitto(most) => (ratio(value, self.median(load, Kind::Mosquitto, measure)), most),
            Aim::AtMost(most) => (value, most),
            Aim::Open => return String::new(),
        };
        match reached {
            None => "-".to_owned(),
            Some(reached) if reached <= most => "yes".to_owned(),
            Some(reached) => format!("no, {:.2} times the aim", reached / most),
        }
    }

    /// One line per broker and load whose messages were lost, late or foreign, or that failed.
    pub fn complaints(&self, loads: &[Load]) -> Vec<(Kind, String)> {
        let mut lines = vec![];
        for (&(load, kind), runs) in &self.results {
            let name = format!("{} {}", kind.name(), loads[load].name);
            let mut sum = Violations::default();
            for outcome in &runs.outcomes {
                sum.lost += outcome.violations.lost;
                sum.late += outcome.violations.late;
                sum.foreign += outcome.violations.foreign;
                sum.acks += outcome.violations.acks;
            }
            if sum != Violations::default() {
                lines.push((
                    kind,
                    format!(
                        "{name}: {} lost, {} late or doubled, {} foreign, {} acknowledgements missing or out of order",
                        sum.lost, sum.late, sum.foreign, sum.acks
                    ),
                ));
            }
            lines.extend(runs.failures.iter().map(|failure| (kind, format!("{name}: {failure}"))));
        }
        lines
    }

    /// All figures of all rounds as JSON.
    pub fn json(&self, loads: &[Load]) -> String {
        let mut rows = vec![];
        for (&(number, kind), runs) in &self.results {
            for (at, measure) in loads[number].measures.iter().enumerate() {
                let values: Vec<f64> = runs.outcomes.iter().filter_map(|out| out.values.get(at).copied()).collect();
                let list: Vec<String> = values.iter().map(|&value| json_number(value)).collect();
                rows.push(format!(
                    r#"    {{"load": "{}", "broker": "{}", "figure": "{}", "unit": "{}", "median": {}, "rounds": [{}]}}"#,
                    loads[number].name,
                    kind.name(),
                    measure.name,
                    measure.unit,
                    median(values).map_or("null".to_owned(), json_number),
                    list.join(", ")
                ));
            }
        }
        let complaints: Vec<String> =
            self.complaints(loads).iter().map(|(_, line)| format!("    {}", json_string(line))).collect();
        format!(
            "{{\n  \"figures\": [\n{}\n  ],\n  \"complaints\": [\n{}\n  ]\n}}\n",
            rows.join(",\n"),
            complaints.join(",\n")
        )
    }
}

fn json_number(value: f64) -> String {
    if value.is_finite() { format!("{value}") } else { "null".to_owned() }
}

fn json_string(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if u32::from(letter) < 0x20 => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

fn ratio(value: Option<f64>, base: Option<f64>) -> Option<f64> {
    base.filter(|&base| base > 0.0).and_then(|base| value.map(|value| value / base))
}

/// Three significant digits, or a dash.
fn figure(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> =
        (0..columns).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, &width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for &width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::LOADS;

    fn outcome(cpu: f64, lost: u64) -> Outcome {
        Outcome { values: vec![cpu, 1.0], violations: Violations { lost, ..Violations::default() } }
    }

    #[test]
    fn the_median_stands_between_the_middle_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![f64::NAN]), None);
    }

    #[test]
    fn the_aim_is_judged_on_the_ratio_of_medians() {
        let mut report = Report::default();
        report.add(0, Kind::Mosquitto, Ok(outcome(10.0, 0)));
        report.add(0, Kind::Parlor, Ok(outcome(0.6, 0)));
        assert_eq!(report.verdict(0, 0, Aim::OfMosquitto(0.03)), "no, 2.00 times the aim");
        assert_eq!(report.verdict(0, 0, Aim::OfMosquitto(0.07)), "yes");
        assert_eq!(report.verdict(1, 0, Aim::OfMosquitto(0.07)), "-");
        let table = report.table(&LOADS[..1], &[Kind::Mosquitto, Kind::Parlor]);
        assert!(table.contains("| 0.0600 "), "{table}");
    }

    #[test]
    fn losses_and_failures_are_told() {
        let mut report = Report::default();
        report.add(0, Kind::Rumqttd, Ok(outcome(1.0, 3)));
        report.add(0, Kind::Rumqttd, Err("a \"quoted\"\nline".to_owned()));
        let complaints = report.complaints(LOADS);
        assert_eq!(complaints.len(), 2);
        assert!(complaints[0].1.starts_with("rumqttd fan-in-qos0: 3 lost"));
        assert!(report.json(LOADS).contains(r#"a \"quoted\"\u000aline"#));
    }
}
