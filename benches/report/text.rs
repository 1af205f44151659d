//! The report as text: docs/benchmarks.md and the table in README.md.

use std::fmt::Write;
use std::fs;

use support::contenders::{
    FIXED, HIT, HIT_REFUSED, INCR, NTH_HITS, NTH_THROTTLES, SCRIPT, SORTED_SET, THROTTLE, THROTTLE_IDLE,
    THROTTLE_REFUSED,
};
use support::counts::Counts;
use support::traffic::{BATCH, CONNECTIONS};

use crate::Report;
use crate::chart;
use crate::keys::{Row, Sweep};
use crate::load::{self, Load};
use crate::memory::{self, HITS, Memory};
use crate::pauses::Waits;
use crate::variants::{STEADY, Variants};

/// 1000000 as `1,000,000`.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn first_line(path: &str, prefix: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
    line.trim_start_matches([' ', '\t', ':']).to_owned()
}

/// Everything that was measured.
pub fn all(report: &Report) -> String {
    let mut text = introduction(report);
    if !report.sweep.rows.is_empty() {
        text += &format!(
            "## In short\n\nAbove 1, `HIT` takes less. In brackets: the number of keys, and how they were taken.\n\n{}\n",
            in_short(report)
        );
        text += &by_keys(&report.sweep);
    }
    if !report.others.is_empty() {
        text += &on_others(report);
    }
    if !report.sweep.loads.is_empty() {
        text += &latency(&report.sweep);
    }
    text += INCREX;
    if let Some(variants) = &report.variants {
        text += &on_a_hundred(variants, report.rounds);
    }
    text += &instructions();
    if !report.memory.is_empty() {
        text += &memory(&report.memory);
    }
    text += &pauses(report);
    text
}

fn introduction(report: &Report) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "# Benchmarks\n\n\
         Written by `UPDATE=1 make bench` on {}, {}, {cores} cores. Machines differ: compare the ratios.\n\n\
         All servers run at their default settings, except where a row names one. Each contender has its own. They take turns in\n\
         short slices, {} rounds; all figures are medians, and each ratio is taken within one round.\n\n\
         ![CPU time of the server for one decision](benchmarks.svg)\n\n",
        report.server,
        first_line("/proc/cpuinfo", "model name"),
        report.rounds,
    )
}

/// The best and the worst, as README shows them too.
pub fn in_short(report: &Report) -> String {
    let rows = &report.sweep.rows;
    let touched: Vec<&Row> = rows.iter().filter(|row| row.order != "new").collect();
    let new: Vec<&Row> = rows.iter().filter(|row| row.order == "new").collect();
    let mut text = String::from("| times what HIT takes | best | worst |\n| --- | ---: | ---: |\n");
    for (what, rows, peer, own) in [
        ("CPU time: CL.THROTTLE, both admitting", &touched, THROTTLE, HIT),
        ("CPU time: CL.THROTTLE, both admitting, its key expired", &touched, THROTTLE_IDLE, HIT),
        ("CPU time: CL.THROTTLE, both refusing", &touched, THROTTLE_REFUSED, HIT_REFUSED),
        ("CPU time: a fixed window in Lua, both admitting", &touched, FIXED, HIT),
        ("CPU time: CL.THROTTLE, the first time on a key", &new, THROTTLE, HIT),
        ("CPU time: a fixed window in Lua, the first time on a key", &new, FIXED, HIT),
        ("CPU time: INCR, which limits nothing", &touched, INCR, HIT),
    ] {
        let mut ratios: Vec<(f64, &Row)> = rows.iter().map(|row| (row.ratio(peer, own), *row)).collect();
        ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (Some(worst), Some(best)) = (ratios.first(), ratios.last()) else { continue };
        let show = |(ratio, row): &(f64, &Row)| {
            let order = if row.order == "new" { String::new() } else { format!(", {}", row.order) };
            format!("{ratio:.2} ({} keys{order})", grouped(row.keys as f64))
        };
        let _ = writeln!(text, "| {what} | {} | {} |", show(best), show(worst));
    }
    if !report.memory.is_empty() {
        let of = |name: &str| report.memory.iter().find(|memory| memory.name == name).unwrap().bytes;
        for (what, name) in [("CL.THROTTLE", THROTTLE), ("a sorted set in Lua", SORTED_SET)] {
            let ratios = of(name).into_iter().zip(of(HIT)).map(|(peer, own)| peer / own);
            let mut ratios: Vec<(f64, usize)> = ratios.zip(HITS).collect();
            ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
            let show =
                |(ratio, hits): (f64, usize)| format!("{ratio:.2} ({hits} {})", if hits == 1 { "hit" } else { "hits" });
            let [worst, best] = [0, ratios.len() - 1].map(|at| show(ratios[at]));
            let _ = writeln!(text, "| memory of a key: {what} | {best} | {worst} |");
        }
    }
    text
}

