//! Many clients wait: served in the order in which they came, as many in each window as the limit says, none lost, on time,
//! and the server has next to nothing to do meanwhile. `make test-long` has a thousand of them wait on `100 1s`.
//!
//! The figures in the documents are what these tests print:
//!
//!     RATELIMIT_LONG=1 cargo test --test server waiting_crowds -- --nocapture --test-threads 1

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use redis::Connection;
use support::client::{number, time_of};
use support::modules::reactor;
use support::servers::cpu_time;
use support::{Ask, Server, Setup, is_long, wait_for, words};

use crate::waiting::{Waiter, ended, full, waiting};

/// What is late by so much as a rule is wrong, and not the machine.
const LATE: Duration = Duration::from_millis(150);

/// More than what anybody asks for, in a second tier. It keeps everybody waiting until it is taken away, and the log complete.
const MOST: u64 = 1 << 50;

/// How many wait, on what limit in a window of so many milliseconds.
struct Crowd {
    clients: u64,
    limit: u64,
    window: u64,
}

impl Crowd {
    fn new(clients: u64) -> Self {
        if is_long() {
            Self { clients: 1_000, limit: 100, window: 1_000 }
        } else {
            Self { clients, limit: 20, window: 200 }
        }
    }

    /// Each hit has another cost, so the log shows whose it is, but no window has room for one more or one less.
    fn cost(&self, nth: u64) -> u64 {
        100 * self.clients * self.limit + nth
    }

    fn nth(&self, cost: &str) -> u64 {
        number(cost) - self.cost(0)
    }

    fn line(&self, nth: u64) -> String {
        let (limit, window, cost) = (self.limit * self.cost(self.clients), self.window, self.cost(nth));
        format!("RATELIMIT.HIT k {limit} {window}ms {MOST} 1h COST {cost} WAIT 2h")
    }

    /// Nobody is served until the key is reset.
    fn close(&self, client: &mut Connection) {
        client.run(&format!("RATELIMIT.HIT k {MOST} 1h COST {MOST}"));
    }

    /// Who was served, in order, and how late by the log. No window holds more than the limit.
    fn served(&self, client: &mut Connection) -> (Vec<u64>, Vec<Turn>) {
        let entries = client.entries("k");
        let times: Vec<u64> = entries.iter().map(|(id, ..)| time_of(id)).collect();
        let a_window_later = times.iter().skip(self.limit as usize);
        let turns =
            times.iter().zip(a_window_later).map(|(before, time)| Turn { due: before + self.window, time: *time });
        (entries.iter().map(|(_, _, cost)| self.nth(cost)).collect(), turns.collect())
    }
}

/// When there was room for a hit, and when it was recorded, in milliseconds of the server's clock.
struct Turn {
    due: u64,
    time: u64,
}

/// Microseconds of the machine's clock, which is the server's.
fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64
}

/// Prints how late turns came by the log, and how late their replies. Returns the median of that.
fn lateness(what: &str, turns: &[Turn], replies: &[u64]) -> Duration {
    let by_log = turns.iter().map(|turn| {
        assert!(turn.time >= turn.due, "no window holds more than the limit");
        (turn.time - turn.due) * 1_000
    });
    let by_reply = turns.iter().zip(replies).map(|(turn, reply)| reply.saturating_sub(turn.due * 1_000));
    [("recorded", by_log.collect::<Vec<_>>()), ("replied", by_reply.collect())].map(|(how, mut late)| {
        late.sort_unstable();
        let [half, most, worst] = [50, 99, 100].map(|percent| late[(late.len() * percent / 100).min(late.len() - 1)]);
        let shown = [half, most, worst].map(|micros| micros as f64 / 1_000.0);
        let [half_ms, most, worst] = shown;
        eprintln!(
            "{what}: {} turns {how} {half_ms:.1} ms late (median), {most:.1} (99 %), {worst:.1} (worst)",
            late.len()
        );
        Duration::from_micros(half)
    })[1]
}

/// The share of a processor that the server takes while something is done.
fn cpu(server: &Server, what: &str, doing: impl FnOnce()) {
    let (before, since) = (cpu_time(server.pid()), Instant::now());
    doing();
    let share = (cpu_time(server.pid()) - before).as_secs_f64() / since.elapsed().as_secs_f64();
    eprintln!("{what}: {:.2} % of a processor", 100.0 * share);
    assert!(share < 0.1, "{what}: {share}");
}

