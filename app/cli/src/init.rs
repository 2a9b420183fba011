use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_crypto::{Secret, Suite, aws_lc};
use countersign_server::{
    Config, DataDir, DataError, Init as DataInit, NewDataDir, StartError, ambient, open_service,
    parse_tls_name,
};
use countersign_service::{Actor, NewToken, Service, ServiceError};
use countersign_store::Role;
use serde_json::json;

use crate::failure::Failure;
use crate::local;
use crate::output::Output;

/// Random bytes in a passphrase that nobody chose, and in a server id.
const PASSPHRASE_BYTES: usize = 24;
const SERVER_ID_BYTES: usize = 4;

/// Make a new data directory.
#[derive(Args)]
pub(crate) struct Init {
    /// The data directory to make; it must not exist, or be empty.
    #[arg(long, value_name = "DIR", default_value = "./countersign-data")]
    data: PathBuf,
    /// The suite of the devices' certificates and of their handshakes with this server: p256
    /// (X25519, P-256, AES-128-GCM, SHA-256) or sm2 (SM2, SM4-GCM, SM3). It is the server's for
    /// good. HTTPS is P-256 always.
    #[arg(long, value_name = "SUITE", default_value = "p256")]
    suite: Suite,
    /// File with the passphrase that is to protect the keys. Without it: a systemd credential, or
    /// a prompt on a terminal, or a random one that is left in the directory.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The server's id in its certificate, 1 to 64 characters of A-Z a-z 0-9 . _ - [default:
    /// random]
    #[arg(long, value_name = "ID")]
    server_id: Option<String>,
    /// A further name or address for the HTTPS certificate; localhost is always in it.
    #[arg(long, value_name = "NAME")]
    tls_name: Vec<String>,
    /// Use this PostgreSQL database: postgres://user@host:port/name [default: SQLite in the
    /// directory]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Write the admin token to this new file, outside the data directory, instead of printing it.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// What `init` made.
pub(crate) struct Made {
    pub(crate) data: PathBuf,
    pub(crate) server_id: String,
    pub(crate) token: NewToken,
}

impl Init {
    pub(crate) async fn run(self) -> Result<Output, Failure> {
        let (passphrase, kept) = self.passphrase()?;
        let config = Config { database: self.database, ..Config::default() };
        let mut token_file = match &self.admin_token_file {
            Some(path) => Some(TokenFile::create(path, &self.data)?),
            None => None,
        };
        let plan = Plan {
            suite: self.suite,
            server_id: self.server_id,
            tls_names: &self.tls_name,
            config: &config,
            passphrase: &passphrase,
            keep_passphrase: kept,
        };
        let made = make(&self.data, plan, token_file.as_mut()).await?;
        let passphrase_file = kept.then(|| made.data.join("passphrase"));
        let mut text = format!(
            "Data directory  {}\nServer id       {}\nSuite           {}\n",
            made.data.display(),
            made.server_id,
            self.suite
        );
        let shown = match &self.admin_token_file {
            Some(path) => {
                text += &format!("Admin token     in {}\n", path.display());
                None
            }
            None => {
                text += &format!(
                    "Admin token     {}\n                (shown once: keep it safe)\n",
                    *made.token.secret
                );
                Some(made.token.secret.as_str())
            }
        };
        if let Some(path) = &passphrase_file {
            text += &format!(
                "Passphrase      in {}\n                (random; move it out of the directory and \
                 start with --passphrase-file\n                or a systemd credential, so that a \
                 copy of the directory opens nothing)\n",
                path.display()
            );
        }
        text += &format!("Next            countersign serve --data {}", made.data.display());
        let json = json!({
            "data": made.data,
            "serverId": made.server_id,
            "suite": self.suite.name(),
            "adminToken": shown,
            "adminTokenFile": self.admin_token_file,
            "passphraseFile": passphrase_file,
        });
        Ok(Output::new(json, text))
    }

    /// The passphrase, and whether it was made up.
    fn passphrase(&self) -> Result<(Secret, bool), Failure> {
        if let Some(given) = local::given_passphrase(self.passphrase_file.as_deref())? {
            return Ok((given, false));
        }
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            let first = local::prompt("Passphrase for the keys: ")?;
            let again = local::prompt("Again: ")?;
            if !first.ct_eq(again.expose()) {
                return Err(Failure::usage("passphrase-differs", "the two passphrases differ"));
            }
            return Ok((first, false));
        }
        Ok((random_passphrase(), true))
    }
}

pub(crate) fn random_passphrase() -> Secret {
    Secret::new(random_text(PASSPHRASE_BYTES).into_bytes())
}

fn random_text(bytes: usize) -> String {
    let mut random = zeroize::Zeroizing::new(vec![0; bytes]);
    (ambient().rng)().fill_bytes(&mut random);
    data_encoding::HEXLOWER.encode(&random)
}

/// The new file for the admin token: it is there before anything else is made, so that no token is
/// made that cannot be kept, and goes again unless it was filled.
pub(crate) struct TokenFile {
    path: PathBuf,
    file: File,
    filled: bool,
}

