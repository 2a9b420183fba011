//! `reads`: what a device kept, and what a server knows of reads.

mod mask;
mod table;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_crypto::UnixTime;
use countersign_device::{Api, DeviceDir, JournalError, KeptRead, ReadJournal};
use countersign_idcard::record::IdRecord;
use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::device::Client;
use crate::failure::Failure;
use crate::output::Output;
use table::{Column, Format, Table};

/// Rows asked for at a time, as many as the server gives.
const PAGE: u32 = 200;
/// A read's row is made at most so long before its latest attempt begins.
const OLDEST_RETRY: time::Duration = time::Duration::days(1);

/// Columns of a device's kept reads.
const KEPT_COLUMNS: [Column; 26] = [
    ("entry", "entry"),
    ("at", "at"),
    ("source", "source"),
    ("documentType", "record.documentType"),
    ("name", "record.name"),
    ("chineseName", "record.chineseName"),
    ("englishName", "record.englishName"),
    ("sex", "record.sex"),
    ("nation", "record.nation.name"),
    ("nationCode", "record.nation.code"),
    ("country", "record.country"),
    ("birth", "record.birth"),
    ("address", "record.address"),
    ("idNumber", "record.idNumber"),
    ("number", "record.number"),
    ("passNumber", "record.passNumber"),
    ("oldNumberLink", "record.oldNumberLink"),
    ("issuer", "record.issuer"),
    ("authority", "record.authority"),
    ("version", "record.version"),
    ("issueCount", "record.issueCount"),
    ("renewalCount", "record.renewalCount"),
    ("validFrom", "record.validFrom"),
    ("validUntil", "record.validUntil"),
    ("photoBytes", "photoBytes"),
    ("fingerprintBytes", "fingerprintBytes"),
];
/// What an unmasked export has beside them.
const UNMASKED_COLUMNS: [Column; 2] = [("photo", "photo"), ("fingerprint", "fingerprint")];
/// Columns of a server's reads.
const SERVER_COLUMNS: [Column; 10] = [
    ("id", "id"),
    ("readerId", "readerId"),
    ("clientReadId", "clientReadId"),
    ("state", "state"),
    ("failedCheck", "failedCheck"),
    ("samId", "samId"),
    ("documentType", "documentType"),
    ("attempts", "attempts"),
    ("startedAt", "startedAt"),
    ("finishedAt", "finishedAt"),
];

/// Reads that were kept, or that a server knows of.
#[derive(Subcommand)]
pub(crate) enum Reads {
    /// Write the records that a device kept (device reader --keep), or the reads that a server
    /// knows of, which are without any personal data.
    ///
    /// Example: countersign reads export --device RD-1 --format csv --output reads.csv
    Export(Export),
    /// Erase the records that a device kept.
    ///
    /// Example: countersign reads erase --device RD-1
    Erase {
        /// The device's own directory.
        #[arg(long, value_name = "DIR", default_value = "./countersign-device")]
        device: PathBuf,
    },
}

/// Write reads.
#[derive(Args)]
pub(crate) struct Export {
    /// The directory of the device whose kept reads to write; without, the server is asked.
    #[arg(long, value_name = "DIR")]
    device: Option<PathBuf>,
    /// The form of the rows.
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
    /// Write to this new file, which only its owner may read; without, to stdout.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show all: names, numbers, addresses, birth dates; and the photo and fingerprint, in
    /// hexadecimal.
    #[arg(long, requires = "device")]
    unmasked: bool,
    /// The server's API, for instance https://localhost:8443; no proxy is used.
    #[arg(long, value_name = "URL", env = "COUNTERSIGN_SERVER")]
    server: Option<String>,
    /// The root of its HTTPS certificate, PEM (countersign ca export tls-root).
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CA")]
    ca: Option<PathBuf>,
    /// File with an operator's token.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Only the reads of this reader (rdr_…), of a server.
    #[arg(long, value_name = "ID", conflicts_with = "device")]
    reader: Option<String>,
    /// Only reads begun then or later (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = rfc3339)]
    since: Option<OffsetDateTime>,
}

fn rfc3339(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "a time as 2026-11-30T08:00:00Z (RFC 3339)".to_owned())
}

impl Reads {
    pub(crate) async fn run(self, json: bool) -> Result<Output, Failure> {
        // Files and a blocking client.
        let ran = tokio::task::spawn_blocking(move || match self {
            Self::Export(export) => export.run(json),
            Self::Erase { device } => erase(&device),
        });
        ran.await.map_err(|error| Failure::environment("task", error.to_string()))?
    }
}

fn erase(device: &Path) -> Result<Output, Failure> {
    let erased = ReadJournal::new(&DeviceDir::open(device)?).erase()?;
    Ok(Output::new(json!({ "erased": erased }), format!("{erased} kept reads erased")))
}

/// What an export came to.
#[derive(Default)]
struct Exported {
    count: u64,
    damaged: Vec<u64>,
    torn: bool,
}

impl Export {
    fn run(self, json: bool) -> Result<Output, Failure> {
        if json && self.output.is_none() {
            let detail = "with --json the rows need a file of their own: --output FILE";
            return Err(Failure::usage("output", detail));
        }
        let exported = match &self.device {
            Some(device) => self.kept(device)?,
            None => self.of_server()?,
        };
        Ok(self.told(&exported))
    }