#[test]
fn served_in_the_order_in_which_they_came() {
    let crowd = Crowd::new(200);
    let server = Server::start();
    let mut client = server.connect();
    crowd.close(&mut client);
    let mut waiters = Vec::new();
    for nth in 0..crowd.clients {
        waiters.push(Waiter::send(server.connect(), &crowd.line(nth)));
        wait_for("it waits", || waiting(&mut client) == nth + 1);
    }
    cpu(&server, "while all wait", || sleep(Duration::from_secs(1)));
    client.run("RATELIMIT.RESET k");
    let mut replies = Vec::new();
    cpu(&server, "while all are served", || {
        for waiter in &mut waiters {
            assert_eq!(waiter.answer()[0], 1);
            replies.push(now());
        }
    });
    let (served, turns) = crowd.served(&mut client);
    assert_eq!(served, (0..crowd.clients).collect::<Vec<_>>());
    let late = lateness("one line", &turns, &replies[crowd.limit as usize..]);
    assert!(late < LATE, "{late:?}");
    assert_eq!((waiting(&mut client), ended(&mut client)), (0, [crowd.clients, 0, 0]));
}

/// A client that is a process.
struct Process(Child);

impl Process {
    fn start(server: &Server, line: &str) -> Self {
        let mut command = server.redis_cli();
        Self(command.args(line.split(' ')).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    /// As by `kill -9`.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every second client is killed: one in four before anybody is served, and one in four while they are.
#[test]
fn half_of_them_are_killed() {
    let crowd = Crowd::new(80);
    let server = Server::start();
    let mut client = server.connect();
    crowd.close(&mut client);
    let (mut stay, mut die_first, mut die_later) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 0..crowd.clients {
        match nth % 4 {
            1 => die_first.push(Process::start(&server, &crowd.line(nth))),
            3 => die_later.push(Process::start(&server, &crowd.line(nth))),
            _ => stay.push(Waiter::send(server.connect(), &crowd.line(nth))),
        }
        wait_for("it waits", || waiting(&mut client) == nth + 1);
    }
    let dead = die_first.len() as u64;
    drop(die_first);
    wait_for("the server knows", || waiting(&mut client) == crowd.clients - dead);
    assert_eq!(ended(&mut client), [0, 0, dead]);
    client.run("RATELIMIT.RESET k");
    sleep(Duration::from_millis(crowd.window / 2));
    drop(die_later);
    stay.iter_mut().for_each(|waiter| assert_eq!(waiter.answer()[0], 1));
    wait_for("nobody is left", || waiting(&mut client) == 0);
    let (served, turns) = crowd.served(&mut client);
    assert!(turns.iter().all(|turn| turn.time >= turn.due), "no window holds more than the limit");
    assert!(served.is_sorted_by(|one, next| one < next), "{served:?}");
    assert!(!served.iter().any(|nth| nth % 4 == 1), "nobody is counted who left before: {served:?}");
    let staying: Vec<u64> = served.iter().copied().filter(|nth| nth % 2 == 0).collect();
    assert_eq!(staying, (0..crowd.clients).step_by(2).collect::<Vec<_>>());
    let [admitted, timed_out, disconnected] = ended(&mut client);
    assert_eq!([admitted, timed_out, admitted + disconnected], [served.len() as u64, 0, crowd.clients]);
}

/// The hit of a key and the one that has waited for it to leave.
fn turn_of(client: &mut Connection, key: &str, window: u64) -> Turn {
    let entries = client.entries(key);
    assert_eq!(entries.len(), 2, "{entries:?}");
    Turn { due: time_of(&entries[0].0) + window, time: time_of(&entries[1].0) }
}

#[test]
fn a_turn_of_a_single_client() {
    let turns = if is_long() { 300 } else { 20 };
    let server = Server::start();
    let mut client = server.connect();
    let (mut all, mut replies) = (Vec::new(), Vec::new());
    for nth in 0..turns {
        // Turns come at any place between two ticks of the server.
        let window = 20 + nth % 17;
        let line = format!("RATELIMIT.HIT k:{nth} 1 {window}ms 100 1h");
        client.run(&line);
        assert_eq!(client.answer(&format!("{line} WAIT 1h"))[0], 1);
        replies.push(now());
        all.push(turn_of(&mut client, &format!("k:{nth}"), window));
    }
    let late = lateness("a single client", &all, &replies);
    assert!(late < LATE, "{late:?}");
}

/// The worst case: all have their turns in the same millisecond, each on a key of its own.
#[test]
fn turns_of_many_keys_at_once() {
    const WINDOW: u64 = 1_000;
    let keys = if is_long() { 1_000 } else { 100 };
    let server = Server::start();
    let mut client = server.connect();
    let mut connections: Vec<Connection> = (0..keys).map(|_| server.connect()).collect();
    // The machine may pause in any round, but not in all.
    let late = (0..5).map(|round| {
        let key = |nth: usize| format!("k:{round}:{nth}");
        let line = |nth: usize| format!("RATELIMIT.HIT {} 1 {WINDOW}ms 100 1h", key(nth));
        let mut fill = redis::pipe();
        fill.atomic();
        (0..keys).for_each(|nth| _ = fill.add_command(words(&line(nth))));
        fill.exec(&mut client).unwrap();
        let send = |(nth, client)| Waiter::send(client, &format!("{} WAIT 1h", line(nth)));
        let mut waiters: Vec<Waiter> = connections.drain(..).enumerate().map(send).collect();
        let mut replies = Vec::new();
        for waiter in &mut waiters {
            assert_eq!(waiter.answer()[0], 1);
            replies.push(now());
        }
        connections = waiters.into_iter().map(|waiter| waiter.0).collect();
        let turns: Vec<Turn> = (0..keys).map(|nth| turn_of(&mut client, &key(nth), WINDOW)).collect();
        lateness("many keys at once", &turns, &replies)
    });
    let late = late.min().unwrap();
    assert!(late < LATE, "{late:?}");
}

#[test]
fn refusals_at_the_timeout() {
    let server = Server::start();
    let mut client = server.connect();
    let waiters: Vec<(Waiter, Instant)> = (0..20)
        .map(|nth| {
            client.run(&format!("RATELIMIT.HIT k:{nth} 1 2s"));
            let line = format!("RATELIMIT.HIT k:{nth} 1 2s WAIT {}ms", 2_200 + 10 * nth);
            (Waiter::send(server.connect(), &line), Instant::now() + Duration::from_millis(2_200 + 10 * nth))
        })
        .collect();
    wait_for("all wait", || waiting(&mut client) == 20);
    sleep(Duration::from_millis(500));
    // A plain hit makes a turn too late.
    (0..20).for_each(|nth| _ = client.run(&format!("RATELIMIT.HIT k:{nth} 2 2s")));
    let refused = |(mut waiter, timeout): (Waiter, Instant)| {
        assert_eq!(waiter.answer()[0], 0);
        timeout.elapsed()
    };
    let mut late: Vec<Duration> = waiters.into_iter().map(refused).collect();
    late.sort_unstable();
    eprintln!("a refusal at the timeout: {:.1?} late (median), {:.1?} (worst)", late[10], late[19]);
    assert!(late[10] < LATE, "{late:?}");
}

/// What a client takes of the server's memory while it waits: its own buffers, what a server keeps for each client that a
/// module blocks, and what the module keeps.
#[test]
fn memory_of_a_client_that_waits() {
    // The more there are, the less is what the first of them takes.
    let (clients, most) = if is_long() { (1_000, 500) } else { (100, 700) };
    let bytes = |line: &str| {
        let server = Setup::new().args(["--loadmodule"]).args([reactor().display()]).start();
        let mut client = server.connect();
        full(&mut client, "1h");
        let mut settled = || {
            let mut used = (0, client.used_memory());
            // The server takes back buffers that it does not need.
            wait_for("memory has settled", || {
                sleep(Duration::from_millis(1_200));
                used = (used.1, client.used_memory());
                (used.0 - used.1).abs() < 1_000
            });
            used.1
        };
        let before = settled();
        let connections: Vec<Connection> = (0..clients).map(|_| server.connect()).collect();
        let _blocked: Vec<Waiter> = connections.into_iter().map(|client| Waiter::send(client, line)).collect();
        let mut operator = server.connect();
        wait_for("all wait", || operator.info("clients", "blocked_clients") == clients.to_string());
        drop(operator);
        (settled() - before) / clients
    };
    let lines = ["BLPOP key 0", "BLOCK key 1 1h WAIT 1000h", "RATELIMIT.HIT k 1 1h WAIT 1000h"];
    // On a busy machine some buffers are not back yet.
    let is_less = (0..5).any(|_| {
        let [blpop, block, wait] = std::thread::scope(|scope| {
            lines.map(|line| scope.spawn(move || bytes(line))).map(|thread| thread.join().unwrap())
        });
        let own = wait - block;
        eprintln!(
            "a client that waits: {wait} bytes; blocked by a module that keeps nothing of it: {block}; in BLPOP: {blpop}; \
             of the first, the module's own are {own}"
        );
        (1..most).contains(&own)
    });
    assert!(is_less);
}
