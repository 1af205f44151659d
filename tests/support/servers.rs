//! Real servers for tests: each on a unix socket and in a folder of its own, killed when it goes out of scope.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::{Client, Connection};
use tempfile::TempDir;

use crate::client::Ask;
use crate::clock::{Clock, faketime_library};
use crate::modules::{module, root};
use crate::waiting::PATIENCE;

/// The server under test; `RATELIMIT_SERVER` names another one.
pub fn server_program() -> String {
    std::env::var("RATELIMIT_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// What a server calls itself: `Valkey 9.1.2`.
pub fn label(program: &str) -> String {
    let output = Command::new(program).arg("--version").output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (kind, rest) = text.split_once(" server v=").unwrap_or_else(|| panic!("{program} --version: {text}"));
    format!("{kind} {}", rest.split(' ').next().unwrap_or_default())
}

/// Servers that scripts/servers.sh has fetched, each version once: what they call themselves, and their programs.
pub fn fetched() -> Vec<(String, String)> {
    let folder = root().join("target/servers/");
    let mut find = Command::new("find");
    find.arg(folder).args(["-type", "f", "-perm", "-u+x", "-not", "-path", "*/source-*"]);
    let output = find.args(["(", "-name", "redis-server", "-o", "-name", "valkey-server", ")"]).output().unwrap();
    let mut servers: Vec<(String, String)> =
        String::from_utf8_lossy(&output.stdout).lines().map(|path| (label(path), path.to_owned())).collect();
    servers.sort();
    servers.dedup_by(|one, other| one.0 == other.0);
    servers
}

/// A port of the loopback interface that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// CPU time of a process's first thread, which executes the commands of a server.
pub fn cpu_time(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// What to start. The defaults are a server with the module, on a unix socket, that saves nothing.
#[derive(Clone)]
pub struct Setup {
    program: String,
    module: Option<PathBuf>,
    args: Vec<String>,
    configuration: Option<PathBuf>,
    clock: Option<Clock>,
    tcp: bool,
    /// A tool of valgrind to run under, with its options.
    valgrind: &'static [&'static str],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            program: server_program(),
            module: Some(module()),
            args: Vec::new(),
            configuration: None,
            clock: None,
            tcp: false,
            valgrind: &[],
        }
    }
}

impl Setup {
    pub fn new() -> Self {
        Self::default()
    }

    /// Another server than the one under test.
    pub fn program(mut self, program: &str) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    pub fn without_module(mut self) -> Self {
        self.module = None;
        self
    }

    pub fn module(mut self, path: PathBuf) -> Self {
        self.module = Some(path);
        self
    }

    /// Adds options, as in `redis-server --save "" --appendonly yes`.
    pub fn args<S: ToString>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.to_string()));
        self
    }

    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// Listens on a free port of the loopback interface as well, which replication needs.
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Reads a configuration file first.
    pub fn configuration(mut self, file: &Path) -> Self {
        self.configuration = Some(file.to_owned());
        self
    }

    /// Counts instructions, into `callgrind.out` in the server's folder, once it has ended.
    pub fn under_callgrind(mut self) -> Self {
        self.valgrind = &["--tool=callgrind", "--callgrind-out-file=callgrind.out"];
        self
    }

    /// Watches every access to memory, and what is lost; the report is `valgrind.log` in the server's folder, once it has
    /// ended. Valgrind takes the place of whatever allocator the server is linked to.
    pub fn under_memcheck(mut self) -> Self {
        self.valgrind = &[
            "--tool=memcheck",
            "--leak-check=full",
            // Strings of the server are pointed to behind their header, which makes others only possible.
            "--show-leak-kinds=definite",
            "--errors-for-leak-kinds=definite",
            "--num-callers=40",
            // Names of functions also of a module that is no longer loaded.
            "--keep-debuginfo=yes",
            concat!("--suppressions=", env!("CARGO_MANIFEST_DIR"), "/../server/memcheck.supp"),
            "--log-file=valgrind.log",
        ];
        self
    }

    pub fn start(self) -> Server {
        let dir = tempfile::Builder::new().prefix("ratelimit-").tempdir().unwrap();
        self.start_in(dir)
    }

    /// Starts in a folder that may already hold an RDB or AOF. Another process may take the free port before the server
    /// does, so a server that ends at once is tried again.
    pub fn start_in(self, dir: TempDir) -> Server {
        let mut server = Server { child: None, dir, port: 0, setup: self };
        for _ in 0..5 {
            if server.launch() {
                return server;
            }
        }
        panic!("the server does not start:\n{}", server.log());
    }

    /// What a server writes that is expected to end instead of starting.
    pub fn does_not_start(self, dir: TempDir) -> String {
        let mut server = Server { child: None, dir, port: 0, setup: self };
        assert!(!server.launch(), "the server has started:\n{}", server.log());
        server.log()
    }
}

