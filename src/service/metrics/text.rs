//! Metrics as text: `OpenMetrics` for scrapers that ask for it, else the older format of Prometheus.

use std::fmt;

use prometheus_client::{encoding::text::encode, registry::Registry};

/// A format of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) enum MetricsFormat {
    OpenMetrics,
    Prometheus,
}

impl MetricsFormat {
    /// The one that a scraper wants, by its header `accept`.
    pub(in crate::service) fn wanted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The content type.
    pub(in crate::service) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics, read now.
///
/// # Errors
///
/// When a metric cannot be written, which none of ours refuses.
pub(in crate::service) fn render(registry: &Registry, format: MetricsFormat) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(match format {
        MetricsFormat::OpenMetrics => text,
        MetricsFormat::Prometheus => to_prometheus(&text),
    })
}

/// `OpenMetrics` names the family of a counter without `_total` and ends with a mark; Prometheus does neither.
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
    fn a_counter_has_the_name_that_each_format_gives_it() {
        let open_metrics = "# HELP a Help.\n# TYPE a counter\na_total 1\n# HELP b Help.\n# TYPE b gauge\nb 1\n# EOF\n";
        assert_eq!(
            to_prometheus(open_metrics),
            "# HELP a_total Help.\n# TYPE a_total counter\na_total 1\n# HELP b Help.\n# TYPE b gauge\nb 1\n"
        );
    }

    #[test]
    fn a_scraper_gets_what_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
        assert_eq!(MetricsFormat::wanted(prometheus), MetricsFormat::OpenMetrics);
        assert_eq!(MetricsFormat::wanted("*/*"), MetricsFormat::Prometheus);
    }
}
