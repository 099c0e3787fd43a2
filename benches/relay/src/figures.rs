//! What was measured, as a table for people and as JSON for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a measure is to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// The router's figure is at most this.
    AtMost(f64),
    /// The router's figure is at most this many times that of who stands beside it.
    TimesAtMost(f64),
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// Who stands beside the router. Empty: nobody.
    pub(crate) beside: &'static str,
    pub(crate) target: Option<Target>,
}

/// One measure, as often as it was repeated.
#[derive(Debug)]
struct Figure {
    measured: Measured,
    router: Vec<f64>,
    beside: Vec<f64>,
}

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    all: Vec<Figure>,
    notes: BTreeMap<String, String>,
}

impl Figures {
    /// Takes in one repetition: the router, and who was measured right beside it.
    pub(crate) fn add(&mut self, measured: Measured, router: f64, beside: Option<f64>) {
        let known = self.all.iter_mut().find(|figure| figure.measured.name == measured.name);
        match known {
            Some(figure) => {
                figure.router.push(router);
                figure.beside.extend(beside);
            }
            None => self.all.push(Figure {
                measured,
                router: vec![router],
                beside: beside.into_iter().collect(),
            }),
        }
    }

    /// Takes down what a reader must know beside the figures: of each subject the last.
    pub(crate) fn note(&mut self, subject: &str, text: String) {
        self.notes.insert(subject.to_owned(), text);
    }

    /// What was noted.
    pub(crate) const fn notes(&self) -> &BTreeMap<String, String> {
        &self.notes
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let head = format!(
            "{:<62} {:>10} {:>10} {:>7}  {:<10} {:<4} {}\n",
            "", "router", "beside", "ratio", "target", "met", "beside is"
        );
        self.all.iter().map(Figure::row).fold(head, |table, row| table + &row)
    }

    /// The same with every repetition.
    pub(crate) fn json(&self) -> Value {
        self.all.iter().map(Figure::json).collect()
    }
}

impl Figure {
    fn row(&self) -> String {
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let (target, met) = self.verdict();
        let Measured { name, unit, beside, .. } = self.measured;
        format!(
            "{:<62} {:>10} {:>10} {:>7}  {target:<10} {met:<4} {beside}\n",
            format!("{name} [{unit}]"),
            shown(median(&self.router)),
            shown(median(&self.beside)),
            shown(self.ratio()),
        )
    }

    /// The median of the pairs' ratios: each pair was measured right after each other.
    fn ratio(&self) -> Option<f64> {
        let pairs = self.router.iter().zip(&self.beside);
        // The system counts time on a core in ticks, and a difference of two medians may be nothing.
        let ratios = pairs.filter(|(_, beside)| **beside > 0.0);
        median(&ratios.map(|(router, beside)| router / beside).collect::<Vec<_>>())
    }

    fn verdict(&self) -> (String, &'static str) {
        let (wanted, is_met) = match self.measured.target {
            None => return (String::new(), ""),
            Some(Target::AtMost(limit)) => (format!("<= {limit}"), median(&self.router).map(|value| value <= limit)),
            Some(Target::TimesAtMost(limit)) => (format!("<= {limit} x"), self.ratio().map(|ratio| ratio <= limit)),
        };
        let met = match is_met {
            None => "",
            Some(true) => "yes",
            Some(false) => "no",
        };
        (wanted, met)
    }

    fn json(&self) -> Value {
        let Measured { name, unit, beside, .. } = self.measured;
        let (target, met) = self.verdict();
        json!({
            "name": name,
            "unit": unit,
            "beside_is": beside,
            "router": self.router,
            "beside": self.beside,
            "median": {"router": median(&self.router), "beside": median(&self.beside), "ratio": self.ratio()},
            "target": target,
            "met": met,
        })
    }
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50)
}

/// The value that `percent` of all are not above.
pub(crate) fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_pairs() {
        let measured = Measured {
            name: "n",
            unit: "s",
            beside: "b",
            target: Some(Target::TimesAtMost(0.5)),
        };
        let mut figures = Figures::default();
        for (router, beside) in [(1.0, 2.0), (9.0, 3.0), (2.0, 8.0), (1.0, 0.0)] {
            figures.add(measured, router, Some(beside));
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
