use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use countersign_crypto::Secret;
use countersign_server::{
    Config, DataDir, Init as DataInit, NewDataDir, ambient, open_service, parse_tls_name,
};
use countersign_service::{Actor, NewToken};
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
    /// Write the admin token to this new file instead of printing it.
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
        let made =
            make(&self.data, self.server_id, &self.tls_name, &config, &passphrase, kept).await?;
        let passphrase_file = kept.then(|| made.data.join("passphrase"));
        let mut text = format!(
            "Data directory  {}\nServer id       {}\n",
            made.data.display(),
            made.server_id
        );
        let shown = match &self.admin_token_file {
            Some(path) => {
                local::write_private(path, made.token.secret.as_bytes())?;
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
        if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
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

/// Makes directory and first operator, and publishes both at once.
pub(crate) async fn make(
    target: &Path,
    server_id: Option<String>,
    tls_names: &[String],
    config: &Config,
    passphrase: &Secret,
    keep_passphrase: bool,
) -> Result<Made, Failure> {
    let server_id = server_id.unwrap_or_else(|| format!("srv-{}", random_text(SERVER_ID_BYTES)));
    let standard = ["localhost", "127.0.0.1", "::1"];
    let tls_names: Vec<_> = standard
        .into_iter()
        .chain(tls_names.iter().map(String::as_str))
        .map(parse_tls_name)
        .collect();
    let init = DataInit {
        passphrase,
        keep_passphrase,
        server_id: &server_id,
        tls_names: &tls_names,
        config,
    };
    let ambient = ambient();
    let provider = countersign_crypto::aws_lc::provider();
    let now = ambient.clock.now();
    let new = NewDataDir::build(target, &init, &provider, now, &mut *(ambient.rng)())?;
    let token = first_operator(new.path(), passphrase).await?;
    let data = new.publish()?;
    Ok(Made { data, server_id, token })
}

async fn first_operator(building: &Path, passphrase: &Secret) -> Result<NewToken, Failure> {
    let data = DataDir::open(building)?;
    let (service, _keys) = open_service(&data, passphrase, None, &[]).await?;
    let added = service.add_operator(&Actor::Console, "admin", &[Role::Admin]).await;
    // The store's threads end before the directory is renamed.
    drop(Arc::into_inner(service));
    let (_operator, token) = added?;
    Ok(token)
}
