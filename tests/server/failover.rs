//! Another server takes over while clients go on: after a FAILOVER nothing is missing, and after the death of the primary only
//! what the successor had not received.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

use redis::{Client, Connection, RedisError, RedisResult, Value};
use support::checked::Call;
use support::client::{HIT, MHIT, PEEK, RESET, id_of, number, units_of};
use support::oracle::Tier;
use support::replication::{REPLICATION, caught_up, replica_of};
use support::seeds::random;
use support::{Ask, PATIENCE, Running, Server, Setup, assert_same, get, six, wait_for, wait_for_more, words};

const HOUR: u64 = 3_600_000;

/// Of keys that have room again all the time. The longer window keeps every entry in the log.
const RATE: [Tier; 2] = [(9, 150), (1_000_000, HOUR)];

const RATES: usize = 4;

/// Of keys that fill up.
const BUDGET: [Tier; 1] = [(60, HOUR)];

/// Of two keys that are charged together.
const PAIR: [Tier; 2] = [(40, HOUR), (200, HOUR)];

/// Of logs that are started again and again, so that each is as long as the one before.
const AGAIN: [Tier; 1] = [(1_000_000, HOUR)];

/// Callers are known by their cost: it is 1, 2 or 3, and so are the values of their entries.
const CALLERS: u64 = 3;

/// How long a caller waits for an answer before it asks who is the primary.
const SHORT: Duration = Duration::from_millis(500);

fn tiers_of(key: &str) -> &'static [Tier] {
    match key.split(':').next() {
        Some("rate") => &RATE,
        Some("budget") => &BUDGET,
        Some("again") => &AGAIN,
        Some("user") => &PAIR[..1],
        _ => &PAIR[1..],
    }
}

/// The keys, each alone or as it is charged with another; those that have room again first.
fn groups() -> Vec<Vec<String>> {
    let some = |name: &str, count| (0..count).map(|at| vec![format!("{name}:{at}")]).collect::<Vec<_>>();
    let pairs = (0..10).map(|at| vec![format!("user:{at}"), "all".to_owned()]).collect();
    [some("rate", RATES), some("budget", 60), pairs].concat()
}

/// One of the keys whose logs are started again.
fn again(rng: &mut fastrand::Rng) -> String {
    format!("again:{}", rng.u8(..3))
}

/// Replaces such a log by another one of two entries, in one step.
fn start_again(client: &mut Connection, rng: &mut fastrand::Rng) -> RedisResult<()> {
    let key = again(rng);
    let mut pipe = redis::pipe();
    pipe.atomic().cmd(RESET).arg(&key).ignore();
    (0..2).for_each(|_| _ = pipe.add_command(call(HIT, from_ref(&key), rng.u64(1..1_000)).cmd()));
    let replies: Vec<Value> = pipe.query(client)?;
    replies.iter().for_each(|reply| assert_eq!(six(reply)[0], 1));
    Ok(())
}

fn every_key() -> BTreeSet<String> {
    groups().concat().into_iter().collect()
}

fn call<'a>(name: &'static str, keys: &'a [String], cost: u64) -> Call<'a> {
    let tiers = if name == MHIT { &PAIR[..] } else { tiers_of(&keys[0]) };
    Call { name, keys, tiers, cost }
}

/// A call that may have been carried out.
struct Made {
    /// Which of the two servers was asked.
    at: usize,
    keys: Vec<String>,
    /// What it stored, unless no answer came.
    stored: Option<Vec<String>>,
}

/// Two servers, the second one a replica of the first, and clients that hit keys on whichever is the primary.
struct Load {
    servers: [Server; 2],
    groups: Vec<Vec<String>>,
    /// How long callers wait for an answer.
    patience: Duration,
    running: AtomicBool,
    /// On each server.
    admitted: [AtomicUsize; 2],
    peeks: AtomicUsize,
}

/// Where a caller goes next: its number, the server it was on, and whether that one has answered with an error.
type Find<'a> = &'a (dyn Fn(u64, usize, bool) -> usize + Sync);

fn connect(server: &Server, patience: Duration) -> RedisResult<Connection> {
    let client = Client::open(("127.0.0.1", server.port))?;
    let connection = client.get_connection_with_timeout(patience)?;
    connection.set_read_timeout(Some(patience))?;
    Ok(connection)
}

