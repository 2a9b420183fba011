//! Rows that compare one figure of ours with one of a peer, as JSON and as a table.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::measure::median;

/// Significant decimal digits of a printed figure: more would be noise.
const DIGITS: i32 = 4;

#[derive(Debug, Clone, PartialEq)]
struct Peer {
    name: String,
    theirs: f64,
    target: Option<Bound>,
    paired: Option<Paired>,
}

/// Ratios of pairs of slices, taken in turns: what moves both sides of a pair moves none of them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Paired {
    median: f64,
    lowest: f64,
    highest: f64,
}

/// Which ratios meet a target.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    const fn figure(self) -> f64 {
        match self {
            Self::AtMost(bound) | Self::AtLeast(bound) => bound,
        }
    }

    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(bound) => ratio <= bound,
            Self::AtLeast(bound) => ratio >= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "<= {bound}"),
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
        }
    }
}

/// One comparison. Figures are rounded first; ratio and verdict follow from what is printed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    name: String,
    ours: f64,
    unit: &'static str,
    peer: Option<Peer>,
}

impl Row {
    /// A figure of ours; `unit` as `us`, `bytes`, `1/s`, or empty for a count.
    pub(crate) fn new(name: impl Into<String>, ours: f64, unit: &'static str) -> Self {
        Self { name: name.into(), ours: rounded(ours), unit, peer: None }
    }

    /// Compares it with a peer's figure in the same unit.
    #[must_use]
    pub(crate) fn against(mut self, name: impl Into<String>, theirs: f64) -> Self {
        let theirs = rounded(theirs);
        self.peer = Some(Peer { name: name.into(), theirs, target: None, paired: None });
        self
    }

    /// A figure that was taken in pairs with a peer's, ours first: the medians of both, and as
    /// ratio the median of the pairs' ratios, with the lowest and the highest of them.
    pub(crate) fn in_pairs(
        name: impl Into<String>,
        unit: &'static str,
        peer: impl Into<String>,
        pairs: &[(f64, f64)],
    ) -> Self {
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let ratios: Vec<_> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
        let mut row = Self::new(name, median(&ours), unit).against(peer, median(&theirs));
        if let Some(peer) = &mut row.peer {
            peer.paired = Some(Paired {
                median: rounded(median(&ratios)),
                lowest: rounded(ratios.iter().copied().fold(f64::INFINITY, f64::min)),
                highest: rounded(ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            });
        }
        row
    }

    /// The ratio is to be `bound` at most. Without a peer there is nothing to bound.
    #[must_use]
    pub(crate) fn at_most(self, bound: f64) -> Self {
        self.bounded(Bound::AtMost(bound))
    }

    /// The ratio is to be `bound` at least.
    #[must_use]
    pub(crate) fn at_least(self, bound: f64) -> Self {
        self.bounded(Bound::AtLeast(bound))
    }

    fn bounded(mut self, bound: Bound) -> Self {
        if let Some(peer) = &mut self.peer {
            peer.target = Some(bound);
        }
        self
    }

    fn paired(&self) -> Option<Paired> {
        self.peer.as_ref()?.paired
    }

    /// Ours through theirs; none without a peer, or if the peer's figure is zero.
    fn ratio(&self) -> Option<f64> {
        if let Some(paired) = self.paired() {
            return Some(paired.median);
        }
        let theirs = self.peer.as_ref()?.theirs;
        if theirs == 0.0 { None } else { Some(rounded(self.ours / theirs)) }
    }

    fn target(&self) -> Option<Bound> {
        self.peer.as_ref()?.target
    }

    fn met(&self) -> Option<bool> {
        Some(self.target()?.is_met(self.ratio()?))
    }

    fn to_json(&self) -> Value {
        let fields = [
            ("name", json!(self.name)),
            ("ours", json!(self.ours)),
            ("peer", json!(self.peer.as_ref().map(|peer| &peer.name))),
            ("theirs", json!(self.peer.as_ref().map(|peer| peer.theirs))),
            ("unit", json!(self.unit)),
            ("ratio", json!(self.ratio())),
            ("target", json!(self.target().map(Bound::figure))),
            ("met", json!(self.met())),
        ];
        let spread = self.paired().map(|paired| json!([paired.lowest, paired.highest]));
        let fields = fields.into_iter().chain(spread.map(|spread| ("spread", spread)));
        let fields = fields.map(|(key, value)| (key.to_owned(), value));
        Value::Object(fields.collect::<Map<_, _>>())
    }

    fn cells(&self) -> [String; 7] {
        let figure = |figure: Option<f64>| figure.map_or("-".into(), |figure| figure.to_string());
        [
            self.name.clone(),
            format!("{} {}", self.ours, self.unit).trim_end().into(),
            figure(self.peer.as_ref().map(|peer| peer.theirs)),
            match self.paired() {
                Some(Paired { median, lowest, highest }) => {
                    format!("{median} ({lowest} to {highest})")
                }
                None => figure(self.ratio()),
            },
            self.target().map_or("-".into(), |bound| bound.to_string()),
            self.met().map_or("", |met| if met { "met" } else { "missed" }).into(),
            self.peer.as_ref().map_or("-".into(), |peer| peer.name.clone()),
        ]
    }
}

/// To [`DIGITS`] significant digits; zero and what is no number stay as they are.
fn rounded(figure: f64) -> f64 {
    if figure == 0.0 || !figure.is_finite() {
        return figure;
    }
    // The decimal text is exact where scaling by a power of ten would not be.
    let digits = usize::try_from(DIGITS - 1).unwrap_or_default();
    format!("{figure:.digits$e}").parse().unwrap_or(figure)
}

/// Comparisons that belong together.
pub(crate) struct Section {
    /// What the table prints above them.
    pub(crate) title: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// What one bench found.
pub(crate) struct Report {
    /// The bench's name.
    pub(crate) bench: &'static str,
    /// Its comparisons.
    pub(crate) sections: Vec<Section>,
    /// What a reader of the table must know; not in the JSON.
    pub(crate) notes: Vec<String>,
}

impl Report {
    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sections.iter().flat_map(|section| &section.rows)
    }

