//! The sessions of the README are run, so that they cannot go stale.

use std::fs;
use std::path::Path;

use crate::support::{START, Server};

const PROMPT: &str = "127.0.0.1:6379> ";

/// The ```console blocks of a document. `# 4000 ms later` moves the clock.
fn sessions(text: &str) -> impl Iterator<Item = &str> {
    text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next())
}

fn run(session: &str) {
    let (server, clock) = Server::on_clock();
    let mut now = START;
    let mut shown = String::new();
    for line in session.lines() {
        if let Some(time) = line.strip_prefix("# ").and_then(|text| text.strip_suffix(" ms later")) {
            now += time.parse::<u64>().unwrap();
            clock.set(now);
            shown += &format!("{line}\n");
        } else if let Some(command) = line.strip_prefix(PROMPT) {
            let output = server.redis_cli().arg("--no-raw").args(command.split(' ')).output().unwrap();
            shown += &format!("{PROMPT}{command}\n{}", String::from_utf8(output.stdout).unwrap());
        }
    }
    assert_eq!(shown, session);
}

#[test]
fn the_sessions_of_the_readme() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(sessions(&text).count() > 0);
    sessions(&text).for_each(run);
}
