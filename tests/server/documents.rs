//! The documents are right: their snippets are run, each on a server of its own, whose clock stands still.
//!
//! In a document, port 6379 is that server. A block of `text` is what the block before it prints. Where a block waits for its
//! turn (`sh waiting`), the clock runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use redis::Value;
use support::modules::{bounded, redis_cell};
use support::{Ask, Clock, START, Server, Setup, get, root};
use tempfile::TempDir;

use crate::examples::unpacked;

const PROMPT: &str = "127.0.0.1:6379> ";

/// A fenced block of a document.
struct Snippet {
    place: String,
    language: String,
    text: String,
    output: Option<String>,
}

impl Snippet {
    /// What needs more than a server, and is run by `make test-examples`.
    fn needs_more(&self) -> bool {
        ["go", "js", "python", "python waiting"].contains(&self.language.as_str()) || self.text.contains("CL.THROTTLE")
    }

    fn run(&self, clock: &Clock) {
        clock.set(START);
        match self.language.as_str() {
            "console" => self.session(clock),
            "conf" => self.configuration(clock),
            "sh" => self.program(Some(clock), &["sh", "-euc"]),
            "sh waiting" => self.program(None, &["sh", "-euc"]),
            "python" => self.program(Some(clock), &["python3", "-c"]),
            "python waiting" => self.program(None, &["python3", "-c"]),
            "js" => self.program(Some(clock), &["node", "--input-type=module", "-e"]),
            "go" => self.go(clock),
            // By tests/clients, which start a cluster.
            "js cluster" | "python cluster" => {}
            // By scripts/test-dist.sh, which has the wheel.
            "sh wheel" => {}
            "text" => {}
            other => panic!("{}: nothing runs {other:?}", self.place),
        }
    }

    /// A session with redis-cli, in which `# 4000 ms later` moves the clock.
    fn session(&self, clock: &Clock) {
        let server = self.server(Some(clock));
        let mut now = START;
        let mut shown = String::new();
        for line in self.text.lines() {
            if let Some(time) = line.strip_prefix("# ").and_then(|text| text.strip_suffix(" ms later")) {
                now += time.parse::<u64>().unwrap();
                clock.set(now);
                shown += &format!("{line}\n");
            } else if let Some(command) = line.strip_prefix(PROMPT) {
                let output = server.redis_cli().arg("--no-raw").args(command.split(' ')).output().unwrap();
                let output = String::from_utf8(output.stdout).unwrap();
                // After an error redis-cli writes an empty line, which a terminal does not show.
                shown += &format!("{PROMPT}{command}\n{}\n", output.trim_end());
            }
        }
        assert_eq!(shown, self.text, "{}", self.place);
    }

    /// A server starts with it.
    fn configuration(&self, clock: &Clock) {
        let mut setup = Setup::new().clock(clock);
        let lines = self.text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with("loadmodule")) {
            setup = setup.args(format!("--{line}").split(' '));
        }
        assert_eq!(setup.start().connect().answer("RATELIMIT.HIT key 1 1m")[0], 1, "{}", self.place);
    }

    /// A program in Go, which has to be a file, with the packages that Debian has.
    fn go(&self, clock: &Clock) {
        let Some(debian) = unpacked() else { return };
        let folder = TempDir::new().unwrap();
        let line = format!(
            "printf %s \"$1\" >{folder}/main.go; GO111MODULE=off GOPATH={} GOCACHE={} go run {folder}/main.go",
            debian.join("usr/share/gocode").display(),
            root().join("target/examples/go").display(),
            folder = folder.path().display(),
        );
        self.program(Some(clock), &["sh", "-euc", &line, "go"]);
    }

    /// A program ends well, and prints what is shown.
    fn program(&self, clock: Option<&Clock>, interpreter: &[&str]) {
        let server = self.server(clock);
        let text = self.text.replace("6379", &server.port.to_string());
        let text = text.replace("redis-cli ", &format!("redis-cli -p {} ", server.port));
        let output = bounded(interpreter).arg(text).output().unwrap();
        assert!(output.status.success(), "{}: {output:?}", self.place);
        if let Some(expected) = &self.output {
            assert_eq!(String::from_utf8_lossy(&output.stdout), *expected, "{}: {output:?}", self.place);
        }
    }

    fn server(&self, clock: Option<&Clock>) -> Server {
        let mut setup = Setup::new().tcp();
        if let Some(clock) = clock {
            setup = setup.clock(clock);
        }
        if self.text.contains("CL.THROTTLE") {
            setup = setup.args(["--loadmodule"]).args([redis_cell().display()]);
        }
        setup.start()
    }
}

fn snippets_of(name: &Path) -> Vec<Snippet> {
    let text = fs::read_to_string(name).unwrap();
    let mut snippets: Vec<Snippet> = Vec::new();
    let mut before = String::new();
    for (at, piece) in text.split("```").enumerate() {
        if at % 2 == 0 {
            before = piece.to_owned();
            continue;
        }
        let (language, text) = piece.split_once('\n').unwrap();
        let place = name.strip_prefix(root()).unwrap_or(name).display();
        match snippets.last_mut() {
            Some(last) if language == "text" && before.trim().is_empty() => last.output = Some(text.to_owned()),
            _ => snippets.push(Snippet {
                place: format!("{place}, snippet {}", at / 2 + 1),
                language: language.to_owned(),
                text: text.to_owned(),
                output: None,
            }),
        }
    }
    snippets
}

fn documents() -> Vec<PathBuf> {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|kind| kind == "md"));
    pages.chain([root().join("README.md")]).collect()
}

