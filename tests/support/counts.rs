//! `benches/instructions.txt`: how many instructions of the server were counted for each decision, one line each.

use std::fs;
use std::path::PathBuf;

use crate::contenders::{BESIDE, OTHERS};
use crate::modules::root;

fn file() -> PathBuf {
    root().join("benches/instructions.txt")
}

/// What is written down: the server that was counted on, and the rows in their order.
#[derive(Default)]
pub struct Counts {
    pub server: String,
    rows: Vec<(String, u64)>,
}

impl Counts {
    pub fn read() -> Self {
        let text = fs::read_to_string(file()).unwrap_or_default();
        let mut counts = Self::default();
        for line in text.lines() {
            match line.strip_prefix("# ") {
                Some(server) => server.clone_into(&mut counts.server),
                None => {
                    let (name, count) = line.rsplit_once(": ").unwrap_or_else(|| panic!("instructions.txt: {line}"));
                    counts.set(name, count.parse().unwrap());
                }
            }
        }
        counts
    }

    pub fn get(&self, name: &str) -> Option<u64> {
        self.rows.iter().find_map(|(known, count)| (known == name).then_some(*count))
    }

    /// Commands of others: their rows with the module, and without.
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        OTHERS.into_iter().map(|(name, _)| (format!("{name}{BESIDE}"), name.to_owned()))
    }

    /// Servers that have rows of their own, `Valkey 9.1.2: HIT admitted`.
    pub fn servers(&self) -> impl Iterator<Item = String> {
        let mut servers: Vec<String> = self
            .rows
            .iter()
            .filter_map(|(name, _)| name.split_once(": ").map(|(server, _)| server.to_owned()))
            .filter(|server| server.contains(|c: char| c.is_ascii_digit()))
            .collect();
        servers.dedup();
        servers.into_iter()
    }

    pub fn set(&mut self, name: &str, count: u64) {
        match self.rows.iter_mut().find(|(known, _)| known == name) {
            Some(row) => row.1 = count,
            None => self.rows.push((name.to_owned(), count)),
        }
    }

    /// Takes the rows of a server as they are elsewhere.
    pub fn take_over(&mut self, other: &Self, server: &str) {
        for (name, count) in other.rows.iter().filter(|(name, _)| name.starts_with(&format!("{server}: "))) {
            self.set(name, *count);
        }
    }

    pub fn write(&self) {
        let mut text = format!("# {}\n", self.server);
        for (name, count) in &self.rows {
            text += &format!("{name}: {count}\n");
        }
        fs::write(file(), text).unwrap();
    }
}
