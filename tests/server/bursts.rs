//! The chart of docs/how-it-works.md is right: what four limiters of 10 hits in 10 s admit of the same bursty traffic, on a
//! real server whose clock is set. `UPDATE=1 make test-examples` writes the chart and its data; otherwise they must be the same.

use std::fmt::Write;
use std::fs;

use redis::{Cmd, Value};
use support::modules::redis_cell;
use support::{Ask, Clock, START, Setup, get, root, words};

const LIMIT: usize = 10;
const WINDOW: u64 = 10_000;
const END: u64 = 120_000;

/// A counter that expires a window after its first hit.
const FIXED: &str = "local n = redis.call('INCR', KEYS[1]) \
    if n == 1 then redis.call('PEXPIRE', KEYS[1], 10000) end \
    return n > 10 and 0 or 1";

/// The count of this window of the clock, and as much of the one before as the last ten seconds reach into it.
const WEIGHTED: &str = "local t = redis.call('TIME') \
    local now = t[1] * 1000 + math.floor(t[2] / 1000) \
    local this = math.floor(now / 10000) \
    local count = tonumber(redis.call('HGET', KEYS[1], this) or 0) \
    local before = tonumber(redis.call('HGET', KEYS[1], this - 1) or 0) \
    if before * (1 - now % 10000 / 10000) + count + 1 > 10 then return 0 end \
    redis.call('HINCRBY', KEYS[1], this, 1) \
    return 1";

struct Limiter {
    name: &'static str,
    call: Cmd,
    admits: fn(Value) -> bool,
}

fn limiters() -> [Limiter; 4] {
    let script = |source: &str, key: &str| redis::cmd("EVAL").arg(source).arg(1).arg(key).to_owned();
    [
        Limiter { name: "Fixed window", call: script(FIXED, "fixed"), admits: |reply| get::<i64>(reply) == 1 },
        Limiter {
            name: "Weighted counters",
            call: script(WEIGHTED, "weighted"),
            admits: |reply| get::<i64>(reply) == 1,
        },
        Limiter {
            name: "GCRA",
            call: words("CL.THROTTLE gcra 9 10 10"),
            admits: |reply| get::<Vec<i64>>(reply)[0] == 0,
        },
        Limiter {
            name: "Sliding-window log",
            call: words("RATELIMIT.HIT log 10 10s"),
            admits: |reply| get::<Vec<i64>>(reply)[0] == 1,
        },
    ]
}

/// Bursts of up to a dozen hits, with pauses of up to eight seconds.
fn traffic() -> Vec<u64> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut hits = Vec::new();
    let mut at = 1_000;
    while at < END {
        for _ in 0..rng.u64(1..=12) {
            hits.push(at);
            at += rng.u64(20..=80);
        }
        at += rng.u64(1_000..=8_000);
    }
    hits.retain(|&at| at < END);
    hits
}

/// What became of each hit with one limiter.
struct Run {
    name: &'static str,
    hits: Vec<(u64, bool)>,
}

impl Run {
    fn admitted(&self) -> impl Iterator<Item = u64> {
        self.hits.iter().filter(|(_, admitted)| *admitted).map(|(at, _)| *at)
    }

    /// Hits that are admitted in the window that ends at `now`.
    fn in_window(&self, now: u64) -> usize {
        self.admitted().filter(|&at| at <= now && at + WINDOW > now).count()
    }

    fn most(&self) -> usize {
        self.admitted().map(|at| self.in_window(at)).max().unwrap_or(0)
    }

    /// Hits that are refused though fewer than the limit were admitted in the window.
    fn in_vain(&self) -> usize {
        self.hits.iter().filter(|(at, admitted)| !admitted && self.in_window(*at) < LIMIT).count()
    }
}

fn runs() -> Vec<Run> {
    let clock = Clock::at(START).unwrap();
    let server = Setup::new().clock(&clock).args(["--loadmodule"]).args([redis_cell().display()]).start();
    let mut client = server.connect();
    let limiters = limiters();
    let mut runs: Vec<Run> = limiters.iter().map(|limiter| Run { name: limiter.name, hits: Vec::new() }).collect();
    for at in traffic() {
        clock.set(START + at);
        for (limiter, run) in limiters.iter().zip(&mut runs) {
            run.hits.push((at, (limiter.admits)(client.ask(&limiter.call).unwrap())));
        }
    }
    runs
}

fn csv(runs: &[Run]) -> String {
    let names: Vec<&str> = runs.iter().map(|run| run.name).collect();
    let mut text = format!("Milliseconds,{}\n", names.join(","));
    for (row, (at, _)) in runs[0].hits.iter().enumerate() {
        let admitted: Vec<&str> = runs.iter().map(|run| if run.hits[row].1 { "1" } else { "0" }).collect();
        writeln!(text, "{at},{}", admitted.join(",")).unwrap();
    }
    text
}