impl TokenFile {
    fn create(path: &Path, data: &Path) -> Result<Self, Failure> {
        let refused = |detail| Err(Failure::usage("admin-token-file", detail));
        if path.starts_with(data) {
            return refused("the token file must lie outside the data directory".to_owned());
        }
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => Ok(Self { path: path.to_owned(), file, filled: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = path.display();
                refused(format!(
                    "{path} exists: remove it if it is left from an init that broke off"
                ))
            }
            Err(error) => Err(Failure::file(path, &error)),
        }
    }

    /// Has the token on the disk, the file's name too.
    fn fill(&mut self, token: &NewToken) -> Result<(), Failure> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut file = &self.file;
        file.write_all(token.secret.as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(parent.unwrap_or(Path::new(".")))?.sync_all())
            .map_err(|error| Failure::file(&self.path, &error))?;
        self.filled = true;
        Ok(())
    }

    /// The file goes: its token was never published.
    fn unfill(&mut self) {
        self.filled = false;
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        if !self.filled {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// What is to be made.
pub(crate) struct Plan<'a> {
    pub(crate) suite: Suite,
    /// Random if absent.
    pub(crate) server_id: Option<String>,
    pub(crate) tls_names: &'a [String],
    pub(crate) config: &'a Config,
    pub(crate) passphrase: &'a Secret,
    pub(crate) keep_passphrase: bool,
}

/// Makes the directory and the first operator, and has the operator's token in `token_file`.
///
/// In SQLite the operator is in the directory: it is published with everything else at once, after
/// the token is on the disk. A PostgreSQL database is not in it. The directory is published first
/// then, since keys that a database depends on must never be lost; the operator comes after it. A
/// crash or failure in between leaves a directory that is whole but has no operator, or an operator
/// whose token nobody knows: `operator add` and `operator token add` work on the directory without
/// a token, and the failure says which of them is next.
pub(crate) async fn make(
    target: &Path,
    plan: Plan<'_>,
    mut token_file: Option<&mut TokenFile>,
) -> Result<Made, Failure> {
    let server_id =
        plan.server_id.unwrap_or_else(|| format!("srv-{}", random_text(SERVER_ID_BYTES)));
    let standard = ["localhost", "127.0.0.1", "::1"];
    let tls_names: Vec<_> = standard
        .into_iter()
        .chain(plan.tls_names.iter().map(String::as_str))
        .map(parse_tls_name)
        .collect();
    let init = DataInit {
        passphrase: plan.passphrase,
        keep_passphrase: plan.keep_passphrase,
        server_id: &server_id,
        tls_names: &tls_names,
        config: plan.config,
    };
    let ambient = ambient();
    let provider = aws_lc::provider_of(plan.suite).ok_or_else(|| {
        Failure::usage("suite", format!("this program does not have the suite {}", plan.suite))
    })?;
    let now = ambient.clock.now();
    let new = NewDataDir::build(target, &init, &provider, now, &mut *(ambient.rng)())?;
    let building = DataDir::open(new.path())?;
    // A database that cannot be reached or is not ours refuses here, before anything is published.
    let (service, keys) = open_service(&building, plan.passphrase, None, &[]).await?;
    // In the directory from the first day, so that every copy of it has the same.
    building.make_storage_key(&keys).map_err(StartError::from)?;
    let mut keep = |token: &NewToken| token_file.as_mut().map_or(Ok(()), |file| file.fill(token));
    if plan.config.database.is_some() {
        let data = new.publish()?;
        let added = add_admin(&service).await;
        let token = added.map_err(|error| how_to_go_on(error.check(), error.into(), &data))?;
        keep(&token).map_err(|failure| how_to_go_on(ADMIN_TAKEN, failure, &data))?;
        return Ok(Made { data, server_id, token });
    }
    let token = add_admin(&service).await?;
    keep(&token)?;
    // The store's threads end by themselves, maybe only after the move. That is sound: what is
    // committed is on the disk, SQLite holds its files by descriptor, and a write-ahead log that
    // is still there moves with its database.
    drop(service);
    let published = new.publish();
    // It may fail after the move too: the token of what is there is kept.
    let taken = matches!(published, Err(DataError::NotEmpty(_)));
    let absent = taken || !target.join("config.toml").exists();
    if let Some(file) = token_file.filter(|_| absent) {
        file.unfill();
    }
    Ok(Made { data: published?, server_id, token })
}

/// The first operator's name, and the check that says that there is one.
const ADMIN: &str = "admin";
const ADMIN_TAKEN: &str = "operator-name-taken";

async fn add_admin(service: &Service) -> Result<NewToken, ServiceError> {
    let (_operator, token) = service.add_operator(&Actor::Console, ADMIN, &[Role::Admin]).await?;
    Ok(token)
}

/// The directory is made, but nobody has a token for it: says what to do.
fn how_to_go_on(check: &str, failure: Failure, data: &Path) -> Failure {
    let data = data.display();
    let next = if check == ADMIN_TAKEN {
        format!(
            "the database has an operator `{ADMIN}` whose token is not known here: \
             `countersign operator token add {ADMIN} --label first --data {data}` makes one"
        )
    } else {
        format!("`countersign operator add {ADMIN} --role admin --data {data}` makes the operator")
    };
    Failure { detail: format!("{data} is made, but {}; {next}", failure.detail), ..failure }
}
