//! Real servers for tests: each on a unix socket and in a folder of its own, killed when it goes out of scope.

use std::fmt::Debug;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::{Client, Cmd, Connection, ConnectionLike, ServerError, Value};
use tempfile::TempDir;

/// How long anything in a test may take before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Milliseconds of a day on which nothing happened: where set clocks start.
pub const START: u64 = 1_767_225_600_000;

/// Whether tests that can run short or long run long, as `make test-long` lets them.
pub fn is_long() -> bool {
    std::env::var_os("RATELIMIT_LONG").is_some()
}

/// The module under test. `make test` builds it; `RATELIMIT_MODULE` names another build.
pub fn module() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/libratelimit.so");
    let path = std::env::var_os("RATELIMIT_MODULE").map_or_else(default, PathBuf::from);
    assert!(path.exists(), "{} is missing, run: make build", path.display());
    path
}

/// Another module that a test needs, built by cargo where it is missing or old: by then `cargo test` itself builds nothing.
pub fn build(file: &str, args: &[&str]) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let _guard = ONE_AT_A_TIME.lock();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo sets for tests must not look like a change to it.
    cargo.current_dir(root).env_remove("LD_LIBRARY_PATH").env("CARGO_TARGET_DIR", "target");
    let output = cargo.args(["build", "--quiet", "--locked"]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    root.join("target/debug").join(file)
}

/// redis-cell as a module, to compare with.
pub fn redis_cell() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/release/libredis_cell.so");
    assert!(path.exists(), "{} is missing, run: scripts/peers.sh", path.display());
    path
}

fn server_program() -> String {
    std::env::var("RATELIMIT_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// A clock that stands still until it is told to move, or runs ahead of the machine's or behind it; shared by the servers
/// that are started on it.
#[derive(Clone)]
pub struct Clock {
    file: PathBuf,
    /// How servers are told how often to read the file: each time, or once a second.
    reading: (&'static str, &'static str),
    _dir: std::sync::Arc<TempDir>,
}

impl Clock {
    /// None, and a word about the test that is skipped, where the server reads the processor's clock instead: builds of
    /// Valkey 9.1 do between one tick and the next.
    pub fn at(milliseconds: u64) -> Option<Self> {
        static CAN_BE_SET: OnceLock<bool> = OnceLock::new();
        let clock = Self::read(("FAKETIME_NO_CACHE", "1"));
        clock.set(milliseconds);
        if *CAN_BE_SET.get_or_init(|| clock.stands_still()) {
            return Some(clock);
        }
        let test = std::thread::current();
        // Not by `eprintln`, which shows failed tests only.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: {}: the server's clock cannot be set",
            test.name().unwrap_or("a test")
        );
        None
    }

    /// One that runs with the machine's.
    pub fn running() -> Self {
        let clock = Self::read(("FAKETIME_CACHE_DURATION", "1"));
        clock.run_ahead(0);
        clock
    }

    fn read(reading: (&'static str, &'static str)) -> Self {
        let dir = TempDir::new().unwrap();
        Self { file: dir.path().join("clock"), reading, _dir: dir.into() }
    }

    fn stands_still(&self) -> bool {
        let server = Setup::new().without_module().clock(self).start();
        let mut client = server.connect();
        (0..3).all(|_| {
            let before = client.run("TIME");
            client.run("DEBUG SLEEP 0.003");
            client.run("TIME") == before
        })
    }

    /// Half a millisecond is added because libfaketime reads the fraction as a floating-point number.
    pub fn set(&self, milliseconds: u64) {
        self.write(&format!("{}.{:03}5", milliseconds / 1000, milliseconds % 1000));
    }

    /// For one that runs: by so many milliseconds, which may be negative. Servers know it within a second.
    pub fn run_ahead(&self, milliseconds: i32) {
        self.write(&format!("{:+.3}", f64::from(milliseconds) / 1_000.0));
    }

    /// The file is replaced, not rewritten, so that a server never reads half of it.
    fn write(&self, text: &str) {
        let next = self.file.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &self.file).unwrap();
    }
}

