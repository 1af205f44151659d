//! The sessions of the documents are run, so that they cannot go stale.

use std::fs;
use std::path::Path;

use crate::support::{Clock, START, Setup};

const PROMPT: &str = "127.0.0.1:6379> ";

/// The ```console blocks of a document. `# 4000 ms later` moves the clock.
fn sessions(text: &str) -> impl Iterator<Item = &str> {
    text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next())
}

fn run(session: &str, clock: &Clock) {
    clock.set(START);
    let server = Setup::new().clock(clock).start();
    let mut now = START;
    let mut shown = String::new();
    for line in session.lines() {
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
    assert_eq!(shown, session);
}

#[test]
fn sessions_are_as_shown() {
    let Some(clock) = Clock::at(START) else { return };
    for name in ["README.md", "docs/commands.md"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        assert!(sessions(&text).count() > 0, "{name}");
        sessions(&text).for_each(|session| run(session, &clock));
    }
}