/// A row of the table in the document.
fn row(run: &Run) -> String {
    format!("| {} | {} | {} | {} |", run.name, run.admitted().count(), run.most(), run.in_vain())
}

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#24292f}.s{font-size:11px;fill:#57606a}.b{font-weight:600}\
.bg{fill:#fff}.a{fill:#9ec5f4}.o{fill:#d1242f}.t{stroke:#24292f}.r{stroke:#8c959f}.g{stroke:#d0d7de}\
.l{stroke:#24292f;stroke-dasharray:5 4}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.bg{fill:#0d1117}\
.a{fill:#1f4f8f}.o{fill:#f85149}.t{stroke:#e6edf3}.r{stroke:#6e7681}.g{stroke:#30363d}.l{stroke:#e6edf3}}";

const WIDTH: u64 = 780;
const LEFT: f64 = 40.0;
const PANEL: f64 = 138.0;
/// Pixels of a hit in the window.
const UNIT: f64 = 3.6;

/// One panel a limiter: how many hits it has admitted in the last ten seconds, over time.
fn svg(runs: &[Run]) -> String {
    let x = |at: u64| LEFT + at as f64 * (WIDTH as f64 - LEFT - 26.0) / END as f64;
    let height = 34.0 + PANEL * runs.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>Hits that four limiters of 10 in 10 s have admitted in the last 10 s, of the same traffic</title>\n\
         <style>{STYLE}</style>\n<rect class=\"bg\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n"
    );
    for (number, run) in runs.iter().enumerate() {
        let base = PANEL * (number as f64 + 1.0) - 14.0;
        let y = |hits: usize| base - hits as f64 * UNIT;
        let (left, right, limit) = (x(0), x(END), y(LIMIT));
        // The count changes when a hit is admitted, and a window later.
        let mut changes: Vec<u64> = run.admitted().flat_map(|at| [at, at + WINDOW]).filter(|&at| at <= END).collect();
        changes.sort_unstable();
        let mut path = format!("M{left} {base}");
        for at in changes {
            write!(path, "H{:.1}V{:.1}", x(at), y(run.in_window(at))).unwrap();
        }
        write!(path, "H{right}V{base}Z").unwrap();
        let ticks = |admitted: bool, length: f64| {
            let hits = run.hits.iter().filter(|hit| hit.1 == admitted);
            hits.map(|(at, _)| format!("M{:.1} {}v{length}", x(*at), base + 4.0)).collect::<String>()
        };
        let top = base - 92.0;
        let (admitted, most, in_vain) = (run.admitted().count(), run.most(), run.in_vain());
        write!(
            out,
            "<text class=\"b\" x=\"{left}\" y=\"{top}\">{}</text>\n\
             <text class=\"s\" x=\"{right}\" y=\"{top}\" text-anchor=\"end\">{admitted} admitted; at most {most} in 10 s; \
             {in_vain} refused though there was room</text>\n\
             <clipPath id=\"c{number}\"><rect x=\"0\" y=\"0\" width=\"{WIDTH}\" height=\"{limit}\"/></clipPath>\n\
             <path class=\"a\" d=\"{path}\"/>\n<path class=\"o\" d=\"{path}\" clip-path=\"url(#c{number})\"/>\n\
             <path class=\"g\" d=\"M{left} {base}H{right}\"/>\n<path class=\"l\" d=\"M{left} {limit}H{right}\"/>\n\
             <path class=\"t\" d=\"{}\"/>\n<path class=\"r\" d=\"{}\"/>\n",
            run.name,
            ticks(true, 10.0),
            ticks(false, 4.0),
        )
        .unwrap();
        for hits in [0, LIMIT, 2 * LIMIT] {
            let (x, y) = (left - 6.0, y(hits) + 4.0);
            writeln!(out, "<text class=\"s\" x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{hits}</text>").unwrap();
        }
    }
    for at in (0..=END).step_by(20_000) {
        let (x, y, seconds) = (x(at), height - 14.0, at / 1_000);
        writeln!(out, "<text class=\"s\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{seconds} s</text>").unwrap();
    }
    out + "</svg>\n"
}

#[test]
#[ignore = "needs CL.THROTTLE: make test-examples"]
fn the_chart_is_what_servers_do() {
    let runs = runs();
    let log = runs.last().unwrap();
    assert_eq!((log.most(), log.in_vain()), (LIMIT, 0));
    for (name, text) in [("docs/bursts.csv", csv(&runs)), ("docs/bursts.svg", svg(&runs))] {
        if std::env::var_os("UPDATE").is_some() {
            fs::write(root().join(name), &text).unwrap();
        }
        assert!(fs::read_to_string(root().join(name)).unwrap() == text, "{name} is not what the servers do");
    }
    let document = fs::read_to_string(root().join("docs/how-it-works.md")).unwrap();
    for run in &runs {
        assert!(document.contains(&row(run)), "{}", row(run));
    }
}