fn faketime_library() -> PathBuf {
    let output = Command::new("find").args(["/usr/lib", "-name", "libfaketime.so.1"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    PathBuf::from(text.lines().next().expect("libfaketime is missing, run: make test"))
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

impl Setup {
    pub fn new() -> Self {
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
    #[allow(dead_code, reason = "for one of those that include this file")]
    pub fn configuration(mut self, file: &Path) -> Self {
        self.configuration = Some(file.to_owned());
        self
    }

    /// Counts instructions, into `callgrind.out` in the server's folder, once it has ended.
    #[allow(dead_code, reason = "for benchmarks")]
    pub fn under_callgrind(mut self) -> Self {
        self.valgrind = &["--tool=callgrind", "--callgrind-out-file=callgrind.out"];
        self
    }

    /// Watches every access to memory, and what is lost; the report is `valgrind.log` in the server's folder, once it has
    /// ended. Valgrind takes the place of whatever allocator the server is linked to.
    #[allow(dead_code, reason = "for one of those that include this file")]
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
            concat!("--suppressions=", env!("CARGO_MANIFEST_DIR"), "/tests/server/memcheck.supp"),
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
    #[allow(dead_code, reason = "for one of those that include this file")]
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

    /// A server on a clock of its own that stands still. None where that cannot be, see [`Clock::at`].
    pub fn on_clock() -> Option<(Self, Clock)> {
        let clock = Clock::at(START)?;
        Some((Setup::new().clock(&clock).start(), clock))
    }

    fn launch(&mut self) -> bool {
        let Setup { program, module, args, configuration, clock, tcp, valgrind } = &self.setup;
        if *tcp {
            self.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
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

/// Threads that run until this goes out of scope, which they would otherwise do for ever after a failure.
pub struct Running<'a>(pub &'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// Waits until something is so, and fails where it takes too long.
pub fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !so() {
        assert!(since.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until a counter has grown by so much from now on.
pub fn wait_for_more(what: &str, counter: &AtomicUsize, more: usize) {
    let from = counter.load(Relaxed);
    wait_for(what, || counter.load(Relaxed) >= from + more);
}

/// A command from words with single blanks between them.
pub fn words(line: &str) -> Cmd {
    let mut words = line.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    for word in words {
        cmd.arg(word);
    }
    cmd
}

/// An error as the server sent it.
pub fn text_of(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

/// What tests ask of a connection.
pub trait Ask: ConnectionLike {
    fn ask(&mut self, cmd: &Cmd) -> Result<Value, String> {
        match self.req_command(cmd) {
            Ok(Value::ServerError(error)) => Err(text_of(&error)),
            Ok(value) => Ok(value),
            Err(error) => Err(match (error.code(), error.detail()) {
                (Some(code), Some(detail)) => format!("{code} {detail}"),
                _ => error.to_string(),
            }),
        }
    }

    /// The reply to a line of words; an error fails the test.
    fn run(&mut self, line: &str) -> Value {
        self.ask(&words(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The error to a line of words; anything else fails the test.
    fn error(&mut self, line: &str) -> String {
        match self.ask(&words(line)) {
            Err(error) => error,
            Ok(value) => panic!("{line}: {value:?} is no error"),
        }
    }

    /// The integer that a line of words gets.
    fn integer(&mut self, line: &str) -> i64 {
        get(self.run(line))
    }

    /// The text that a line of words gets.
    fn text(&mut self, line: &str) -> String {
        get(self.run(line))
    }

    /// The six integers that a line of words gets.
    fn answer(&mut self, line: &str) -> [i64; 6] {
        six(&self.run(line))
    }

    /// A field of a section of INFO.
    fn info(&mut self, section: &str, field: &str) -> String {
        let text = self.text(&format!("INFO {section}"));
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
        line.unwrap_or_else(|| panic!("INFO {section} has no {field}:\n{text}"))
    }

    /// Entries of a stream: ID, field, value.
    fn entries(&mut self, key: &str) -> Vec<(String, String, String)> {
        let rows: Vec<(String, Vec<String>)> = get(self.run(&format!("XRANGE {key} - +")));
        rows.into_iter().map(|(id, pair)| (id, pair[0].clone(), pair[1].clone())).collect()
    }

    /// Everything there is, with what DEBUG DIGEST leaves out: expiry times and last IDs.
    fn fingerprint(&mut self) -> Vec<String> {
        let mut lines = vec![self.text("DEBUG DIGEST")];
        let mut keys: Vec<Vec<u8>> = get(self.run("KEYS *"));
        keys.sort();
        for key in keys {
            let one = |name: &str| redis::cmd(name).arg(&key).to_owned();
            let expires: i64 = get(self.ask(&one("PEXPIRETIME")).unwrap());
            let mut line = format!("{:?} expires {expires}", String::from_utf8_lossy(&key));
            if self.ask(&one("TYPE")) == Ok(Value::SimpleString("stream".into())) {
                // Unless it has expired meanwhile.
                let Ok(info) = self.ask(redis::cmd("XINFO").arg("STREAM").arg(&key)) else { continue };
                let fields: Vec<(String, Value)> = get(info);
                for (name, value) in fields {
                    if [
                        "length",
                        "last-generated-id",
                        "first-entry",
                        "last-entry",
                        "entries-added",
                        "max-deleted-entry-id",
                        "groups",
                    ]
                    .contains(&name.as_str())
                    {
                        line += &format!(" {name} {value:?}");
                    }
                }
            }
            lines.push(line);
        }
        lines
    }
}

impl<C: ConnectionLike> Ask for C {}

/// A reply as a type of Rust.
pub fn get<T: redis::FromRedisValue>(value: Value) -> T {
    let shown = format!("{value:?}");
    redis::from_redis_value(value).unwrap_or_else(|error| panic!("{shown}: {error}"))
}

/// The reply of HIT and PEEK.
pub fn six(value: &Value) -> [i64; 6] {
    let Value::Array(items) = value else { panic!("{value:?} is no array") };
    let integer = |item: &Value| match item {
        Value::Int(integer) => *integer,
        other => panic!("{other:?} is no integer"),
    };
    items.iter().map(integer).collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{value:?} has not six items"))
}

/// The same, its times rounded up to minutes, for tests on a clock that runs: what is a minute from now stays one.
pub fn in_minutes(value: &Value) -> [i64; 6] {
    let [allowed, limit, remaining, times @ ..] = six(value);
    let [retry, reset, next] = times.map(|time| if time > 0 { (time + 59_999) / 60_000 * 60_000 } else { time });
    [allowed, limit, remaining, retry, reset, next]
}

/// Two lists that must be equal, shown by their first difference.
pub fn assert_same<T: PartialEq + Debug>(left: &[T], right: &[T], what: &str) {
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left, right, "{what}");
    }
    assert_eq!(left.len(), right.len(), "{what}: length");
}
