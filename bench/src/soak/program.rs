//! The machine: the server as a process, its modules on ptys, its devices' directories.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_device::{Api, DeviceDir, Uplink, enroll};
use countersign_emulator::{EmulatedSam, Faults, SamPty};
use countersign_server::ambient;
use serde_json::Value;
use testkit::loss::{Direction, Rates, Tally, UdpProxy};

use super::Plan;
use super::cards::scheme;
use crate::Fallible;
use crate::card_read::NO_RULES;

/// Modules at the server itself.
const MODULES: usize = 3;
/// What a module takes for each command.
const ANSWER_AFTER: Duration = Duration::from_millis(2);

/// Of the datagrams so many percent are dropped, as many damaged, doubled, swapped.
const LINK_TROUBLE_PERCENT: u32 = 3;

/// One module: a symbolic link that stays, a pty that comes and goes.
struct Plug {
    link: PathBuf,
    faults: Faults,
    pty: Option<SamPty>,
}

impl Plug {
    fn insert(&mut self, serial: usize) -> Fallible<()> {
        self.pty = None;
        self.faults.clear();
        let module = EmulatedSam::new(scheme(), u32::try_from(serial)?, self.faults.clone());
        let pty = SamPty::start_paced(module, (ambient().rng)(), ANSWER_AFTER)?;
        let fresh = self.link.with_extension("fresh");
        std::os::unix::fs::symlink(pty.path(), &fresh)?;
        fs::rename(&fresh, &self.link)?;
        self.pty = Some(pty);
        Ok(())
    }
}

