//! Figures of several rounds and roads as a table of medians and ratios.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::road::Kind;

/// What QUIC's figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Aim {
    Open,
    /// So many times TLS's figure.
    OfTls(f64),
    /// At most this.
    Most(f64),
}

#[derive(Debug)]
struct Row {
    name: String,
    values: BTreeMap<Kind, Vec<f64>>,
    aim: Aim,
}

/// Figures, in the order in which they were first seen.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Row>);

impl Table {
    /// One figure; `aim`: QUIC's is to be at most so many times TLS's.
    pub(super) fn add(&mut self, name: &str, kind: Kind, value: f64, aim: Option<f64>) {
        self.put(name, kind, value, aim.map_or(Aim::Open, Aim::OfTls));
    }

    /// One figure of which QUIC's is to be at most `most`.
    pub(super) fn add_most(&mut self, name: &str, kind: Kind, value: f64, most: f64) {
        self.put(name, kind, value, Aim::Most(most));
    }

    fn put(&mut self, name: &str, kind: Kind, value: f64, aim: Aim) {
        let at = self.0.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.0.push(Row { name: name.to_owned(), values: BTreeMap::new(), aim });
            self.0.len() - 1
        });
        self.0[at].values.entry(kind).or_default().push(value);
    }

    /// The table in Markdown; nothing when it is empty.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if self.0.is_empty() {
            return text;
        }
        text.push_str("\n| figure | TCP | TLS | QUIC | QUIC / TCP | QUIC / TLS | aim | met |\n");
        text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
        for row in &self.0 {
            let of = |kind: Kind| row.values.get(&kind).map(|values| median(values));
            let (tcp, tls, quic) = (of(Kind::Tcp), of(Kind::Tls), of(Kind::Quic));
            let ratio = |by: Option<f64>| Some(quic? / by?);
            let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), digits);
            let (aim, met) = match row.aim {
                Aim::Open => (String::new(), None),
                Aim::OfTls(most) => (format!("{most} of TLS"), ratio(tls).map(|found| found <= most)),
                Aim::Most(most) => (digits(most), quic.map(|found| found <= most)),
            };
            let met = met.map_or("", |met| if met { "yes" } else { "no" });
            let (by_tcp, by_tls) = (show(ratio(tcp)), show(ratio(tls)));
            let name = &row.name;
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {by_tcp} | {by_tls} | {aim} | {met} |",
                show(tcp),
                show(tls),
                show(quic)
            );
        }
        text
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        large if large >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ratios_and_aims() {
        let mut table = Table::default();
        for (kind, values) in
            [(Kind::Tcp, [1.0, 9.0, 2.0]), (Kind::Tls, [4.0, 4.0, 4.0]), (Kind::Quic, [8.0, 8.0, 1.0])]
        {
            for value in values {
                table.add("cpu", kind, value, Some(3.0));
                table.add_most("bytes", kind, value * 1000.0, 7_000.0);
            }
        }
        table.add("only QUIC", Kind::Quic, 123.4, None);
        let rows: Vec<String> = table.text().lines().skip(3).map(str::to_owned).collect();
        assert_eq!(rows[0], "| cpu | 2.00 | 4.00 | 8.00 | 4.00 | 2.00 | 3 of TLS | yes |");
        assert_eq!(rows[1], "| bytes | 2000 | 4000 | 8000 | 4.00 | 2.00 | 7000 | no |");
        assert_eq!(rows[2], "| only QUIC | - | - | 123 | - | - |  |  |");
        assert_eq!(Table::default().text(), "");
    }
}