/// Whether the server has answered, with an error that a change of primaries explains and that says nothing was done.
/// Otherwise the connection was lost.
fn is_refusal(error: &RedisError) -> bool {
    match error.code() {
        Some(code) => {
            assert!(["READONLY", "EXECABORT", "LOADING", "MASTERDOWN", "UNBLOCKED"].contains(&code), "{error}");
            true
        }
        None => {
            let is_lost = error.is_io_error() || error.is_timeout() || error.is_connection_dropped();
            assert!(is_lost, "{error:?}");
            false
        }
    }
}

impl Load {
    fn new(patience: Duration) -> Self {
        let setup = Setup::new().tcp().args(REPLICATION);
        let primary = setup.clone().start();
        let replica = replica_of(&primary, setup);
        let (admitted, peeks) = (Default::default(), AtomicUsize::new(0));
        Self { servers: [primary, replica], groups: groups(), patience, running: true.into(), admitted, peeks }
    }

    /// Whether a server says this of its replication. Sentinels cut all connections of a server whose role they change.
    fn says(&self, at: usize, field: &str, value: &str) -> bool {
        let reply = connect(&self.servers[at], self.patience)
            .ok()
            .and_then(|mut client| client.ask(&words("INFO replication")).ok());
        reply.is_some_and(|reply| get::<String>(reply).lines().any(|line| line == format!("{field}:{value}")))
    }

    /// Hits until it is over. Every reply is checked.
    fn hit(&self, caller: u64, find: Find, mut rng: fastrand::Rng) -> Vec<Made> {
        let mut made = Vec::new();
        let mut at = 0;
        let mut client: Option<Connection> = None;
        let mut refused = false;
        while self.running.load(Relaxed) {
            let Some(connection) = &mut client else {
                at = find(caller, at, refused);
                refused = false;
                client = connect(&self.servers[at], self.patience).ok();
                if client.is_none() {
                    sleep(Duration::from_millis(5));
                }
                continue;
            };
            if rng.u8(..8) == 0 {
                if let Err(error) = start_again(connection, &mut rng) {
                    refused = is_refusal(&error);
                    client = None;
                }
                continue;
            }
            let some = if rng.u8(..3) == 0 { &self.groups[..RATES] } else { &self.groups[RATES..] };
            let keys = rng.choice(some).unwrap();
            let name = match (rng.u8(..5), keys.len()) {
                (0, 1) => PEEK,
                (_, 1) => HIT,
                _ => MHIT,
            };
            match call(name, keys, caller).ask(connection) {
                // Who is refused does not come back at once, which leaves the machine to the others.
                Ok(checked) if checked.stored.is_empty() => sleep(Duration::from_millis(1)),
                Ok(checked) => {
                    made.push(Made { at, keys: keys.clone(), stored: Some(checked.stored) });
                    self.admitted[at].fetch_add(1, Relaxed);
                }
                Err(error) => {
                    refused = is_refusal(&error);
                    if !refused && name != PEEK {
                        made.push(Made { at, keys: keys.clone(), stored: None });
                    }
                    client = None;
                }
            }
        }
        made
    }

    /// Looks at the keys on the replica, so that it has cursors, and goes on when that is a primary.
    fn look(&self, at: usize, mut rng: fastrand::Rng) {
        let mut client = None;
        while self.running.load(Relaxed) {
            let Some(connection) = &mut client else {
                client = connect(&self.servers[at], self.patience).ok();
                continue;
            };
            let key = if rng.bool() { again(&mut rng) } else { rng.choice(&self.groups).unwrap()[0].clone() };
            match call(PEEK, &[key], rng.u64(1..4)).ask(connection) {
                Ok(_) => {
                    self.peeks.fetch_add(1, Relaxed);
                    // The others need the machine more.
                    sleep(Duration::from_millis(5));
                }
                Err(error) => {
                    is_refusal(&error);
                    client = None;
                }
            }
        }
    }

    /// What each caller did, while `change` went on.
    fn during(&self, find: Find, change: impl FnOnce()) -> Vec<Vec<Made>> {
        let mut rng = random("failover");
        std::thread::scope(|scope| {
            let stop = Running(&self.running);
            let callers: Vec<_> = (1..=CALLERS)
                .map(|caller| {
                    let rng = rng.fork();
                    scope.spawn(move || self.hit(caller, find, rng))
                })
                .collect();
            scope.spawn(|| self.look(1, rng));
            wait_for_more("traffic", &self.admitted[0], 300);
            wait_for_more("a reader on the replica", &self.peeks, 20);
            change();
            drop(stop);
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        })
    }

