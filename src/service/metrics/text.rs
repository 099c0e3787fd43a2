//! Formats metrics as text: as `OpenMetrics` for scrapers that ask for it, otherwise in the older format of Prometheus.

use std::fmt;

use prometheus_client::{encoding::text::encode, registry::Registry};

/// A text format for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) enum MetricsFormat {
    OpenMetrics,
    Prometheus,
}

impl MetricsFormat {
    /// Returns the format that a scraper asks for in its header `accept`.
    pub(in crate::service) fn wanted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The content type of the format.
    pub(in crate::service) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Reads all metrics and formats them.
///
/// # Errors
///
/// If a metric fails to encode itself, which no metric of this project does.
pub(in crate::service) fn render(registry: &Registry, format: MetricsFormat) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(match format {
        MetricsFormat::OpenMetrics => text,
        MetricsFormat::Prometheus => to_prometheus(&text),
    })
}

/// Converts `OpenMetrics` to the format of Prometheus: adds `_total` to the names of counters in `HELP` and `TYPE`
/// lines, and removes the line `# EOF`.
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        if let Some(rest) = line.strip_prefix("# HELP ")
            && lines.peek().is_some_and(|next| is_counter(next))
            && let Some((name, help)) = rest.split_once(' ')
        {
            text.extend(["# HELP ", name, "_total ", help]);
        } else if is_counter(line) {
            text.extend([line.trim_end_matches(" counter"), "_total counter"]);
        } else if line == "# EOF" {
            continue;
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_renamed_for_the_format_of_prometheus() {
        let open_metrics = "# HELP a Help.\n# TYPE a counter\na_total 1\n# HELP b Help.\n# TYPE b gauge\nb 1\n# EOF\n";
        assert_eq!(
            to_prometheus(open_metrics),
            "# HELP a_total Help.\n# TYPE a_total counter\na_total 1\n# HELP b Help.\n# TYPE b gauge\nb 1\n"
        );
    }

    #[test]
    fn a_scraper_gets_the_format_that_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
        assert_eq!(MetricsFormat::wanted(prometheus), MetricsFormat::OpenMetrics);
        assert_eq!(MetricsFormat::wanted("*/*"), MetricsFormat::Prometheus);
    }
}