fn by_keys(sweep: &Sweep) -> String {
    let mut text = format!(
        "## By the number of keys\n\n\
         Microseconds of CPU of the server's main thread for one decision, in pipelines of {BATCH} over {CONNECTIONS} connections. `new` is\n\
         the first decision on each key, one key after the other. For the others every key has had one: `uniform` takes each as\n\
         often as any other, `zipfian` the n-th most frequent 1/n times as often as the first. Nothing expires meanwhile, with one\n\
         exception: the key of `CL.THROTTLE` expires a moment after a client that is far below its limit, and is then made\n\
         anew.\n\n\
         The servers of one round take up to {:.1} GB together.\n\n\
         | keys | | {INCR} | {FIXED} | CL.THROTTLE | the same, expired | HIT | Lua / HIT | CL.THROTTLE / HIT | expired / HIT |\n\
         | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        sweep.memory as f64 / 1e9
    );
    for row in &sweep.rows {
        let _ = write!(text, "| {} | {} |", grouped(row.keys as f64), row.order);
        for name in [INCR, FIXED, THROTTLE, THROTTLE_IDLE, HIT] {
            let _ = write!(text, " {:.2} |", row.cost(name));
        }
        for name in [FIXED, THROTTLE, THROTTLE_IDLE] {
            let _ = write!(text, " {:.2} |", row.ratio(name, HIT));
        }
        text.push('\n');
    }
    text += "\nWhere all are refused (`HIT` by a limit of 3):\n\n\
             | keys | | CL.THROTTLE | HIT | CL.THROTTLE / HIT | HIT / INCR |\n| ---: | --- | ---: | ---: | ---: | ---: |\n";
    for row in sweep.rows.iter().filter(|row| row.order != "new") {
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.2} | {:.2} | {:.2} |",
            grouped(row.keys as f64),
            row.order,
            row.cost(THROTTLE_REFUSED),
            row.cost(HIT_REFUSED),
            row.ratio(THROTTLE_REFUSED, HIT_REFUSED),
            row.ratio(HIT_REFUSED, INCR)
        );
    }
    text + "\n"
}

fn on_others(report: &Report) -> String {
    let mut text = String::from(
        "## On other servers\n\nThe same, admitted, on the servers that `scripts/servers.sh fetch` gets.\n\n\
         | | keys | | CL.THROTTLE | HIT | CL.THROTTLE / HIT | expired / HIT | Lua / HIT |\n\
         | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (server, sweep) in &report.others {
        for row in &sweep.rows {
            let _ = writeln!(
                text,
                "| {server} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
                grouped(row.keys as f64),
                row.order,
                row.cost(THROTTLE),
                row.cost(HIT),
                row.ratio(THROTTLE, HIT),
                row.ratio(THROTTLE_IDLE, HIT),
                row.ratio(FIXED, HIT)
            );
        }
    }
    text + "\n"
}

fn latency(sweep: &Sweep) -> String {
    let loads = |name: &str| &sweep.loads.iter().find(|(known, _)| known == name).unwrap().1[..];
    let mut text = format!(
        "## Many clients on 1,000,000 keys\n\n{} connections that wait for each answer, keys uniform (redis-benchmark, unix socket), and the\n\
         ratio of p99.9 to that of `INCR`. Milliseconds.\n\n\
         | | requests a second | p50 | p99 | p99.9 | / INCR |\n| --- | ---: | ---: | ---: | ---: | ---: |\n",
        load::CONNECTIONS
    );
    for (name, values) in &sweep.loads {
        let ratio = Load::ratio(values, loads(INCR), |load| load.p999);
        let _ = writeln!(text, "| {name} |{} {ratio:.2} |", Load::columns(values));
    }
    text + "\n"
}

