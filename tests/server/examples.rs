//! The examples are right: each is run as a reader would run it. `make test-examples` fetches what they need.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::Connection;
use support::modules::bounded;
use support::servers::free_port;
use support::{Ask, Clock, PATIENCE, START, Server, Setup, Stage, get, root, skipped, wait_for};
use tempfile::TempDir;

/// A server that examples find, on a set clock.
fn stage() -> Stage {
    Stage::of(Setup::new().tcp()).unwrap()
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
    http_with(port, request, "X-None: none", body)
}

fn http_with(port: u16, request: &str, header: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let headers = format!("Host: localhost\r\n{header}\r\nContent-Length: {length}");
    write!(stream, "{request} HTTP/1.0\r\n{headers}\r\n\r\n{body}").unwrap();
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
    // A client may remember a refusal, and does not know of this clock.
    wait_for("the log has room again", || http(port, "GET /", "").0 == 200);
}

/// One log for each IPv4 address and for each /64 of IPv6.
fn limits_networks(port: u16, client: &mut Connection) {
    client.run("FLUSHALL");
    for address in [
        "192.0.2.1",
        "::ffff:192.0.2.1",
        "::FFFF:c000:201",
        "192.0.2.2",
        "2001:db8:1:2::1",
        "2001:DB8:0001:2:ffff:ffff:ffff:ffff",
        "2001:db8:1:3::1",
        "2001:db8::1",
        "64:ff9b::192.0.2.1",
        "::1",
    ] {
        assert_eq!(http_with(port, "GET /", &format!("X-Forwarded-For: {address}"), "").0, 200, "{address}");
    }
    let mut keys: Vec<String> = get(client.run("KEYS *"));
    keys.sort();
    let hits = |key: &String| client.integer(&format!("XLEN {key}"));
    let hits: Vec<i64> = keys.iter().map(hits).collect();
    let expected = [
        ("rl:default:0:0:0:0::/64", 1),
        ("rl:default:192.0.2.1", 3),
        ("rl:default:192.0.2.2", 1),
        ("rl:default:2001:db8:0:0::/64", 1),
        ("rl:default:2001:db8:1:2::/64", 2),
        ("rl:default:2001:db8:1:3::/64", 1),
        ("rl:default:64:ff9b:0:0::/64", 1),
    ];
    assert_eq!(keys.iter().map(String::as_str).zip(hits).collect::<Vec<_>>(), expected);
}

