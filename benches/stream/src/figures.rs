//! What was measured, as a table for people and as JSON for programs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::peer::Side;

/// What a measure is to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// The registry's figure is at most this.
    AtMost(f64),
    /// The registry's figure is at most this many times etcd's.
    TimesAtMost(f64),
    /// The registry's figure is at least this many times etcd's.
    TimesAtLeast(f64),
}

/// One measure of both, as often as it was repeated.
#[derive(Debug)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    target: Option<Target>,
    registry: Vec<f64>,
    etcd: Vec<f64>,
}

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    /// Takes in one repetition.
    pub(crate) fn add(&mut self, side: Side, name: &str, unit: &'static str, target: Option<Target>, value: f64) {
        let known = self.0.iter().position(|figure| figure.name == name);
        let place = known.unwrap_or_else(|| {
            self.0.push(Figure {
                name: name.to_owned(),
                unit,
                target,
                registry: Vec::new(),
                etcd: Vec::new(),
            });
            self.0.len() - 1
        });
        if let Some(figure) = self.0.get_mut(place) {
            match side {
                Side::Registry => figure.registry.push(value),
                Side::Etcd => figure.etcd.push(value),
            }
        }
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let head = format!(
            "{:<56} {:>10} {:>10} {:>7}  {:<12} {}\n",
            "", "registry", "etcd", "ratio", "target", "met"
        );
        self.0.iter().map(Figure::row).fold(head, |table, row| table + &row)
    }

    /// The same with every repetition.
    pub(crate) fn json(&self) -> Value {
        self.0.iter().map(Figure::json).collect()
    }
}

impl Figure {
    fn row(&self) -> String {
        let (registry, etcd) = (median(&self.registry), median(&self.etcd));
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let (target, met) = self.verdict();
        format!(
            "{:<56} {:>10} {:>10} {:>7}  {target:<12} {met}\n",
            format!("{} [{}]", self.name, self.unit),
            shown(registry),
            shown(etcd),
            shown(self.ratio()),
        )
    }

    /// The median of the pairs' ratios: each pair was measured right after each other.
    fn ratio(&self) -> Option<f64> {
        // The system counts time on a core in ticks: what took less has none.
        let pairs = self.registry.iter().zip(&self.etcd).filter(|(_, etcd)| **etcd > 0.0);
        median(&pairs.map(|(registry, etcd)| registry / etcd).collect::<Vec<_>>())
    }

    fn verdict(&self) -> (String, &'static str) {
        let (wanted, is_met) = match self.target {
            None => return (String::new(), ""),
            Some(Target::AtMost(limit)) => (
                format!("<= {limit}"),
                median(&self.registry).map(|value| value <= limit),
            ),
            Some(Target::TimesAtMost(limit)) => (format!("<= {limit} x"), self.ratio().map(|ratio| ratio <= limit)),
            Some(Target::TimesAtLeast(limit)) => (format!(">= {limit} x"), self.ratio().map(|ratio| ratio >= limit)),
        };
        let met = match is_met {
            None => "",
            Some(true) => "yes",
            Some(false) => "no",
        };
        (wanted, met)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": self.unit,
            "registry": self.registry,
            "etcd": self.etcd,
            "median": {"registry": median(&self.registry), "etcd": median(&self.etcd), "ratio": self.ratio()},
            "target": self.verdict().0,
            "met": self.verdict().1,
        })
    }
}

fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50)
}

/// The value that `percent` of all are not above.
pub(crate) fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied()
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_pairs() {
        let mut figures = Figures::default();
        for (registry, etcd) in [(1.0, 2.0), (9.0, 3.0), (2.0, 8.0), (1.0, 0.0)] {
            figures.add(Side::Registry, "n", "s", Some(Target::TimesAtMost(0.5)), registry);
            figures.add(Side::Etcd, "n", "s", None, etcd);
        }
        let figure = &figures.json()[0];
        assert_eq!(figure["median"]["ratio"], 0.5);
        assert_eq!(figure["met"], "yes");
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(
            [50, 99, 100, 1].map(|percent| percentile(&values, percent)),
            [3.0, 5.0, 5.0, 1.0].map(Some)
        );
        assert_eq!(percentile(&[], 50), None);
    }
}