const INCREX: &str = "## INCREX\n\n\
    `INCREX` is a fixed window in the server itself, from Redis 8.8 on. It is the exception: it costs less than an exact hit. These\n\
    figures are not from `make bench`, which does not repeat them, since no server with `INCREX` could be had. It was rewritten\n\
    after its documentation and run elsewhere, on Redis 8.6.3, beside this module as it was then:\n\n\
    | | instructions admitting | refusing | CPU admitting | refusing | bytes of a key |\n\
    | --- | ---: | ---: | ---: | ---: | ---: |\n\
    | INCREX, rewritten | 9300 | 7400 | 0.90 | 0.74 | 90 |\n\
    | HIT of that time | 15600 | 8100 | 1.63 | 0.86 | 835 |\n\
    | CL.THROTTLE | 27000 | 19200 | 2.70 | 1.73 | - |\n\n";

fn on_a_hundred(variants: &Variants, rounds: usize) -> String {
    let mut text = format!(
        "## What else can be asked\n\n\
         {} keys that take turns, on which variants can be compared; [above](#by-the-number-of-keys) is what more keys cost.\n\n\
         * **instructions** of the server, by callgrind (`make instructions`). They repeat, whatever else the machine does.\n\
         * **CPU** of the server in microseconds, and its ratio to `INCR`.\n\
         * **requests a second**, **p50**, **p99** and **p99.9** in milliseconds: {} connections that wait for each answer.\n\
         * **alone**: microseconds that one client waits for one decision.\n\n\
         Medians of {rounds} rounds. Where hits are admitted, the window is {} seconds and the log holds the hits of that time.\n\n\
         | | instructions | CPU | / INCR | requests a second | p50 | p99 | p99.9 | alone |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        STEADY.keys,
        load::CONNECTIONS,
        STEADY.seconds
    );
    let counts = Counts::read();
    for variant in &variants.all {
        let name = &variant.name;
        let counted = counts.get(name).map_or("-".to_owned(), |count| count.to_string());
        let _ = write!(text, "| {name} | {counted} | {:.2} | {:.2} |", variant.cpu(), variants.cpu_ratio(name, INCR));
        text += &if variant.loads.is_empty() { " - | - | - | - |".to_owned() } else { Load::columns(&variant.loads) };
        let _ = writeln!(text, " {:.0} |", variant.alone());
    }
    if !variants.crab.is_empty() {
        let columns = Load::columns(&variants.crab);
        let _ = writeln!(text, "| throttlecrab-server 0.4.40, over TCP | - | - | - |{columns} - |");
    }
    text += "\n| CPU time of the server | times |\n| --- | ---: |\n";
    for (what, one, other) in [
        ("a million hits in the log, over what comes in ten seconds", "HIT admitted, 1,000,000 hits in the log", HIT),
        ("COST 1000, over COST 1", "HIT admitted, COST 1000", "HIT admitted, COST 1"),
        ("three tiers, over one", "HIT admitted, three tiers", HIT),
        ("no table of cursors, over one", "HIT admitted, no cursors", HIT),
        ("nodes of 512 bytes, over the default", "HIT admitted, nodes of 512 bytes", HIT),
        ("a sorted set in Lua, over HIT", SORTED_SET, HIT),
        ("this log in Lua, over HIT", SCRIPT, HIT),
        ("the plain recipe in Lua, over HIT", "Lua: the plain recipe", HIT),
    ] {
        let _ = writeln!(text, "| {what} | {:.2} |", variants.cpu_ratio(one, other));
    }
    text + "\n"
}