    fn more_on(&self, at: usize, more: usize) {
        wait_for_more("traffic", &self.admitted[at], more);
    }

    /// Fills every budget of the primary: each admits up to its limit, and not one unit more.
    fn fill(&self, client: &mut Connection) {
        for key in every_key().iter().filter(|key| !key.starts_with("rate")) {
            let held: u64 = client.entries(key).iter().map(|(_, _, cost)| number(cost)).sum();
            let limit = tiers_of(key)[0].0;
            let mut pipe = redis::pipe();
            (0..=limit).for_each(|_| _ = pipe.add_command(call(HIT, from_ref(key), 1).cmd()));
            let replies: Vec<Value> = pipe.query(client).unwrap();
            let admitted = replies.iter().filter(|reply| six(reply)[0] == 1).count() as u64;
            assert_eq!(held + admitted, limit, "{key} admits up to its limit");
        }
    }

    /// The one server holds the data of the other, and both answer from what they hold.
    fn same(&self, primary: usize) {
        let servers = [&self.servers[primary], &self.servers[1 - primary]];
        caught_up(servers[0], servers[1]);
        let [mut one, mut other] = servers.map(Server::connect);
        assert_same(&one.fingerprint(), &other.fingerprint(), "primary and replica");
        for key in every_key() {
            let keys = [key];
            let [left, right] = [&mut one, &mut other].map(|client| call(PEEK, &keys, 1).ask(client).unwrap());
            assert_eq!(left.answers[0][1], right.answers[0][1], "{keys:?}");
            if !keys[0].starts_with("rate") {
                assert_eq!(left.answers[0][..3], right.answers[0][..3], "{keys:?}");
            }
        }
    }
}

/// What the log of each key says: IDs, and who stored them.
type Logs = BTreeMap<String, Vec<(String, u64)>>;

/// The logs, after a check that no window holds more than its limit and that the tallies are sums without a gap.
fn logs(client: &mut Connection) -> Logs {
    let mut logs = Logs::new();
    for key in every_key() {
        let entries: Vec<(String, u64)> =
            client.entries(&key).into_iter().map(|(id, _, cost)| (id, number(&cost))).collect();
        let mut sum = 0;
        for (id, cost) in &entries {
            sum += cost;
            assert_eq!(units_of(id), sum, "{key}: {id}");
        }
        let hits: Vec<(u64, u64)> = entries.iter().map(|(id, cost)| (id_of(id).0, *cost)).collect();
        for &tier in tiers_of(&key) {
            let most = fullest(&hits, tier.1, |window| units(&hits, window)).unwrap_or_default();
            assert!(most <= tier.0, "{key}: {most} units in {} ms, more than {}", tier.1, tier.0);
        }
        logs.insert(key, entries);
    }
    logs
}

/// The largest of what there is to say of the windows that end with a hit: after `.0`, up to `.1`.
fn fullest<T: Ord>(hits: &[(u64, u64)], window: u64, of: impl Fn((u64, u64)) -> T) -> Option<T> {
    hits.iter().map(|(time, _)| of((time.saturating_sub(window), *time))).max()
}

fn units(hits: &[(u64, u64)], (after, until): (u64, u64)) -> u64 {
    hits.iter().filter(|(time, _)| (after + 1..=until).contains(time)).map(|(_, cost)| cost).sum()
}

#[derive(Debug, Default)]
struct Outcome {
    acknowledged: usize,
    /// Acknowledged by the first server, and not in the log of the other.
    lost: usize,
    unanswered: usize,
    /// Unanswered, but in the log.
    kept: usize,
}