    fn told(&self, exported: &Exported) -> Output {
        let mut json = json!({
            "exported": exported.count,
            "output": self.output,
        });
        let output = self.output.as_ref();
        let text = output.map_or_else(String::new, |path| {
            format!("{} reads written to {}", exported.count, path.display())
        });
        if exported.torn {
            let note = "a read that was being kept when the program died is cut off; it had not \
                        been reported as kept";
            eprintln!("note: {note}");
            json["torn"] = true.into();
        }
        if exported.damaged.is_empty() {
            return Output::new(json, text);
        }
        let numbers: Vec<_> = exported.damaged.iter().map(u64::to_string).collect();
        let detail = format!("damaged, and not written: kept read {}", numbers.join(", "));
        eprintln!("error: {detail} [reads-damaged]");
        json["damaged"] = json!(exported.damaged);
        json["error"] = json!({"check": "reads-damaged", "detail": detail});
        Output { refused: true, ..Output::new(json, text) }
    }

    fn kept(&self, device: &Path) -> Result<Exported, Failure> {
        let journal = ReadJournal::new(&DeviceDir::open(device)?);
        let entries = journal.entries()?;
        let mut columns = KEPT_COLUMNS.to_vec();
        if self.unmasked {
            columns.extend(UNMASKED_COLUMNS);
        }
        let mut table = Table::new(self.format, &columns, self.output.as_deref())?;
        let mut exported = Exported { torn: entries.is_torn(), ..Exported::default() };
        for (number, entry) in (1..).zip(entries) {
            let row = match entry {
                Ok(kept) if self.since.is_some_and(|since| time_of(kept.at) < since) => continue,
                Ok(kept) => self.kept_row(&kept),
                Err(JournalError::Damaged { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            match row {
                Some(row) => {
                    table.row(&row)?;
                    exported.count += 1;
                }
                None => exported.damaged.push(number),
            }
        }
        table.finish()?;
        Ok(exported)
    }

    /// A kept read as a row; none if its record does not parse.
    fn kept_row(&self, kept: &KeptRead) -> Option<Value> {
        let record = IdRecord::decode(kept.data.text()).ok()?;
        let Ok(Value::Object(mut record)) = serde_json::to_value(&record) else { return None };
        if !self.unmasked {
            mask::mask(&mut record);
        }
        let mut row = Map::new();
        row.insert("entry".into(), kept.number.into());
        row.insert("at".into(), time_of(kept.at).format(&Rfc3339).ok()?.into());
        row.insert("source".into(), kept.source.name().into());
        row.insert("record".into(), record.into());
        row.insert("photoBytes".into(), kept.data.photo().len().into());
        let fingerprint = kept.data.fingerprint();
        row.insert("fingerprintBytes".into(), fingerprint.map(<[u8]>::len).into());
        if self.unmasked {
            row.insert("photo".into(), HEXLOWER.encode(kept.data.photo()).into());
            row.insert("fingerprint".into(), fingerprint.map(|f| HEXLOWER.encode(f)).into());
        }
        Some(row.into())
    }

    fn of_server(&self) -> Result<Exported, Failure> {
        let api = self.api()?;
        // The first page before the file: a server that refuses leaves none.
        let mut page = self.page(&api, None)?;
        let mut table = Table::new(self.format, &SERVER_COLUMNS, self.output.as_deref())?;
        let mut exported = Exported::default();
        loop {
            let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
            let mut recent = false;
            for row in items {
                let began = row["startedAt"].as_str();
                let began = began.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
                let Some(began) = began else {
                    let detail = "the server's rows are not those of reads";
                    return Err(Failure::environment("server-answer", detail));
                };
                recent |= self.since.is_none_or(|since| began >= since - OLDEST_RETRY);
                if self.since.is_none_or(|since| began >= since) {
                    table.row(row)?;
                    exported.count += 1;
                }
            }
            // Newest first: after a page of old ones there are only older ones.
            let Some(next) = page["next"].as_str().filter(|_| recent) else { break };
            page = self.page(&api, Some(next))?;
        }
        table.finish()?;
        Ok(exported)
    }

    fn page(&self, api: &Api, cursor: Option<&str>) -> Result<Value, Failure> {
        let mut path = format!("/v1/reads?limit={PAGE}");
        for (name, value) in [("readerId", self.reader.as_deref()), ("cursor", cursor)] {
            if let Some(value) = value {
                path += &format!("&{name}={}", escaped(value));
            }
        }
        Ok(api.get(&path)?)
    }

    fn api(&self) -> Result<Api, Failure> {
        let (Some(server), Some(ca), Some(token_file)) = (&self.server, &self.ca, &self.token_file)
        else {
            let detail = "which reads? Give --device DIR, or --server URL with --ca FILE and \
                          --token-file FILE";
            return Err(Failure::usage("usage", detail));
        };
        Client { server: server.clone(), ca: ca.clone(), token_file: token_file.clone() }.api()
    }
}

fn time_of(time: UnixTime) -> OffsetDateTime {
    let nanos = i128::from(time.as_millis()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// For a query: everything but letters, digits and `-_.~` as `%XX`.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte.into());
        } else {
            out += &format!("%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_takes_no_more_than_one_value() {
        assert_eq!(escaped("rdr_01-2.3~"), "rdr_01-2.3~");
        assert_eq!(escaped("a&limit=1 #é"), "a%26limit%3D1%20%23%C3%A9");
    }
}
