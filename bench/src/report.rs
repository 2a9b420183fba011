//! Rows that compare one figure of ours with one of a peer, as JSON and as a table.

use serde_json::{Map, Value, json};

/// Significant decimal digits of a printed figure: more would be noise.
const DIGITS: i32 = 4;

/// What a ratio must keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    /// `ratio` may be this at most.
    AtMost(f64),
    /// `ratio` must be this at least.
    AtLeast(f64),
}

#[derive(Debug, Clone, PartialEq)]
struct Peer {
    name: String,
    theirs: f64,
    target: Option<Target>,
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
    /// A figure of ours; `unit` as `us`, `bytes`, `1/s`.
    pub(crate) fn new(name: impl Into<String>, ours: f64, unit: &'static str) -> Self {
        Self { name: name.into(), ours: rounded(ours), unit, peer: None }
    }

    /// Compares it with a peer's figure in the same unit.
    #[must_use]
    pub(crate) fn against(mut self, name: impl Into<String>, theirs: f64) -> Self {
        self.peer = Some(Peer { name: name.into(), theirs: rounded(theirs), target: None });
        self
    }

    /// The ratio is to be `bound` at most. Without a peer there is nothing to bound.
    #[must_use]
    pub(crate) fn at_most(self, bound: f64) -> Self {
        self.bounded(Target::AtMost(bound))
    }

    /// The ratio is to be `bound` at least.
    #[must_use]
    pub(crate) fn at_least(self, bound: f64) -> Self {
        self.bounded(Target::AtLeast(bound))
    }

    fn bounded(mut self, target: Target) -> Self {
        if let Some(peer) = &mut self.peer {
            peer.target = Some(target);
        }
        self
    }

    /// Ours through theirs; none without a peer, or if the peer's figure is zero.
    fn ratio(&self) -> Option<f64> {
        let theirs = self.peer.as_ref()?.theirs;
        if theirs == 0.0 { None } else { Some(rounded(self.ours / theirs)) }
    }

    fn target(&self) -> Option<Target> {
        self.peer.as_ref()?.target
    }

    fn met(&self) -> Option<bool> {
        let ratio = self.ratio()?;
        Some(match self.target()? {
            Target::AtMost(bound) => ratio <= bound,
            Target::AtLeast(bound) => ratio >= bound,
        })
    }

    fn to_json(&self) -> Value {
        let target = self.target().map(|target| match target {
            Target::AtMost(bound) | Target::AtLeast(bound) => bound,
        });
        let fields = [
            ("name", json!(self.name)),
            ("ours", json!(self.ours)),
            ("peer", json!(self.peer.as_ref().map(|peer| &peer.name))),
            ("theirs", json!(self.peer.as_ref().map(|peer| peer.theirs))),
            ("unit", json!(self.unit)),
            ("ratio", json!(self.ratio())),
            ("target", json!(target)),
            ("met", json!(self.met())),
        ];
        let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value));
        Value::Object(fields.collect::<Map<_, _>>())
    }

    fn cells(&self) -> [String; 7] {
        let figure = |figure: Option<f64>| figure.map_or("-".into(), |figure| figure.to_string());
        [
            self.name.clone(),
            format!("{} {}", self.ours, self.unit),
            figure(self.peer.as_ref().map(|peer| peer.theirs)),
            figure(self.ratio()),
            self.target().map_or("-".into(), |target| match target {
                Target::AtMost(bound) => format!("<= {bound}"),
                Target::AtLeast(bound) => format!(">= {bound}"),
            }),
            self.met().map_or("-", |met| if met { "yes" } else { "NO" }).into(),
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

/// What one bench found.
pub(crate) struct Report {
    /// The bench's name.
    pub(crate) bench: &'static str,
    /// Its comparisons.
    pub(crate) rows: Vec<Row>,
    /// What a reader of the table must know; not in the JSON.
    pub(crate) notes: Vec<String>,
}

impl Report {
    /// `{"bench":…,"rows":[…]}`.
    pub(crate) fn to_json(&self) -> Value {
        let rows: Vec<_> = self.rows.iter().map(Row::to_json).collect();
        json!({ "bench": self.bench, "rows": rows })
    }

    /// A table to read, then the notes.
    pub(crate) fn to_table(&self) -> String {
        let head = ["", "ours", "theirs", "ratio", "target", "met", "against"].map(String::from);
        let lines: Vec<_> = std::iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let mut widths = [0; 7];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for line in &lines {
            let mut cells = line.iter().zip(widths).enumerate().map(|(at, (cell, width))| {
                // Words to the left, figures to the right.
                if matches!(at, 0 | 6) {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            let joined = cells.by_ref().collect::<Vec<_>>().join("  ");
            text += joined.trim_end();
            text.push('\n');
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

    #[test]
    fn met_says_which_way_the_target_points() {
        let row = |ours| Row::new("cost", ours, "us").against("peer", 100.0);
        assert_eq!(row(35.0).at_most(0.35).met(), Some(true));
        assert_eq!(row(35.1).at_most(0.35).met(), Some(false));
        assert_eq!(row(133.0).at_least(1.33).met(), Some(true));
        assert_eq!(row(132.9).at_least(1.33).met(), Some(false));
        assert_eq!(row(35.0).met(), None);
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
        let report = Report { bench: "read", rows, notes: vec!["a note".into()] };
        assert_eq!(
            report.to_json().to_string(),
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
        let report = Report { bench: "read", rows, notes: vec!["a note".into()] };
        let table = report.to_table();
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[1].starts_with("cheap") && lines[1].contains("yes"), "{table}");
        assert!(lines[2].starts_with("dear") && lines[2].contains("NO"), "{table}");
        assert!(!lines[3].contains("yes") && !lines[3].contains("NO"), "{table}");
        assert_eq!(lines.last(), Some(&"a note"));
    }
}