fn all() -> Vec<Snippet> {
    documents().iter().flat_map(|name| snippets_of(name)).collect()
}

#[test]
fn snippets_do_what_they_show() {
    let Some(clock) = Clock::at(START) else { return };
    all().iter().filter(|snippet| !snippet.needs_more()).for_each(|snippet| snippet.run(&clock));
}

#[test]
#[ignore = "needs clients in Python, Node and Go: make test-examples"]
fn snippets_in_other_languages_do_what_they_show() {
    let clock = Clock::at(START).unwrap();
    all().iter().filter(|snippet| snippet.needs_more()).for_each(|snippet| snippet.run(&clock));
}

/// The reference says what the server says of itself, and names every error, field and setting.
#[test]
fn the_reference_is_complete() {
    let page = fs::read_to_string(root().join("docs/commands.md")).unwrap();
    let server = Server::start();
    let mut client = server.connect();
    let names: Vec<String> = get(client.run("COMMAND LIST FILTERBY MODULE ratelimit"));
    assert!(!names.is_empty());
    for name in names {
        let docs: Vec<(String, Vec<(String, Value)>)> = get(client.run(&format!("COMMAND DOCS {name}")));
        let said = |field: &str| {
            let value = docs[0].1.iter().find(|(name, _)| name == field).unwrap().1.clone();
            get::<String>(value)
        };
        let name = name.to_uppercase();
        let section = page.split(&format!("\n## {name}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        assert!(page.contains(&format!("({}) | {} | {} |", anchor(&name), said("summary"), said("since"))), "{name}");
        assert!(section.contains(&format!("| Complexity | {} |\n", said("complexity"))), "{name}");
        assert!(section.contains(&format!("\n{}: added.\n", said("since"))), "{name}");
    }
    let errors = fs::read_to_string(root().join("src/limiter/error.rs")).unwrap();
    let errors = errors.split("c\"").skip(1).filter_map(|rest| rest.split('"').next());
    let info = client.text("INFO ratelimit");
    let fields = info.lines().filter_map(|line| line.split_once(':')).map(|(field, _)| field);
    let settings: Vec<String> = get(client.run("CONFIG GET ratelimit.*"));
    let settings = settings.iter().step_by(2).map(String::as_str);
    for word in errors.chain(fields).chain(settings) {
        assert!(page.contains(&format!("`{word}`")), "{word}");
    }
}

/// As GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    format!("#{}", kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

/// All that a reader may follow a link from.
fn pages() -> Vec<PathBuf> {
    let others = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md", "examples/fastapi/README.md"];
    documents().into_iter().chain(others.map(|name| root().join(name))).collect()
}

/// A project's own page outlives its place in a registry, and is what a reader wants to see.
#[test]
fn no_link_leads_to_a_registry_of_packages() {
    let registries = ["pypi", "npmjs", "crates", "rubygems", "packagist", "nuget"];
    for name in pages() {
        let text = fs::read_to_string(&name).unwrap();
        for address in text.split("://").skip(1) {
            let host = address.split(|c: char| c != '.' && c != '-' && !c.is_alphanumeric()).next().unwrap_or_default();
            let labels: Vec<&str> = host.split('.').collect();
            assert!(!registries.iter().any(|registry| labels.contains(registry)), "{}: {host}", name.display());
        }
    }
}

#[test]
fn links_lead_somewhere() {
    pages().iter().for_each(|name| assert_links(name));
}

fn assert_links(name: &Path) {
    let text = fs::read_to_string(name).unwrap();
    for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let (path, section) = link.split_once('#').unwrap_or((link, ""));
        if path.contains("://") {
            continue;
        }
        let target = if path.is_empty() { name.to_owned() } else { name.with_file_name(path) };
        assert!(target.exists(), "{}: {link}", name.display());
        let text = fs::read_to_string(target).unwrap_or_default();
        let mut headings = text.lines().filter_map(|line| line.split_once("# ")).map(|(_, heading)| anchor(heading));
        let is_there = section.is_empty() || headings.any(|heading| heading == format!("#{section}"));
        assert!(is_there, "{}: {link}", name.display());
    }
}

/// What `make dist` packs is whole: its links lead somewhere, and a server starts with its configuration.
#[test]
fn packages_are_whole() {
    let dir = TempDir::new().unwrap();
    let sh = |line: &str| {
        let output =
            Command::new("sh").args(["-euc", line]).env("DIST", dir.path()).current_dir(root()).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // What `make build` built, which all tests use.
    sh("MODULE=target/release/libratelimit.so scripts/dist.sh");
    sh("mkdir $DIST/tar $DIST/deb; tar -C $DIST/tar --strip-components 1 -xzf $DIST/*.tar.gz");
    sh("if command -v dpkg-deb; then dpkg-deb -x $DIST/*.deb $DIST/deb; fi");
    for kind in ["tar", "deb"] {
        let pages = sh(&format!("find $DIST/{kind} -name '*.md'"));
        pages.lines().for_each(|page| assert_links(Path::new(page)));
        assert!(pages.lines().count() >= documents().len() || kind == "deb" && pages.is_empty(), "{kind}: {pages}");
    }
    // The server starts in its own folder, which is that of the tar.gz, as a reader would.
    let folder = TempDir::new().unwrap();
    sh(&format!("cp -R $DIST/tar/. {}", folder.path().display()));
    let setup = Setup::new().without_module().args(["--include", "redis.conf", "--port", "0"]);
    let server = setup.start_in(folder);
    assert_eq!(server.connect().answer("RATELIMIT.HIT key 1 1m")[0], 1);
}