/// Runs the program to its end and gives what it printed.
fn run(program: &Path, dir: &Path, words: &[&str]) -> Fallible<String> {
    let output = Command::new(program).args(words).current_dir(dir).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Starts a program that says as JSON where it listens.
fn start(mut command: Command, log: &Path) -> Fallible<(Child, Value)> {
    let mut child = command.stdout(Stdio::piped()).stderr(fs::File::create(log)?).spawn()?;
    let stdout = child.stdout.take().ok_or("no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((child, serde_json::from_str(&line)?))
}

/// `kill -9`, if it runs.
fn end(child: &Mutex<Option<Child>>) {
    if let Some(mut child) = lock(child).take() {
        let _gone = child.kill();
        let _reaped = child.wait();
    }
}

pub(super) struct Machine {
    dir: tempfile::TempDir,
    program: PathBuf,
    token: String,
    ca: String,
    ports: [u16; 2],
    /// Between the readers that speak over datagrams and the gateway; known once it listens.
    proxy: Option<UdpProxy>,
    plugs: Mutex<Vec<Plug>>,
    server: Mutex<Option<Child>>,
    sam_host: Mutex<Option<Child>>,
    /// The SAM host's port, once it has one.
    sam_host_port: u16,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    pub(super) async fn set_up(plan: &Plan) -> Fallible<Self> {
        let dir = tempfile::tempdir()?;
        let run = |words: &[&str]| {
            let output =
                Command::new(&plan.program).args(words).current_dir(dir.path()).output()?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
            }
            Fallible::Ok(String::from_utf8(output.stdout)?)
        };
        run(&["init", "--data", "data", "--admin-token-file", "admin.token"])?;
        let config = dir.path().join("data/config.toml");
        let off = fs::read_to_string(&config)?;
        let on = off.replace("plaintext_cache = false", "plaintext_cache = true");
        if on == off {
            return Err("config.toml has no plaintext_cache to turn on".into());
        }
        fs::write(&config, on)?;
        fs::write(dir.path().join("data/risk.toml"), NO_RULES)?;
        let ca = run(&["ca", "export", "--data", "data", "tls-root"])?;
        fs::write(dir.path().join("ca.pem"), &ca)?;
        let token = fs::read_to_string(dir.path().join("admin.token"))?;
        let plug = |number| {
            let link = dir.path().join(format!("sam{number}"));
            let mut plug = Plug { link, faults: Faults::none(), pty: None };
            plug.insert(number)?;
            Fallible::Ok(plug)
        };
        // The last one is the SAM host's.
        let plugs = (0..=MODULES).map(plug).collect::<Fallible<Vec<_>>>()?;
        let machine = Self {
            dir,
            program: plan.program.clone(),
            token,
            ca,
            ports: [0; 2],
            proxy: None,
            plugs: Mutex::new(plugs),
            server: Mutex::new(None),
            sam_host: Mutex::new(None),
            sam_host_port: 0,
        };
        machine.start(plan.seed)
    }

    /// The first start takes free ports and keeps them.
    fn start(mut self, seed: u64) -> Fallible<Self> {
        let said = self.start_server()?;
        let port = |name: &str| {
            let text = said[name].as_str().and_then(|url| url.rsplit(':').next());
            Fallible::Ok(text.ok_or("the server does not say where it listens")?.parse()?)
        };
        self.ports = [port("api")?, port("gateway")?];
        self.add_sam_host()?;
        let gateway = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[1]));
        self.proxy = Some(UdpProxy::start(gateway, Rates::all(LINK_TROUBLE_PERCENT), seed)?);
        Ok(self)
    }

    /// Enrols a SAM host, starts it, and tells the server of it.
    fn add_sam_host(&mut self) -> Fallible<()> {
        let url = format!("https://127.0.0.1:{}", self.ports[0]);
        let words = ["sam", "enroll", "--device", "samhost", "--serial", "SAMHOST-1"];
        let client = ["--server", &url, "--ca", "ca.pem", "--token-file", "admin.token"];
        run(&self.program, self.dir.path(), &[&words[..], &client].concat())?;
        let said = self.start_sam_host()?;
        let address = said["samHost"].as_str().ok_or("the SAM host does not say where it is")?;
        let port = address.rsplit(':').next().ok_or("an address has a port")?;
        self.sam_host_port = port.parse()?;
        let config = self.dir.path().join("data/config.toml");
        let mut text = fs::read_to_string(&config)?;
        text +=
            &format!("\n[[sam]]\nhost = \"127.0.0.1:{port}\"\nid = \"SAMHOST-1\"\nmodules = 1\n");
        fs::write(&config, text)?;
        self.kill_and_restart()
    }

    fn start_sam_host(&self) -> Fallible<Value> {
        let (port, sam) = (self.sam_host_port.to_string(), format!("sam{MODULES}"));
        let words = ["--json", "sam", "serve", "--device", "samhost", "--port", &port];
        let mut command = Command::new(&self.program);
        command.args(words).args(["--sam", &sam]).current_dir(self.dir.path());
        let (child, said) = start(command, &self.dir.path().join("samhost.log"))?;
        *lock(&self.sam_host) = Some(child);
        Ok(said)
    }

    /// `kill -9` of the SAM host, and up again on the same port.
    pub(super) fn kill_and_restart_sam_host(&self) -> Fallible<()> {
        end(&self.sam_host);
        self.start_sam_host()?;
        Ok(())
    }

    fn start_server(&self) -> Fallible<Value> {
        let [https, gateway] = self.ports.map(|port| port.to_string());
        let mut command = Command::new(&self.program);
        command.args(["--json", "serve", "--data", "data"]).current_dir(self.dir.path());
        command.args(["--https-port", &https, "--gateway-port", &gateway]);
        for number in 0..MODULES {
            command.args(["--sam", &format!("sam{number}")]);
        }
        let (child, said) = start(command, &self.dir.path().join("serve.log"))?;
        *lock(&self.server) = Some(child);
        Ok(said)
    }

    /// `kill -9`, and up again on the same ports.
    pub(super) fn kill_and_restart(&self) -> Fallible<()> {
        end(&self.server);
        self.start_server()?;
        Ok(())
    }

    /// Resident memory of the server, in bytes; none while it is down.
    pub(super) fn server_memory(&self) -> Option<u64> {
        let pid = lock(&self.server).as_ref()?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    /// How many modules there are, the SAM host's among them.
    pub(super) const fn modules() -> usize {
        MODULES + 1
    }

    /// Lets `work` do something to a module.
    pub(super) fn faults(&self, module: usize) -> Faults {
        lock(&self.plugs)[module].faults.clone()
    }

    /// Unplugs a module.
    pub(super) fn unplug(&self, module: usize) {
        lock(&self.plugs)[module].pty = None;
    }

    /// Plugs a module in (again).
    pub(super) fn plug_in(&self, module: usize) -> Fallible<()> {
        lock(&self.plugs)[module].insert(module)
    }

    pub(super) fn api(&self) -> Fallible<Api> {
        let url = format!("https://127.0.0.1:{}", self.ports[0]);
        Ok(Api::new(&url, &self.ca, &self.token)?)
    }

    /// Where this reader connects: over TCP, or over datagrams and a bad link.
    pub(super) fn uplink(&self, number: u32) -> Uplink {
        match &self.proxy {
            Some(proxy) if number % 2 == 1 => Uplink::Udp(proxy.address().to_string()),
            _ => Uplink::Tcp(format!("127.0.0.1:{}", self.ports[1])),
        }
    }

    /// What the bad link did on the way to the server, in datagrams.
    pub(super) fn link_tally(&self) -> Tally {
        self.proxy.as_ref().map(|proxy| proxy.tally(Direction::Forth)).unwrap_or_default()
    }

    /// A device's directory, enrolled.
    pub(super) async fn enroll(&self, serial: String) -> Fallible<DeviceDir> {
        let (api, path) = (self.api()?, self.dir.path().join(&serial));
        let enrolled = tokio::task::spawn_blocking(move || {
            let ambient = ambient();
            let provider = countersign_crypto::aws_lc::provider();
            let now = ambient.clock.now();
            enroll(&path, &serial, &api, &provider, now, &mut *(ambient.rng)())
        });
        Ok(enrolled.await??)
    }

    pub(super) fn stop(&self) {
        end(&self.server);
        end(&self.sam_host);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}