/// A running server.
pub struct Server {
    child: Option<Child>,
    dir: TempDir,
    pub port: u16,
    setup: Setup,
}

impl Server {
    pub fn start() -> Self {
        Setup::new().start()
    }

    /// How it was started.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    fn launch(&mut self) -> bool {
        let Setup { program, module, args, configuration, clock, tcp, valgrind } = &self.setup;
        if *tcp {
            self.port = free_port();
        }
        let mut command = Command::new(if valgrind.is_empty() { program } else { "valgrind" });
        command.current_dir(self.dir.path());
        if !valgrind.is_empty() {
            command.args(*valgrind).arg(program);
        }
        command.args(configuration);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--unixsocket", "server.sock", "--save", "", "--enable-debug-command", "yes"]);
        command.args(["--logfile", "server.log"]).args(args);
        if let Some(module) = module {
            command.arg("--loadmodule").arg(module);
        }
        if let Some(clock) = clock {
            // Debian's jemalloc and libfaketime wait for each other unless libc's allocator is put behind it.
            command.env("LD_PRELOAD", format!("{} libc.so.6", faketime_library().display()));
            command.env("FAKETIME_TIMESTAMP_FILE", &clock.file).env("FAKETIME_FMT", "%s").env("TZ", "UTC");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env(clock.reading.0, clock.reading.1);
        }
        let _ = fs::remove_file(self.socket());
        let stdio = fs::File::create(self.dir.path().join("server.out")).unwrap();
        command.stdin(Stdio::null()).stdout(stdio.try_clone().unwrap()).stderr(stdio);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}")));
        let since = Instant::now();
        while self.is_alive() {
            if let Ok(mut client) = self.try_connect("") {
                // An error while it is still loading.
                if client.ask(&redis::cmd("PING")).is_ok() {
                    return true;
                }
            }
            assert!(since.elapsed() < PATIENCE, "the server does not answer:\n{}", self.log());
            sleep(Duration::from_millis(5));
        }
        false
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("server.sock")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the server has written to its log and to its standard error.
    pub fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        read("server.log") + &read("server.out")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Sends a signal: STOP, CONT, KILL.
    pub fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.pid());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success(), "{line}");
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    fn try_connect(&self, query: &str) -> redis::RedisResult<Connection> {
        Client::open(format!("unix://{}{query}", self.socket().display()))?.get_connection()
    }

    pub fn connect(&self) -> Connection {
        self.try_connect("").unwrap_or_else(|error| panic!("{error}:\n{}", self.log()))
    }

    pub fn connect_resp3(&self) -> Connection {
        self.try_connect("?protocol=resp3").unwrap_or_else(|error| panic!("{error}:\n{}", self.log()))
    }

    pub fn redis_cli(&self) -> Command {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(self.socket());
        command
    }

    /// Ends the server as `kill -9` does, and keeps its folder.
    pub fn kill(mut self) -> TempDir {
        self.stop();
        std::mem::replace(&mut self.dir, TempDir::new().unwrap())
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- log of the server on {}\n{}", self.port, self.log());
        }
        self.stop();
    }
}
