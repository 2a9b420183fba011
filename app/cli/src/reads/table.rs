//! Rows as JSON Lines or CSV, to stdout or a new file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Characters at the beginning of a field by which a spreadsheet takes it for a formula; the last
/// four, of full width, in a Chinese or Japanese one.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// The form of an export.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated, with a line of names first.
    Csv,
}

/// A CSV column: its name, and where in a row it is (`outer.inner`: a member of a member).
pub(super) type Column = (&'static str, &'static str);

/// Where rows go.
pub(super) struct Table {
    lines: Lines,
    /// The file, removed again unless the table is finished.
    file: Option<PathBuf>,
}

enum Lines {
    Jsonl(BufWriter<Box<dyn Write>>),
    Csv { writer: Box<csv::Writer<Box<dyn Write>>>, columns: Vec<Column> },
}

impl Table {
    /// To this new file, private to its owner, or to stdout. CSV has these columns.
    pub(super) fn new(
        format: Format,
        columns: &[Column],
        output: Option<&Path>,
    ) -> Result<Self, Failure> {
        let to: Box<dyn Write> = match output {
            Some(path) => Box::new(new_file(path).map_err(|error| Failure::file(path, &error))?),
            None => Box::new(io::stdout()),
        };
        let lines = match format {
            Format::Jsonl => Lines::Jsonl(BufWriter::new(to)),
            Format::Csv => {
                let writer = Box::new(csv::Writer::from_writer(to));
                Lines::Csv { writer, columns: columns.to_vec() }
            }
        };
        let mut table = Self { lines, file: output.map(Path::to_owned) };
        if let Lines::Csv { writer, columns } = &mut table.lines {
            let names = columns.iter().map(|(name, _)| name);
            let written = writer.write_record(names).map_err(io::Error::from);
            table.written(written)?;
        }
        Ok(table)
    }

    /// One row, an object.
    pub(super) fn row(&mut self, row: &Value) -> Result<(), Failure> {
        let written = match &mut self.lines {
            Lines::Jsonl(to) => writeln!(to, "{row}"),
            Lines::Csv { writer, columns } => {
                let fields = columns.iter().map(|(_, path)| field(row, path));
                writer.write_record(fields).map_err(io::Error::from)
            }
        };
        self.written(written)
    }

    /// Everything is on its way, and a file on the disk.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let flushed = match &mut self.lines {
            Lines::Jsonl(to) => to.flush(),
            Lines::Csv { writer, .. } => writer.flush(),
        };
        self.written(flushed)?;
        if let Some(path) = &self.file {
            let synced = File::open(path).and_then(|file| file.sync_all());
            self.written(synced)?;
        }
        self.file = None;
        Ok(())
    }

    fn written(&self, written: io::Result<()>) -> Result<(), Failure> {
        written.map_err(|error| match &self.file {
            Some(path) => Failure::file(path, &error),
            None => Failure::environment("file", format!("stdout: {error}")),
        })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(path) = self.file.take() {
            // Half an export is none.
            let _gone = std::fs::remove_file(path);
        }
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A row's field as text; a spreadsheet shall not take it for a formula.
fn field(row: &Value, path: &str) -> String {
    let none = Map::new();
    let value = path.split('.').fold(row, |value, name| {
        value.as_object().unwrap_or(&none).get(name).unwrap_or(&Value::Null)
    });
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => return other.to_string(),
    };
    if text.starts_with(FORMULA) { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn csv_of(rows: &[Value]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        let columns = [("entry", "entry"), ("name", "record.name"), ("all", "absent.at.all")];
        let mut table = Table::new(Format::Csv, &columns, Some(&path)).unwrap();
        rows.iter().for_each(|row| table.row(row).unwrap());
        table.finish().unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn csv_is_quoted_and_no_field_is_a_formula() {
        let names =
            ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "＝x", "a,b", "a\"b", "a\nb", "'", "1-1"];
        let rows: Vec<_> = names.iter().map(|name| json!({"record": {"name": name}})).collect();
        let expected = "entry,name,all\n,'=1+1,\n,'+1,\n,'-1,\n,'@x,\n,'\tx,\n,\"'\rx\",\n,'＝x,\n\
                        ,\"a,b\",\n,\"a\"\"b\",\n,\"a\nb\",\n,',\n,1-1,\n";
        assert_eq!(csv_of(&rows), expected);
        // A number is one, also below zero.
        assert_eq!(csv_of(&[json!({"entry": -7})]), "entry,name,all\n-7,,\n");
        assert_eq!(csv_of(&[]), "entry,name,all\n");
    }

    #[test]
    fn a_file_is_new_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut table = Table::new(Format::Jsonl, &[], Some(&path)).unwrap();
        table.row(&json!({"a": 1})).unwrap();
        drop(table);
        assert!(!path.exists(), "half an export is none");
        let mut table = Table::new(Format::Jsonl, &[], Some(&path)).unwrap();
        table.row(&json!({"a": 1})).unwrap();
        table.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n");
        assert!(Table::new(Format::Jsonl, &[], Some(&path)).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n");
    }
}
