//! The examples, each as a reader would run it. `make test-examples` fetches what they need.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::documents::{bounded, root};
use crate::support::{Ask, Clock, PATIENCE, START, Server, Setup, get, wait_for};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn server_on_clock() -> (Server, Clock) {
    let clock = Clock::at(START).unwrap();
    (Setup::new().clock(&clock).tcp().start(), clock)
}

fn example(server: &Server, program: &[&str]) -> Command {
    let mut command = bounded(program);
    command.env("REDIS_URL", format!("redis://127.0.0.1:{}", server.port));
    command
}

/// A program that runs until the test ends.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // `timeout` hands this signal on, and would leave its program behind if it were killed.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// The status and all of an HTTP answer.
fn http(port: u16, request: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(stream, "{request} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

fn listens(port: u16) {
    wait_for("the example listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// Five requests in any ten seconds, with the headers that say so.
fn limits_requests(port: u16, clock: &Clock) {
    for left in (0..5).rev() {
        let (status, answer) = http(port, "GET /", "");
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains("RateLimit-Policy: \"default\";q=5;w=10\r\n"), "{answer}");
        assert!(answer.contains(&format!("RateLimit: \"default\";r={left};t=10\r\n")), "{answer}");
    }
    clock.set(START + 3_500);
    let (status, answer) = http(port, "GET /", "");
    assert_eq!(status, 429, "{answer}");
    assert!(answer.contains("Retry-After: 7\r\n"), "6.5 s, rounded up: {answer}");
    assert!(answer.contains("RateLimit: \"default\";r=0;t=7\r\n"), "{answer}");
    clock.set(START + 10_000);
    assert_eq!(http(port, "GET /", "").0, 200);
}

#[test]
#[ignore = "make test-examples"]
fn express() {
    let (server, clock) = server_on_clock();
    let port = free_port();
    let text = fs::read_to_string(root().join("examples/express/server.mjs")).unwrap();
    let mut node = example(&server, &["node", "--input-type=module", "-e", &text]);
    let _node = Running::start(node.env("PORT", port.to_string()));
    listens(port);
    limits_requests(port, &clock);
    drop(server);
    assert_eq!(http(port, "GET /", "").0, 200, "without its Redis it lets requests through");
}

/// Where scripts/examples.sh has unpacked packages of Debian. None, and a word about the test that is skipped, where it
/// could not.
fn unpacked() -> Option<PathBuf> {
    let path = root().join("target/examples/debian");
    if !path.exists() {
        let _ = writeln!(std::io::stderr(), "skipped: {}", std::thread::current().name().unwrap_or("a test"));
        return None;
    }
    Some(path)
}

fn libraries(debian: &Path) -> String {
    let output = Command::new("find").arg(debian).args(["-name", "*.so.*", "-printf", "%h:"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "make test-examples"]
fn nginx() {
    let Some(debian) = unpacked() else { return };
    let (server, clock) = server_on_clock();
    let (port, behind) = (free_port(), free_port());
    let example = fs::read_to_string(root().join("examples/nginx.conf")).unwrap();
    let example = example.replace("8080", &port.to_string()).replace("8000", &behind.to_string());
    let example = example.replace("6379", &server.port.to_string());
    let dir = server.dir().display();
    let in_debian = |path: &str| debian.join(path).display().to_string();
    let modules = in_debian("usr/lib/nginx/modules");
    let configuration = format!(
        "load_module {modules}/ndk_http_module.so; load_module {modules}/ngx_http_lua_module.so;
        daemon off; master_process off; pid {dir}/pid; error_log {dir}/nginx.log; events {{}}
        http {{
            access_log off; lua_package_path '{lua}/?.lua;;';
            client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
            uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
            server {{ listen 127.0.0.1:{behind}; return 200 hello; }}
            {example}
        }}",
        lua = in_debian("usr/share/lua/5.1"),
    );
    fs::write(server.dir().join("nginx.conf"), configuration).unwrap();
    let program = in_debian("usr/sbin/nginx");
    let mut nginx = bounded(&[&program, "-e", &format!("{dir}/nginx.log"), "-c", &format!("{dir}/nginx.conf")]);
    let _nginx = Running::start(nginx.env("LD_LIBRARY_PATH", libraries(&debian)));
    listens(port);
    limits_requests(port, &clock);
    let dir = server.kill();
    let (status, answer) = http(port, "GET /", "");
    assert!(status == 200 && answer.ends_with("hello"), "without its Redis it lets requests through: {answer}");
    assert!(fs::read_to_string(dir.path().join("nginx.log")).unwrap().contains("rate limit:"));
}

#[test]
#[ignore = "make test-examples"]
fn throttle() {
    let server = Setup::new().tcp().start();
    let run = |limit: &str| {
        let program = ["examples/throttle.sh", "key", limit, "300ms", "echo", "done with it"];
        example(&server, &program).output().unwrap()
    };
    let since = Instant::now();
    for _ in 0..5 {
        assert_eq!(String::from_utf8(run("2").stdout).unwrap(), "done with it\n");
    }
    assert!(since.elapsed() >= Duration::from_millis(590), "the fifth has waited twice: {:?}", since.elapsed());
    for (limit, complaint) in [("0", "throttle: a limit of 0 allows nothing"), ("x", "ERR limit is not an integer")] {
        let output = run(limit);
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(complaint), "{output:?}");
    }
}

#[test]
#[ignore = "make test-examples"]
fn worker() {
    let server = Setup::new().tcp().start();
    let mut client = server.connect();
    for job in 0..13 {
        client.run(&format!("LPUSH jobs {job}"));
    }
    let since = Instant::now();
    let _workers = [(); 3].map(|()| Running::start(&mut example(&server, &["python3", "examples/worker.py"])));
    wait_for("all jobs", || client.integer("LLEN finished") == 13);
    assert!(since.elapsed() >= Duration::from_secs(1), "5, 5 and 3 jobs: {:?}", since.elapsed());
    wait_for("nothing is left", || client.integer("EXISTS jobs taken") == 0);
}

#[test]
#[ignore = "make test-examples"]
fn tokens() {
    let (server, clock) = server_on_clock();
    let ask = |tokens: usize| {
        let prompt = "word ".repeat(tokens);
        let output = example(&server, &["python3", "examples/tokens.py", "anna", &prompt]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        text.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(ask(30), "40 tokens left");
    clock.set(START + 10_000);
    assert_eq!(ask(101), "A prompt may have 100 tokens.");
    assert_eq!(ask(41), "Try again in 50 s.");
    assert_eq!(ask(35), "0 tokens left", "the answer costs more than there is, and counts");
    clock.set(START + 60_000);
    assert_eq!(ask(31), "Try again in 10 s.", "70 are used");
    assert_eq!(ask(15), "0 tokens left");
}

#[test]
#[ignore = "make test-examples"]
fn login() {
    let (server, clock) = server_on_clock();
    let port = free_port();
    let _login = Running::start(&mut example(&server, &["python3", "examples/login.py", &port.to_string()]));
    listens(port);
    let attempt_of = |name: &str, password: &str| http(port, "POST /", &format!("name={name}&password={password}"));
    let attempt = |password: &str| attempt_of("anna", password);
    assert!(http(port, "GET /", "").1.contains("<form"));
    for left in (1..5).rev() {
        let (status, answer) = attempt("wrong");
        assert!(status == 401 && answer.contains(&format!("{left} attempts left")), "{answer}");
    }
    assert_eq!(attempt("correct+horse").0, 200, "the fifth");
    for _ in 0..5 {
        assert_eq!(attempt("wrong").0, 401, "what went before is forgotten");
    }
    clock.set(START + 600_000);
    let (status, answer) = attempt("correct+horse");
    assert!(status == 429 && answer.contains("Retry-After: 300\r\n"), "{answer}");
    // By 900 s the five attempts of the beginning have left the window, but these five have not.
    for _ in 0..4 {
        attempt("correct+horse");
    }
    clock.set(START + 900_000);
    assert_eq!(attempt("correct+horse").0, 429, "only silence helps");
    clock.set(START + 2_000_000);
    for _ in 0..6 {
        assert_eq!(attempt("correct+horse").0, 200, "a right password is no attempt");
    }
    // However the name is spelled: with a capital, a blank, a letter of full width.
    for (left, name) in ["Anna", "anna+", "%09ANNA%C2%A0", "%EF%BD%81nna"].iter().enumerate() {
        assert!(attempt_of(name, "wrong").1.contains(&format!("{} attempts left", 4 - left)), "{name}");
    }
    assert_eq!(attempt_of("ANNA", "correct+horse").0, 200);
    let long = "x".repeat(100_000);
    assert_eq!([0; 6].map(|_| attempt_of(&long, "wrong").0), [401, 401, 401, 401, 401, 429]);
    let keys: Vec<String> = get(server.connect().run("KEYS *"));
    assert_eq!(keys, [format!("login:{}:127.0.0.1", &long[..100])], "a right password leaves no log");
}

/// What docs/operations.md says of the exporter.
#[test]
#[ignore = "make test-examples"]
fn exporter() {
    let Some(debian) = unpacked() else { return };
    let server = Setup::new().tcp().start();
    let mut client = server.connect();
    for _ in 0..3 {
        client.run("RATELIMIT.HIT key 2 1h");
    }
    let port = free_port();
    let program = debian.join("usr/bin/prometheus-redis-exporter");
    let address = format!("127.0.0.1:{port}");
    let program = [program.to_str().unwrap(), "-web.listen-address", &address, "-script", "examples/exporter.lua"];
    let mut exporter = bounded(&program);
    exporter.args(["-redis.addr", &format!("redis://127.0.0.1:{}", server.port)]);
    let _exporter = Running::start(&mut exporter);
    listens(port);
    let (_, metrics) = http(port, "GET /metrics", "");
    for line in [
        "redis_script_values{key=\"hits_admitted\"} 2",
        "redis_script_values{key=\"hits_refused\"} 1",
        "redis_commands_total{cmd=\"ratelimit.hit\"} 3",
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line} is not among\n{metrics}");
    }
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let named =
        text.split('`').skip(1).step_by(2).flat_map(|code| code.split(|c: char| c != '_' && !c.is_alphanumeric()));
    for name in named.filter(|name| name.starts_with("redis_") && !name.starts_with("redis_exporter")) {
        assert!(metrics.contains(&format!("\n{name}{{")) || metrics.contains(&format!("\n{name} ")), "{name}");
    }
}
