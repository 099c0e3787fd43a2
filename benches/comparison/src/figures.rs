//! The results of a benchmark, as a table for people and as JSON for programs.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, json};

/// The target of a measure.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// The value of the first column is at most this.
    AtMost(f64),
    /// The value of the first column is at most this many times the second column's.
    TimesAtMost(f64),
    /// The value of the first column is at least this many times the second column's.
    TimesAtLeast(f64),
}

/// A measure.
#[derive(Debug, Clone)]
pub struct Measured {
    /// A name that no other measure has.
    pub name: Cow<'static, str>,
    /// The unit of its values.
    pub unit: &'static str,
    /// The subject of the second column, if it differs between measures; empty otherwise.
    pub beside: &'static str,
    /// `None`: the measure has no target.
    pub target: Option<Target>,
}

/// The column of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// The server that the target applies to.
    First,
    /// The server that it is compared with.
    Second,
}

/// One measure with its repetitions.
#[derive(Debug)]
struct Figure {
    measured: Measured,
    /// The values of each column, one per repetition.
    first: Vec<f64>,
    second: Vec<f64>,
}

/// All figures, in the order in which they were first added.
#[derive(Debug)]
pub struct Figures {
    columns: [&'static str; 2],
    decimals: usize,
    all: Vec<Figure>,
    notes: BTreeMap<String, String>,
}

impl Figures {
    /// Creates an empty set of figures. The table shows this many decimals.
    #[must_use]
    pub const fn new(columns: [&'static str; 2], decimals: usize) -> Self {
        Self {
            columns,
            decimals,
            all: Vec::new(),
            notes: BTreeMap::new(),
        }
    }

    /// Adds the value of one repetition to a column.
    pub fn add(&mut self, measured: &Measured, column: Column, value: f64) {
        let known = self.all.iter().position(|figure| figure.measured.name == measured.name);
        let index = known.unwrap_or_else(|| {
            self.all.push(Figure {
                measured: measured.clone(),
                first: Vec::new(),
                second: Vec::new(),
            });
            self.all.len() - 1
        });
        if let Some(figure) = self.all.get_mut(index) {
            match column {
                Column::First => figure.first.push(value),
                Column::Second => figure.second.push(value),
            }
        }
    }

    /// Adds the values of one repetition to both columns, or only to the first if there is nothing to compare it with.
    pub fn add_both(&mut self, measured: &Measured, first: f64, second: Option<f64>) {
        self.add(measured, Column::First, first);
        if let Some(second) = second {
            self.add(measured, Column::Second, second);
        }
    }

    /// Records a remark for the reader. A later remark on the same subject replaces an earlier one.
    pub fn note(&mut self, subject: &str, text: String) {
        self.notes.insert(subject.to_owned(), text);
    }

    /// Returns the remarks by subject.
    #[must_use]
    pub const fn notes(&self) -> &BTreeMap<String, String> {
        &self.notes
    }

    /// Formats all figures as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let [first, second] = self.columns.map(str::to_owned);
        let names = self.all.iter().map(|figure| figure.title().chars().count());
        let width = names.max().unwrap_or_default();
        let head = ["", &first, &second, "ratio", "target", "met", "compared with"].map(str::to_owned);
        let mut rows = vec![head];
        rows.extend(self.all.iter().map(|figure| figure.cells(self.decimals)));
        let has_beside = self.all.iter().any(|figure| !figure.measured.beside.is_empty());
        let lines = rows.iter().map(|[name, first, second, ratio, target, met, beside]| {
            let beside = if has_beside { beside } else { "" };
            let line = format!("{name:<width$} {first:>10} {second:>10} {ratio:>7}  {target:<10} {met:<4} {beside}");
            format!("{}\n", line.trim_end())
        });
        lines.collect()
    }

    /// Returns all figures with every repetition as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        self.all.iter().map(|figure| figure.json(self.columns)).collect()
    }
}

impl Figure {
    fn title(&self) -> String {
        format!("{} [{}]", self.measured.name, self.measured.unit)
    }

    fn cells(&self, decimals: usize) -> [String; 7] {
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"));
        let (target, met) = self.verdict();
        [
            self.title(),
            shown(median(&self.first)),
            shown(median(&self.second)),
            shown(self.ratio()),
            target,
            met.to_owned(),
            self.measured.beside.to_owned(),
        ]
    }

    /// Returns the median of the ratios of the pairs. The two values of a pair were measured one right after the other.
    fn ratio(&self) -> Option<f64> {
        let pairs = self.first.iter().zip(&self.second);
        // The system counts CPU time in ticks, so a short time can be 0.
        let ratios = pairs.filter(|(_, second)| **second > 0.0);
        median(&ratios.map(|(first, second)| first / second).collect::<Vec<_>>())
    }

    fn verdict(&self) -> (String, &'static str) {
        let (wanted, is_met) = match self.measured.target {
            None => return (String::new(), ""),
            Some(Target::AtMost(limit)) => (format!("<= {limit}"), median(&self.first).map(|value| value <= limit)),
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

    fn json(&self, [first, second]: [&str; 2]) -> Value {
        let Measured { name, unit, beside, .. } = &self.measured;
        let (target, met) = self.verdict();
        let mut figure = Map::new();
        figure.insert("name".to_owned(), json!(name));
        figure.insert("unit".to_owned(), json!(unit));
        figure.insert("beside_is".to_owned(), json!(beside));
        figure.insert(first.to_owned(), json!(self.first));
        figure.insert(second.to_owned(), json!(self.second));
        let medians = json!({first: median(&self.first), second: median(&self.second), "ratio": self.ratio()});
        figure.insert("median".to_owned(), medians);
        figure.insert("target".to_owned(), json!(target));
        figure.insert("met".to_owned(), json!(met));
        Value::Object(figure)
    }
}

/// Returns the median, or `None` if there are no values.
fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 50)
}

/// Returns a percentile by the nearest-rank method, or `None` if there are no values.
#[must_use]
pub fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(beside: &'static str) -> Figures {
        let measured = Measured {
            name: "time".into(),
            unit: "s",
            beside,
            target: Some(Target::TimesAtMost(0.5)),
        };
        let mut figures = Figures::new(["router", "beside"], 2);
        for (first, second) in [(1.0, 2.0), (9.0, 3.0), (2.0, 8.0), (1.0, 0.0), (1.0, 0.0)] {
            figures.add_both(&measured, first, Some(second));
        }
        figures
    }

    #[test]
    fn a_ratio_is_the_median_of_the_pairs() {
        let figure = &figures("").json()[0];
        assert_eq!(figure["median"]["ratio"], 0.5);
        assert_eq!(figure["met"], "yes");
    }

    #[test]
    fn a_table_has_a_row_for_each_measure() {
        let expected = "
             router     beside   ratio  target     met  compared with
time [s]       1.00       2.00    0.50  <= 0.5 x   yes  the relay
";
        assert_eq!(figures("the relay").table(), expected.trim_start_matches('\n'));
        assert!(!figures("").table().contains("compared with"));
    }

    #[test]
    fn percentiles_are_measured_values() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(
            [50, 99, 100, 1].map(|percent| percentile(&values, percent)),
            [3.0, 5.0, 5.0, 1.0].map(Some)
        );
        assert_eq!(percentile(&[], 50), None);
    }
}