/// Compares what the callers were told with the logs of the successor, before anything else is stored there:
///
/// * What the successor has acknowledged is there. So is what the first server had acknowledged up to some moment: nothing is
///   missing before it, and nothing that came later is there. Calls of two keys are there whole or not at all.
/// * There is nothing else, but calls that got no answer, each once.
/// * What was acknowledged in any window, whoever did, is at most the limit and what is lost of that window.
fn judge(load: &Load, made: &[Vec<Made>], logs: &Logs) -> Outcome {
    let mut outcome = Outcome::default();
    // Times and units of each key.
    let mut told: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    let mut lost: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    let mut unexplained: BTreeSet<(&str, &str, u64)> = BTreeSet::new();
    for (key, entries) in logs {
        unexplained.extend(entries.iter().map(|(id, cost)| (key.as_str(), id.as_str(), *cost)));
    }
    for (caller, made) in (1..).zip(made) {
        for Made { at, keys, stored } in made {
            let Some(ids) = stored else { continue };
            outcome.acknowledged += 1;
            let each = keys.iter().map(String::as_str).zip(ids.iter().map(String::as_str));
            let there = each.clone().filter(|(key, id)| unexplained.remove(&(*key, *id, caller))).count();
            assert!(there == 0 || there == keys.len(), "{keys:?} {ids:?}: {there} of them are there");
            assert!(there > 0 || *at == 0, "{keys:?} {ids:?}: the successor has forgotten it");
            for (key, id) in each {
                let hit = (id_of(id).0, caller);
                told.entry(key).or_default().push(hit);
                if there == 0 {
                    lost.entry(key).or_default().push(hit);
                }
            }
            outcome.lost += usize::from(there == 0);
        }
    }
    for (caller, made) in (1..).zip(made) {
        let is_lost = Cell::new(false);
        let ids: BTreeMap<&str, BTreeSet<&str>> =
            logs.iter().map(|(key, log)| (key.as_str(), log.iter().map(|(id, _)| id.as_str()).collect())).collect();
        for Made { keys, stored, .. } in made.iter().filter(|made| made.at == 0) {
            match stored {
                Some(stored) if ids[keys[0].as_str()].contains(stored[0].as_str()) => {
                    assert!(!is_lost.get(), "{keys:?} {stored:?} is there, and what came before is lost");
                }
                Some(_) => is_lost.set(true),
                None => {}
            }
        }
        for Made { keys, .. } in made.iter().filter(|made| made.stored.is_none()) {
            outcome.unanswered += 1;
            let of = |key: &String| unexplained.iter().find(|(name, _, cost)| name == key && *cost == caller).copied();
            let entries: Vec<_> = keys.iter().filter_map(of).collect();
            if entries.len() == keys.len() {
                entries.iter().for_each(|entry| _ = unexplained.remove(entry));
                outcome.kept += 1;
            }
        }
    }
    assert!(unexplained.is_empty(), "nobody has stored {unexplained:?}");

    for (key, told) in told {
        let lost = lost.remove(key).unwrap_or_default();
        for &(limit, window) in tiers_of(key) {
            let over = |window| units(&told, window) as i64 - units(&lost, window) as i64;
            let most = fullest(&told, window, over).unwrap_or_default();
            assert!(most <= limit as i64, "{key}: {most} units in {window} ms, more than {limit}");
        }
    }
    for key in every_key().iter().filter(|key| key.starts_with("rate")) {
        let mut by_both = [0, 0];
        let made = made.iter().flatten().filter(|made| made.stored.is_some() && made.keys[0] == **key);
        made.for_each(|made| by_both[made.at] += 1);
        assert!(by_both.iter().all(|&hits| hits > 0), "{key} had room on both servers: {by_both:?}");
    }
    assert!(load.admitted.iter().all(|admitted| admitted.load(Relaxed) >= 300));
    outcome
}

/// Sentinels that watch the primary of a load.
struct Sentinels(Vec<Server>);

impl Sentinels {
    fn watch(load: &Load, count: usize) -> Self {
        let sentinels = (0..count).map(|_| {
            let dir = tempfile::Builder::new().prefix("sentinel-").tempdir().unwrap();
            let file = dir.path().join("sentinel.conf");
            let quorum = count / 2 + 1;
            let text = format!(
                "sentinel monitor limits 127.0.0.1 {} {quorum}\n\
                sentinel down-after-milliseconds limits 1000\n\
                sentinel failover-timeout limits 3000\n",
                load.servers[0].port
            );
            std::fs::write(&file, text).unwrap();
            Setup::new().without_module().tcp().configuration(&file).args(["--sentinel"]).start_in(dir)
        });
        let sentinels: Vec<Server> = sentinels.collect();
        for sentinel in &sentinels {
            // They look and talk more often than they would, and a machine that is busy does not confuse them.
            let periods = "info-period 100 ping-period 300 publish-period 100 tilt-trigger 60000";
            sentinel.connect().run(&format!("SENTINEL DEBUG {periods}"));
        }
        for sentinel in &sentinels {
            let mut client = sentinel.connect();
            wait_for("they know each other and the replica", || {
                let fields: BTreeMap<String, String> = get(client.run("SENTINEL MASTER limits"));
                let replicas: Vec<BTreeMap<String, String>> = get(client.run("SENTINEL REPLICAS limits"));
                fields["num-other-sentinels"] == (count - 1).to_string()
                    && matches!(&replicas[..], [replica] if replica["master-link-status"] == "ok")
            });
        }
        Self(sentinels)
    }

