//! Many clients that wait for each answer, by redis-tools' own load generator.

use std::process::{Command, Stdio};

use support::Server;
use support::traffic::median;

/// Connections that each wait for one answer at a time.
pub const CONNECTIONS: usize = 50;

#[derive(Clone, Copy, Default)]
pub struct Load {
    pub per_second: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Load {
    /// Medians of one of its parts.
    pub fn median(loads: &[Self], part: fn(&Self) -> f64) -> f64 {
        median(loads.iter().map(part).collect())
    }

    /// How many times that of another contender a part is, in each round.
    pub fn ratio(one: &[Self], other: &[Self], part: fn(&Self) -> f64) -> f64 {
        median(one.iter().zip(other).map(|(one, other)| part(one) / part(other)).collect())
    }

    /// Columns of a table.
    pub fn columns(loads: &[Self]) -> String {
        let of = |part| Self::median(loads, part);
        let [rate, p50, p99, p999] = [of(|l| l.per_second), of(|l| l.p50), of(|l| l.p99), of(|l| l.p999)];
        format!(" {rate:.0} | {p50:.2} | {p99:.2} | {p999:.2} |")
    }
}

/// How to reach a server.
pub fn to(server: &Server) -> Vec<String> {
    vec!["-s".to_owned(), server.socket().display().to_string()]
}

/// So many requests on so many keys, which look like `key:000000000042`.
pub fn redis_benchmark(target: &[String], template: &str, keys: usize, requests: usize) -> Load {
    let line = template.replace("KEY", "key:__rand_int__");
    let mut command = Command::new("redis-benchmark");
    command.args(target).args(["-c", &CONNECTIONS.to_string(), "-n", &requests.to_string(), "-r", &keys.to_string()]);
    let output = command.args(line.split(' ')).stderr(Stdio::null()).output().expect("redis-benchmark is missing");
    let text = String::from_utf8_lossy(&output.stdout);
    let per_second = text.lines().find_map(|line| line.trim().strip_prefix("throughput summary: ")?.split(' ').next());
    // The first line of the cumulative distribution that reaches this percentage.
    let at = |percent: f64| {
        text.lines()
            .filter_map(|line| {
                let (share, rest) = line.trim().split_once("% <= ")?;
                let milliseconds = rest.split(' ').next()?.parse::<f64>().ok()?;
                (share.parse::<f64>().ok()? >= percent).then_some(milliseconds)
            })
            .next()
            .unwrap_or_else(|| panic!("redis-benchmark: {text}"))
    };
    Load { per_second: per_second.unwrap().parse().unwrap(), p50: at(50.0), p99: at(99.0), p999: at(99.9) }
}