/// What says that Redis cannot serve opens the gate; what says that the call is wrong does not. `rights` tells whether a missing
/// right is the former.
fn tells_outages_from_mistakes(port: u16, client: &mut Connection, rights: bool) {
    client.run("FLUSHALL");
    client.run("SET rl:default:127.0.0.1 somebody-else's");
    assert_eq!(http(port, "GET /", "").0, 500, "WRONGTYPE");
    client.run("FLUSHALL");
    for (wrong, right) in [
        ("ACL SETUSER default -ratelimit.hit", "ACL SETUSER default +ratelimit.hit"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    ] {
        client.run(wrong);
        let (status, answer) = http(port, "GET /", "");
        if rights || !wrong.starts_with("ACL") {
            assert!(status == 200 && !answer.contains("RateLimit: "), "{wrong}: {answer}");
        } else {
            assert_eq!(status, 500, "{wrong}: {answer}");
        }
        client.run(right);
        wait_for(right, || http(port, "GET /", "").1.contains("RateLimit: "));
    }
}

/// An example that was started before its Redis. Redis comes, stops, goes on, dies and comes again; no request waits for it,
/// and whenever it is there, it limits. `sent` of the three requests while it stops are sent to it all the same.
fn lives_through_outages(port: u16, redis: u16, sent: i64) {
    let clock = Clock::at(START).unwrap();
    let start = || Setup::new().clock(&clock).args(["--port".to_owned(), redis.to_string()]).start();
    let is_open = |when: &str| {
        let answers = [(); 3].map(|()| {
            let since = Instant::now();
            let (status, answer) = http(port, "GET /", "");
            assert!(status == 200 && !answer.contains("RateLimit: "), "{when}: {answer}");
            since.elapsed()
        });
        // The fastest, as this machine may be busy.
        assert!(answers.iter().min() < Some(&Duration::from_millis(500)), "{when}: {answers:?}");
    };
    let is_limited = || {
        wait_for("it limits", || {
            let (status, answer) = http(port, "GET /", "");
            status == 200 && answer.contains("RateLimit: ")
        });
    };

    is_open("without Redis at start");
    let server = start();
    let mut client = server.connect();
    is_limited();
    client.run("FLUSHALL");
    limits_requests(port, &clock);

    server.signal("STOP");
    is_open("Redis is stopped");
    server.signal("CONT");
    // One hit was there.
    wait_for("late hits count", || client.answer("RATELIMIT.PEEK rl:default:127.0.0.1 5 10 COST 0")[2] == 4 - sent);
    is_limited();
    for left in (0..3 - sent).rev() {
        let (status, answer) = http(port, "GET /", "");
        assert!(
            status == 200 && answer.contains(&format!("r={left};")),
            "each gets the answer to its own call: {answer}"
        );
    }
    assert_eq!(http(port, "GET /", "").0, 429);

    drop(server);
    wait_for("the refusal is no longer remembered", || http(port, "GET /", "").0 == 200);
    is_open("Redis is gone");
    let server = start();
    is_limited();
    server.connect().run("FLUSHALL");
    clock.set(START);
    limits_requests(port, &clock);
}

fn start_express(redis: u16) -> (Running, u16) {
    let port = free_port();
    let text = fs::read_to_string(root().join("examples/express/server.mjs")).unwrap();
    let mut node = bounded(&["node", "--input-type=module", "-e", &text]);
    node.env("REDIS_URL", format!("redis://127.0.0.1:{redis}")).env("TRUST_PROXY", "loopback");
    let node = Running::start(node.env("PORT", port.to_string()));
    listens(port);
    (node, port)
}

#[test]
#[ignore = "make test-examples"]
fn express() {
    let Stage { server, clock, .. } = stage();
    let (_node, port) = start_express(server.port);
    let mut client = server.connect();
    wait_for("it has found Redis", || http(port, "GET /", "").1.contains("RateLimit: "));
    client.run("FLUSHALL");
    limits_requests(port, &clock);
    limits_networks(port, &mut client);
    tells_outages_from_mistakes(port, &mut client, false);

    // A route with a limit of its own counts on a key of its own, and tells both.
    client.run("FLUSHALL");
    for (status, left) in [(200, 1), (200, 0), (429, 0)] {
        let (answered, answer) = http(port, "GET /report", "");
        assert_eq!(answered, status, "{answer}");
        assert!(answer.contains("RateLimit-Policy: \"default\";q=5;w=10\r\n"), "{answer}");
        assert!(answer.contains("RateLimit-Policy: \"report\";q=2;w=60\r\n"), "{answer}");
        assert!(answer.contains(&format!("RateLimit: \"report\";r={left};t=60\r\n")), "{answer}");
    }
    assert_eq!(client.integer("XLEN rl:default:127.0.0.1"), 3);
    assert_eq!(client.integer("XLEN rl:report:127.0.0.1"), 2);
}

#[test]
#[ignore = "make test-examples"]
fn express_in_outages() {
    let redis = free_port();
    let (_node, port) = start_express(redis);
    lives_through_outages(port, redis, 1);
}

/// Where scripts/examples.sh has unpacked packages of Debian. None, and a word about the test that is skipped, where it
/// could not.
pub fn unpacked() -> Option<PathBuf> {
    let path = root().join("target/examples/debian");
    if !path.exists() {
        skipped("there are no packages of Debian here");
        return None;
    }
    Some(path)
}

fn libraries(debian: &Path) -> String {
    let output = Command::new("find").arg(debian).args(["-name", "*.so.*", "-printf", "%h:"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// With a folder for its files. It believes the test what address it comes from.
fn start_nginx(debian: &Path, redis: u16) -> (Running, u16, TempDir) {
    let (port, behind) = (free_port(), free_port());
    let example = fs::read_to_string(root().join("examples/nginx.conf")).unwrap();
    let example = example.replace("8080", &port.to_string()).replace("8000", &behind.to_string());
    let example = example.replace("6379", &redis.to_string());
    let folder = TempDir::new().unwrap();
    let dir = folder.path().display();
    let in_debian = |path: &str| debian.join(path).display().to_string();
    let modules = in_debian("usr/lib/nginx/modules");
    let configuration = format!(
        "load_module {modules}/ndk_http_module.so; load_module {modules}/ngx_http_lua_module.so;
        daemon off; master_process off; pid {dir}/pid; error_log {dir}/nginx.log; events {{}}
        http {{
            access_log off; lua_package_path '{lua}/?.lua;;';
            set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;
            client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
            uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
            server {{ listen 127.0.0.1:{behind}; return 200 hello; }}
            {example}
        }}",
        lua = in_debian("usr/share/lua/5.1"),
    );
    fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
    let program = in_debian("usr/sbin/nginx");
    let mut nginx = bounded(&[&program, "-e", &format!("{dir}/nginx.log"), "-c", &format!("{dir}/nginx.conf")]);
    let nginx = Running::start(nginx.env("LD_LIBRARY_PATH", libraries(debian)));
    listens(port);
    (nginx, port, folder)
}

#[test]
#[ignore = "make test-examples"]
fn nginx() {
    let Some(debian) = unpacked() else { return };
    let Stage { server, clock, .. } = stage();
    let (_nginx, port, dir) = start_nginx(&debian, server.port);
    limits_requests(port, &clock);
    let mut client = server.connect();
    limits_networks(port, &mut client);
    tells_outages_from_mistakes(port, &mut client, true);
    assert!(fs::read_to_string(dir.path().join("nginx.log")).unwrap().contains("rate limit: WRONGTYPE"));
}

#[test]
#[ignore = "make test-examples"]
fn nginx_in_outages() {
    let Some(debian) = unpacked() else { return };
    let redis = free_port();
    let (_nginx, port, dir) = start_nginx(&debian, redis);
    lives_through_outages(port, redis, 3);
    assert!(fs::read_to_string(dir.path().join("nginx.log")).unwrap().contains("rate limit: timeout"));
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
    for (limit, complaint) in [("0", "throttle: no turn within 1h"), ("x", "ERR limit is not an integer")] {
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
    let Stage { server, clock, .. } = stage();
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

/// The page shows what the simulation prints, and the limit holds as it says.
#[test]
#[ignore = "make test-examples"]
fn scale() {
    let printed = |arguments: &[&str]| {
        let output = bounded(&["python3", "examples/scale.py"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let page = fs::read_to_string(root().join("docs/scale.md")).unwrap();
    let table = printed(&[]);
    assert!(page.contains(&table), "docs/scale.md does not show\n{table}");
    assert!(fs::read_to_string(root().join("docs/scale.svg")).unwrap() == printed(&["chart"]), "docs/scale.svg is old");
    let most = |row: &str| row.split('|').nth(6).unwrap().trim().trim_end_matches('%').parse::<f64>().unwrap();
    for row in table.lines().skip(2) {
        // Twenty processes may hold a batch of five or twenty each, and never lease more than the limit.
        let bound = if row.contains("of 5") {
            110.0
        } else if row.contains("leases") {
            140.0
        } else {
            100.0
        };
        assert!(most(row) <= bound, "{row}");
    }
}

#[test]
#[ignore = "make test-examples"]
fn lease() {
    let Stage { server, clock, .. } = stage();
    let run = |requests: &str| {
        let output = example(&server, &["python3", "examples/lease.py", requests]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // Three batches, of which seven units are given back.
    assert_eq!(run("53"), "53 of 53 requests admitted, 4 calls\n");
    assert_eq!(server.connect().answer("RATELIMIT.PEEK busy 100 1m COST 0")[2], 47);
    // Two batches; then there is room for seven single ones, each after a batch was refused; then no call for a refusal.
    assert_eq!(run("60"), "47 of 60 requests admitted, 18 calls\n");
    // What was left of a batch was recorded anew, a millisecond later.
    clock.set(START + 60_001);
    assert_eq!(run("100"), "100 of 100 requests admitted, 5 calls\n");
}

#[test]
#[ignore = "make test-examples"]
fn login() {
    let Stage { server, clock, .. } = stage();
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
    (0..2).for_each(|_| _ = client.run("RATELIMIT.HIT api 1 1s WAIT 10s"));
    client.run("RATELIMIT.PEEK key 2 1h");
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
        "redis_script_values{key=\"hits_admitted\"} 4",
        "redis_script_values{key=\"hits_refused\"} 1",
        "redis_script_values{key=\"policy_2/1h:refused\"} 1",
        "redis_script_values{key=\"policy_1/1s:waited\"} 1",
        "redis_script_values{key=\"clients_waiting\"} 0",
        "redis_commands_total{cmd=\"ratelimit.peek\"} 1",
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line} is not among\n{metrics}");
    }
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = text.split("**Prometheus.**").nth(1).unwrap().split("\n## ").next().unwrap();
    let named =
        section.split('`').skip(1).step_by(2).flat_map(|code| code.split(|c: char| c != '_' && !c.is_alphanumeric()));
    for name in named.filter(|name| name.starts_with("redis_") && !name.starts_with("redis_exporter")) {
        assert!(metrics.contains(&format!("\n{name}{{")) || metrics.contains(&format!("\n{name} ")), "{name}");
    }
}
