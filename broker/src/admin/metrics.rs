//! Metrics, and their text form (Prometheus text format 0.0.4).

use std::fmt::Write as _;

/// One metric with all its samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Name, with unit last.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What the numbers mean.
    pub kind: MetricKind,
    /// One for each set of labels.
    pub samples: Vec<Sample>,
}

/// What the numbers of a metric mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises while the process lives.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// One value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: SampleValue,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum SampleValue {
    /// A count.
    Integer(u64),
    /// A measure.
    Float(f64),
    /// A histogram.
    Histogram {
        /// Upper bounds, ascending, and how many observations were at or below each (cumulative). `+Inf` is added.
        buckets: Vec<(f64, u64)>,
        /// Sum of all observations.
        sum: f64,
        /// How many there were.
        count: u64,
    },
}

impl Metric {
    /// A counter without samples yet.
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricKind::Counter, samples: Vec::new() }
    }

    /// A gauge without samples yet.
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricKind::Gauge, samples: Vec::new() }
    }

    /// A histogram without labels; buckets as in [`SampleValue::Histogram`].
    pub fn histogram(name: &'static str, help: &'static str, buckets: Vec<(f64, u64)>, sum: f64, count: u64) -> Self {
        let value = SampleValue::Histogram { buckets, sum, count };
        Self { name, help, kind: MetricKind::Histogram, samples: vec![Sample { labels: Vec::new(), value }] }
    }

    /// Adds a sample without labels.
    #[must_use]
    pub fn with(mut self, value: u64) -> Self {
        self.samples.push(Sample { labels: Vec::new(), value: SampleValue::Integer(value) });
        self
    }

    /// Adds a sample without labels.
    #[must_use]
    pub fn with_float(mut self, value: f64) -> Self {
        self.samples.push(Sample { labels: Vec::new(), value: SampleValue::Float(value) });
        self
    }

    /// Adds a sample with one label.
    #[must_use]
    pub fn labelled(mut self, label: &'static str, text: impl Into<String>, value: u64) -> Self {
        self.samples.push(Sample { labels: vec![(label, text.into())], value: SampleValue::Integer(value) });
        self
    }

    /// Adds a sample for each label value in `rows`.
    #[must_use]
    pub fn labelled_all<T: Into<String>>(self, label: &'static str, rows: impl IntoIterator<Item = (T, u64)>) -> Self {
        rows.into_iter().fold(self, |metric, (text, value)| metric.labelled(label, text, value))
    }
}

/// Renders metrics as text. Metrics without samples are left out.
pub fn render(metrics: &[Metric]) -> String {
    let mut out = String::new();
    for metric in metrics.iter().filter(|metric| !metric.samples.is_empty()) {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let help = metric.help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(out, "# HELP {} {help}", metric.name);
        let _ = writeln!(out, "# TYPE {} {kind}", metric.name);
        for sample in &metric.samples {
            write_sample(&mut out, metric.name, sample);
        }
    }
    out
}

fn write_sample(out: &mut String, name: &str, sample: &Sample) {
    match &sample.value {
        SampleValue::Integer(value) => {
            write_labels(out, name, "", &sample.labels, None);
            let _ = writeln!(out, " {value}");
        }
        SampleValue::Float(value) => {
            write_labels(out, name, "", &sample.labels, None);
            let _ = writeln!(out, " {}", number(*value));
        }
        SampleValue::Histogram { buckets, sum, count } => {
            for (bound, below) in buckets {
                write_labels(out, name, "_bucket", &sample.labels, Some(&number(*bound)));
                let _ = writeln!(out, " {below}");
            }
            write_labels(out, name, "_bucket", &sample.labels, Some("+Inf"));
            let _ = writeln!(out, " {count}");
            write_labels(out, name, "_sum", &sample.labels, None);
            let _ = writeln!(out, " {}", number(*sum));
            write_labels(out, name, "_count", &sample.labels, None);
            let _ = writeln!(out, " {count}");
        }
    }
}

fn write_labels(out: &mut String, name: &str, suffix: &str, labels: &[(&'static str, String)], bound: Option<&str>) {
    out.push_str(name);
    out.push_str(suffix);
    let labels = labels.iter().map(|(label, text)| (*label, text.as_str())).chain(bound.map(|bound| ("le", bound)));
    let mut open = false;
    for (label, text) in labels {
        out.push(if open { ',' } else { '{' });
        open = true;
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{label}=\"{text}\"");
    }
    if open {
        out.push('}');
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_read_as_prometheus_wants_them() {
        let metrics = [
            Metric::gauge("parlor_connections", "Connected clients.").with(3),
            Metric::counter("parlor_messages_received_total", "PUBLISH packets\nreceived.")
                .labelled_all("qos", [("0", 7), ("1", u64::MAX)]),
            Metric::counter("parlor_messages_dropped_total", "Nothing yet."),
            Metric::counter("x_total", "a \\ b").labelled("reason", "a\"b\\c\nd", 1),
            Metric::gauge("y", "Floats.").with_float(0.25).with_float(f64::INFINITY).with_float(f64::NAN),
            Metric::histogram("parlor_commit_seconds", "Commits.", vec![(0.001, 1), (0.25, 2)], 0.75, 3),
        ];
        assert_eq!(
            render(&metrics),
            r#"# HELP parlor_connections Connected clients.
# TYPE parlor_connections gauge
parlor_connections 3
# HELP parlor_messages_received_total PUBLISH packets\nreceived.
# TYPE parlor_messages_received_total counter
parlor_messages_received_total{qos="0"} 7
parlor_messages_received_total{qos="1"} 18446744073709551615
# HELP x_total a \\ b
# TYPE x_total counter
x_total{reason="a\"b\\c\nd"} 1
# HELP y Floats.
# TYPE y gauge
y 0.25
y +Inf
y NaN
# HELP parlor_commit_seconds Commits.
# TYPE parlor_commit_seconds histogram
parlor_commit_seconds_bucket{le="0.001"} 1
parlor_commit_seconds_bucket{le="0.25"} 2
parlor_commit_seconds_bucket{le="+Inf"} 3
parlor_commit_seconds_sum 0.75
parlor_commit_seconds_count 3
"#
        );
    }
}