    /// `{"bench":…,"rows":[…]}`.
    pub(crate) fn to_json(&self) -> Value {
        let rows: Vec<_> = self.rows().map(Row::to_json).collect();
        json!({ "bench": self.bench, "rows": rows })
    }

    /// A table to read, the verdicts counted, then the notes.
    pub(crate) fn to_table(&self) -> String {
        let head = ["", "ours", "theirs", "ratio", "target", "", "against"].map(String::from);
        let mut widths = head.clone().map(|cell| cell.len());
        for cells in self.rows().map(Row::cells) {
            for (width, cell) in widths.iter_mut().zip(&cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        let line = |cells: &[String; 7]| {
            let cells = cells.iter().zip(widths).enumerate().map(|(at, (cell, width))| {
                // Words to the left, figures to the right.
                if matches!(at, 0 | 5 | 6) {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            let joined = cells.collect::<Vec<_>>().join("  ");
            format!("{}\n", joined.trim_end())
        };
        let mut text = line(&head);
        for Section { title, rows } in &self.sections {
            text += &format!("\n{title}\n");
            rows.iter().for_each(|row| text += &line(&row.cells()));
        }
        let count = |verdict| self.rows().filter(|row| row.met() == Some(verdict)).count();
        let (met, missed) = (count(true), count(false));
        if met + missed > 0 {
            text += &format!("\n{met} targets met, {missed} missed\n");
        }
        for note in &self.notes {
            text += &format!("\n{note}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: Vec<Row>) -> Report {
        let sections = vec![Section { title: "costs", rows }];
        Report { bench: "read", sections, notes: vec!["a note".into()] }
    }

    #[test]
    fn a_target_is_met_up_to_its_bound() {
        let row = |ours| Row::new("cost", ours, "us").against("peer", 100.0);
        assert_eq!(row(35.0).at_most(0.35).met(), Some(true));
        assert_eq!(row(35.1).at_most(0.35).met(), Some(false));
        assert_eq!(row(35.0).met(), None);
        assert_eq!(row(95.0).at_least(0.95).met(), Some(true));
        assert_eq!(row(94.9).at_least(0.95).met(), Some(false));
    }

    #[test]
    fn without_a_peer_there_is_no_ratio_and_no_verdict() {
        let row = Row::new("latency", 5.0, "us").at_most(1.0);
        assert_eq!((row.ratio(), row.target(), row.met()), (None, None, None));
        let zero = Row::new("bytes", 5.0, "bytes").against("nothing", 0.0).at_most(1.0);
        assert_eq!((zero.ratio(), zero.met()), (None, None));
        let nothing = Row::new("bytes", 0.0, "bytes").against("first read", 3000.0).at_most(0.0);
        assert_eq!((nothing.ratio(), nothing.met()), (Some(0.0), Some(true)));
    }

    #[test]
    fn pairs_are_judged_by_the_median_of_their_ratios() {
        // The machine slows down threefold in mid-run: the medians' ratio would say 0.75.
        let pairs = [(60.0, 100.0), (20.0, 40.0), (60.0, 80.0)];
        let row = Row::in_pairs("payments", "1/s", "peer", &pairs).at_least(0.6);
        assert_eq!((row.ours, row.ratio(), row.met()), (60.0, Some(0.6), Some(true)));
        assert_eq!(
            row.to_json().to_string(),
            concat!(
                r#"{"name":"payments","ours":60.0,"peer":"peer","theirs":80.0,"unit":"1/s","#,
                r#""ratio":0.6,"target":0.6,"met":true,"spread":[0.5,0.75]}"#
            )
        );
        assert_eq!(row.cells()[3], "0.6 (0.5 to 0.75)");
        assert_eq!(
            Row::in_pairs("payments", "1/s", "peer", &pairs).at_least(0.61).met(),
            Some(false)
        );
    }

    #[test]
    fn what_is_printed_is_what_is_judged() {
        assert_eq!(rounded(0.010_000_4), 0.01);
        assert_eq!(rounded(123_456.0), 123_500.0);
        assert_eq!(rounded(0.0), 0.0);
        // Printed as ratio 0.01, so it must not be called missed.
        let row = Row::new("refusal", 1.000_04, "us").against("peer", 100.0).at_most(0.01);
        assert_eq!((row.ratio(), row.met()), (Some(0.01), Some(true)));
    }

    #[test]
    fn json_has_the_agreed_keys_in_order() {
        let rows = vec![
            Row::new("a", 1.0, "us").against("b", 2.0).at_most(0.9),
            Row::new("c", 3.0, "bytes"),
        ];
        assert_eq!(
            report(rows).to_json().to_string(),
            concat!(
                r#"{"bench":"read","rows":["#,
                r#"{"name":"a","ours":1.0,"peer":"b","theirs":2.0,"unit":"us","#,
                r#""ratio":0.5,"target":0.9,"met":true},"#,
                r#"{"name":"c","ours":3.0,"peer":null,"theirs":null,"unit":"bytes","#,
                r#""ratio":null,"target":null,"met":null}]}"#
            )
        );
    }

    #[test]
    fn the_table_shows_each_row_and_its_verdict() {
        let rows = vec![
            Row::new("cheap", 1.0, "us").against("peer", 2.0).at_most(0.9),
            Row::new("dear", 3.0, "us").against("peer", 2.0).at_most(0.9),
            Row::new("alone", 3.0, "us"),
        ];
        let table = report(rows).to_table();
        let line = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(line("cheap").contains(" met "), "{table}");
        assert!(line("dear").contains(" missed "), "{table}");
        let verdict = |line: &str| line.contains("met") || line.contains("missed");
        assert!(!verdict(line("alone")) && !verdict(line("costs")), "{table}");
        assert_eq!(line("1 targets"), "1 targets met, 1 missed");
        assert_eq!(table.lines().last(), Some("a note"));
    }
}