    /// Which server is the primary.
    fn primary(&self, load: &Load, caller: u64) -> usize {
        let sentinel = &self.0[caller as usize % self.0.len()];
        let (_, port): (String, u16) = get(sentinel.connect().run("SENTINEL GET-MASTER-ADDR-BY-NAME limits"));
        load.servers.iter().position(|server| server.port == port).unwrap()
    }
}

/// The replica has missed hundreds of hits when its primary is killed. Three Sentinels promote it.
#[test]
fn a_sentinel_replaces_a_dead_primary() {
    let load = Load::new(SHORT);
    let sentinels = Sentinels::watch(&load, 3);
    let made = load.during(&|caller, _, _| sentinels.primary(&load, caller), || {
        let [primary, replica] = &load.servers;
        replica.signal("STOP");
        // Or what the kernel holds for the replica would still reach it.
        primary.connect().run("CLIENT KILL TYPE replica");
        load.more_on(0, 150);
        primary.signal("KILL");
        replica.signal("CONT");
        load.more_on(1, 300);
    });
    let mut client = load.servers[1].connect();
    let outcome = judge(&load, &made, &logs(&mut client));
    eprintln!("a dead primary: {outcome:?}");
    assert!(outcome.lost >= 100);
    load.fill(&mut client);
    logs(&mut client);
}

/// A primary hangs and is replaced. When it comes to itself, it admits for a while who has not heard of that. Then it follows
/// its successor, and has forgotten what it alone knew.
#[test]
fn a_sentinel_replaces_a_primary_that_hangs() {
    let load = Load::new(SHORT);
    let sentinels = Sentinels::watch(&load, 1);
    // The first caller stays where it is until it is told to go.
    let find = |caller, at, refused: bool| if caller == 1 && !refused { at } else { sentinels.primary(&load, caller) };
    let made = load.during(&find, || {
        load.servers[0].signal("STOP");
        load.more_on(1, 300);
        load.servers[0].signal("CONT");
        wait_for("the old primary follows the new one", || load.says(0, "master_link_status", "up"));
        load.more_on(1, 100);
    });
    let mut client = load.servers[1].connect();
    let outcome = judge(&load, &made, &logs(&mut client));
    eprintln!("a primary that hangs: {outcome:?}");
    assert!(outcome.lost > 0, "the old primary has admitted somebody");
    load.fill(&mut client);
    load.same(1);
}

/// FAILOVER there and back, and one that is called off: it waits until the replica has everything, so the limits hold as on one
/// server, and not one hit is lost.
#[test]
fn on_request_nothing_is_lost() {
    let load = Load::new(PATIENCE);
    let made = load.during(&|_, at, refused| if refused { 1 - at } else { at }, || {
        for primary in [0, 1, 0] {
            let (from, to) = (&load.servers[primary], &load.servers[1 - primary]);
            let mut operator = from.connect();
            // A replica that does not answer: nothing can go on until the change is called off.
            to.signal("STOP");
            load.more_on(primary, 20);
            operator.run(&format!("FAILOVER TO 127.0.0.1 {}", to.port));
            assert_eq!(operator.info("replication", "master_failover_state"), "waiting-for-sync");
            operator.run("FAILOVER ABORT");
            to.signal("CONT");
            load.more_on(primary, 100);

            operator.run(&format!("FAILOVER TO 127.0.0.1 {}", to.port));
            wait_for("the servers have changed places", || {
                load.says(primary, "role", "slave") && load.says(1 - primary, "role", "master")
            });
            load.more_on(1 - primary, 100);
            wait_for("the old primary is in sync", || load.says(primary, "master_link_status", "up"));
        }
    });
    let mut client = load.servers[1].connect();
    let outcome = judge(&load, &made, &logs(&mut client));
    eprintln!("on request: {outcome:?}");
    assert_eq!((outcome.lost, outcome.unanswered), (0, 0));
    let full = load.servers.each_ref().map(|server| server.connect().info("stats", "sync_full"));
    assert_eq!(full, ["1", "0"], "no data were copied anew");
    load.fill(&mut client);
    load.same(1);
}