/// What only `make instructions` counts.
fn instructions() -> String {
    let counts = Counts::read();
    let show = |name: &str| counts.get(name).map_or("-".to_owned(), |count| count.to_string());
    let mut text = format!(
        "## Instructions\n\nWhat `make instructions` has counted on {}, beside the table above. Each of 10,000 keys in turn:\n\n\
         | | first | second | third | fourth |\n| --- | ---: | ---: | ---: | ---: |\n",
        counts.server
    );
    let _ = writeln!(text, "| HIT admitted | {} |", NTH_HITS.map(&show).join(" | "));
    let _ = writeln!(text, "| CL.THROTTLE admitted | {} | | |", NTH_THROTTLES.map(&show).join(" | "));
    text += "\nCommands of others, on a server with the module and on one without:\n\n\
             | | without | with | more |\n| --- | ---: | ---: | ---: |\n";
    for (with, without) in counts.pairs() {
        let (Some(more), Some(base)) = (counts.get(&with), counts.get(&without)) else { continue };
        let percent = (more as f64 / base as f64 - 1.0) * 100.0;
        let _ = writeln!(text, "| {without} | {base} | {more} | {percent:.1} % |");
    }
    text += "\nA busy key:\n\n\
             | | HIT admitted | refused | CL.THROTTLE admitted | key expired | HIT / CL.THROTTLE | HIT / expired |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    let own = (counts.server.clone(), String::new());
    for (server, prefix) in [own].into_iter().chain(counts.servers().map(|server| (server.clone(), server + ": "))) {
        let names = [HIT, HIT_REFUSED, THROTTLE, THROTTLE_IDLE];
        let [Some(hit), Some(refused), Some(peer), Some(idle)] =
            names.map(|name| counts.get(&format!("{prefix}{name}")))
        else {
            continue;
        };
        let [to_peer, to_idle] = [peer, idle].map(|peer| hit as f64 / peer as f64);
        let _ = writeln!(text, "| {server} | {hit} | {refused} | {peer} | {idle} | {to_peer:.2} | {to_idle:.2} |");
    }
    text + "\n"
}

fn memory(all: &[Memory]) -> String {
    let mut text = format!(
        "## Memory\n\n\
         Growth of `used_memory` in bytes for each of {} keys. This includes the key's name and its entries in the server's two\n\
         dictionaries. Where two numbers stand, the second is a replica's.\n\n\
         | hits | {} |\n| --- |{}\n",
        grouped(memory::KEYS as f64),
        HITS.map(|hits| hits.to_string()).join(" | "),
        " ---: |".repeat(HITS.len())
    );
    for Memory { name, bytes, on_replica, .. } in all {
        let cells = bytes.iter().zip(on_replica).map(|(own, replica)| {
            if (own - replica).abs() * 50.0 < *own {
                format!(" {} |", grouped(*own))
            } else {
                format!(" {} / {} |", grouped(*own), grouped(replica.max(0.0)))
            }
        });
        let _ = writeln!(text, "| {name} |{}", cells.collect::<String>());
    }
    let table = all.iter().map(|memory| memory.table).max().unwrap_or(0);
    let _ = write!(
        text,
        "\nThe module's table of cursors takes {:.1} MB more at most, once for all keys, and none on a replica. The plain recipe's key\n\
         never expires. A fixed window and `CL.THROTTLE` store one number, whatever the hits; redis-cell 0.2.2 does not\n\
         replicate.\n\n",
        table as f64 / 1e6
    );
    text
}

fn pauses(report: &Report) -> String {
    let mut text = String::new();
    if let Some(Waits { longest, p999, took }) = report.long_log {
        text += &format!(
            "## The longest command\n\nA key with 1,000,000 hits, all expired, is hit again. The command takes {took:.0} microseconds, because the log is\n\
             unlinked and freed in the background. A client that sends PING meanwhile waits {p999:.2} ms at p99.9 and {longest:.2} ms at\n\
             most (medians of three runs).\n"
        );
    }
    if !report.expiry.is_empty() {
        text += "\n## A million keys expire\n\n\
                 All in the same millisecond. The server deletes them little by little; a client that sends PING meanwhile waits, in\n\
                 milliseconds (medians of three runs):\n\n\
                 | | longest | p99.9 | until all are gone |\n| --- | ---: | ---: | ---: |\n";
        for (name, waits) in &report.expiry {
            let _ = writeln!(text, "| {name} | {:.1} | {:.2} | {} |", waits.longest, waits.p999, grouped(waits.took));
        }
    }
    text
}

pub fn cpu_chart(sweep: &Sweep) -> String {
    let groups: Vec<chart::Group> = sweep
        .rows
        .iter()
        .filter(|row| row.order == "uniform")
        .map(|row| {
            let bars = [INCR, HIT_REFUSED, THROTTLE_REFUSED, HIT, FIXED, THROTTLE, THROTTLE_IDLE];
            let bars = bars.map(|name| (name.to_owned(), row.cost(name)));
            (format!("{} keys", grouped(row.keys as f64)), bars.to_vec())
        })
        .collect();
    chart::draw("CPU time of the server for one decision, in microseconds, uniform keys", "µs", &groups)
}
