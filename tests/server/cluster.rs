//! Moving a slot, by key or whole, neither loses nor doubles a hit: on a real cluster of three primaries, each with a
//! replica, under clients that follow redirections.
//!
//! One test in steps, because a cluster takes longer to form than any step to run.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use redis::cluster::{ClusterClientBuilder, ClusterConnection};
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{Client, Cmd, Connection, ConnectionLike, Value};
use support::client::{add_groups, number, time_of, units_of};
use support::clock::now;
use support::seeds::random;
use support::{Ask, PATIENCE, Running, Server, Setup, assert_same, get, six, skipped, wait_for, wait_for_more, words};

use crate::waiting::{Waiter, ended, waiting};

/// The first and the last slot of each primary, as `redis-cli --cluster create` deals them out.
const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

struct Node {
    server: Server,
    id: String,
}

impl Node {
    fn start(args: &[&str]) -> Self {
        let bus = free_bus_port();
        let setup = Setup::new().tcp().args(["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()]);
        // Nothing may fail over by chance: only the steps that want it set a short timeout. A replica is a candidate
        // however long it has been cut off, and a full synchronisation does not wait for company.
        let setup = setup.args(["--cluster-announce-ip", "127.0.0.1", "--cluster-node-timeout", "15000"]);
        let setup = setup.args(["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"]);
        let server = setup.args(args).start();
        let id = server.connect().text("CLUSTER MYID");
        Self { server, id }
    }

    fn port(&self) -> u16 {
        self.server.port
    }

    fn connect(&self) -> Connection {
        self.server.connect()
    }

    /// A connection on which a replica answers reads.
    fn connect_to_read(&self) -> Connection {
        let mut client = self.connect();
        client.run("READONLY");
        client
    }

    /// The same in another database.
    fn connect_to(&self, database: u8) -> Connection {
        let mut client = self.connect_to_read();
        client.run(&format!("SELECT {database}"));
        client
    }
}

/// By default a node takes its port + 10000, which may not exist. Ports for outgoing connections begin at 32768, so that
/// below them nobody takes one by chance before the server does.
fn free_bus_port() -> u16 {
    let mut candidates = std::iter::repeat_with(|| fastrand::u16(10_000..32_000));
    candidates.find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()).unwrap()
}

/// `replicas[n]` copies `primaries[n]`.
struct Cluster {
    primaries: Vec<Node>,
    replicas: Vec<Node>,
}

impl Cluster {
    fn start(args: &[&str]) -> Self {
        let cluster = Self {
            primaries: (0..3).map(|_| Node::start(args)).collect(),
            replicas: (0..3).map(|_| Node::start(args)).collect(),
        };
        let mut first = cluster.primaries[0].connect();
        for (at, node) in cluster.nodes().enumerate() {
            let mut client = node.connect();
            client.run(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1));
            if let Some((from, to)) = SLOTS.get(at) {
                client.run(&format!("CLUSTER ADDSLOTSRANGE {from} {to}"));
            }
            if at > 0 {
                let bus = &get::<Vec<String>>(client.run("CONFIG GET cluster-port"))[1];
                first.run(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port()));
            }
        }
        let count = |lines: &str, word: &str| lines.lines().filter(|line| line.contains(word)).count();
        for node in cluster.nodes() {
            wait_for("every node knows every node", || {
                let lines = node.connect().text("CLUSTER NODES");
                lines.lines().count() == 6 && count(&lines, "handshake") == 0
            });
        }
        for (replica, primary) in cluster.replicas.iter().zip(&cluster.primaries) {
            replica.connect().run(&format!("CLUSTER REPLICATE {}", primary.id));
        }
        for replica in &cluster.replicas {
            wait_for("the replica is in step", || replica.connect().info("replication", "master_link_status") == "up");
        }
        for node in cluster.nodes() {
            wait_for("every node knows every role", || count(&node.connect().text("CLUSTER NODES"), "slave") == 3);
            wait_for("the cluster is up", || is_up(node));
        }
        cluster
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.primaries.iter().chain(&self.replicas)
    }

    /// The position of the primary that had the slot of a key in the beginning.
    fn owner(&self, key: &str) -> usize {
        let slot = self.slot(key);
        SLOTS.iter().position(|&(from, to)| (from..=to).contains(&slot)).unwrap()
    }

    fn slot(&self, key: &str) -> u16 {
        get(self.primaries[0].connect().run(&format!("CLUSTER KEYSLOT {key}")))
    }

    /// A hash tag that belongs to this primary.
    fn tag_on(&self, primary: usize, name: &str) -> String {
        let mut tags = (0..).map(|n| format!("{{{name}{n}}}"));
        tags.find(|tag| self.owner(tag) == primary).unwrap()
    }

    /// A client as applications use it. Its shortest pause before it tries again would otherwise be more than a second.
    fn client(&self) -> ClusterConnection {
        let urls: Vec<String> = self.nodes().map(|node| format!("redis://127.0.0.1:{}", node.port())).collect();
        let builder = ClusterClientBuilder::new(urls).retries(1_000).min_retry_wait(1).max_retry_wait(10);
        let client = builder.response_timeout(PATIENCE).build().unwrap().get_connection();
        client.unwrap()
    }

    fn caller(&self, at: &Node) -> Caller {
        Caller {
            ports: self.nodes().map(Node::port).collect(),
            at: at.port(),
            database: 0,
            connections: HashMap::new(),
            seen: HashSet::new(),
        }
    }
}

fn is_up(node: &Node) -> bool {
    let state = node.connect().text("CLUSTER INFO");
    state.contains("cluster_state:ok") && state.contains("cluster_slots_ok:16384")
}

/// A client of one slot that does by hand what the protocol asks, and never repeats a call that may have been carried out:
/// what it counts is exact.
struct Caller {
    ports: Vec<u16>,
    /// The node that is believed to own the slot.
    at: u16,
    database: u8,
    connections: HashMap<u16, Connection>,
    /// The codes of all redirections and temporary errors so far.
    seen: HashSet<String>,
}

enum Attempt {
    Answered(u16, Value),
    /// The connection broke before the answer came.
    Unanswered,
    /// Not carried out; to be repeated a little later.
    Later,
}

impl Caller {
    fn call(&mut self, cmd: &Cmd) -> Attempt {
        let mut outcome = Attempt::Later;
        wait_for("an answer", || {
            outcome = self.attempt(cmd);
            !matches!(outcome, Attempt::Later)
        });
        outcome
    }

    /// The answer, where no connection may break.
    fn answer(&mut self, cmd: &Cmd) -> Value {
        let Attempt::Answered(_, value) = self.call(cmd) else { panic!("the connection broke") };
        value
    }

    fn attempt(&mut self, cmd: &Cmd) -> Attempt {
        let (mut port, mut asking) = (self.at, false);
        for _ in 0..5 {
            let Some(client) = self.connection(port) else {
                self.try_another();
                return Attempt::Later;
            };
            if asking && client.ask(&redis::cmd("ASKING")).is_err() {
                return Attempt::Later;
            }
            let error = match client.req_command(cmd).and_then(Value::extract_error) {
                Ok(value) => return Attempt::Answered(port, value),
                Err(error) => error,
            };
            let Some(code) = error.code() else {
                assert!(error.is_io_error(), "{error}");
                self.connections.remove(&port);
                self.try_another();
                return Attempt::Unanswered;
            };
            self.seen.insert(code.to_owned());
            match (code, error.redirect_node()) {
                ("MOVED" | "ASK", Some((address, _))) => {
                    asking = code == "ASK";
                    port = address.rsplit(':').next().unwrap().parse().unwrap();
                    if !asking {
                        self.at = port;
                    }
                }
                ("TRYAGAIN", _) => return Attempt::Later,
                ("CLUSTERDOWN" | "READONLY", _) => {
                    self.try_another();
                    return Attempt::Later;
                }
                _ => panic!("{error}"),
            }
        }
        Attempt::Later
    }

    fn connection(&mut self, port: u16) -> Option<&mut Connection> {
        match self.connections.entry(port) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => {
                let client = Client::open(("127.0.0.1", port)).unwrap();
                let mut connection = client.get_connection_with_timeout(PATIENCE).ok()?;
                connection.set_read_timeout(Some(PATIENCE)).unwrap();
                if self.database > 0 {
                    connection.run(&format!("SELECT {}", self.database));
                }
                Some(entry.insert(connection))
            }
        }
    }

    fn try_another(&mut self) {
        let at = self.ports.iter().position(|&port| port == self.at);
        self.at = self.ports[at.map_or(0, |at| (at + 1) % self.ports.len())];
    }
}

/// What is known of the hits on one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    hits: usize,
    units: u64,
}

impl Count {
    fn add(&mut self, cost: u64) {
        self.hits += 1;
        self.units += cost;
    }
}

fn sum(counts: &[Vec<Count>], key: usize) -> Count {
    let each = counts.iter().map(|counts| counts[key]);
    each.fold(Count::default(), |sum, one| Count { hits: sum.hits + one.hits, units: sum.units + one.units })
}

/// What the log of a key says, after a check that its tallies are sums of its costs without a gap, from where it began.
fn logged(client: &mut impl ConnectionLike, key: &str) -> Count {
    let mut count = Count::default();
    for (id, _, cost) in client.entries(key) {
        count.add(number(&cost));
        assert_eq!(units_of(&id), count.units, "{key}: {id}");
    }
    count
}

fn hit(key: &str, limit: u64, cost: u64) -> Cmd {
    let mut cmd = redis::cmd("RATELIMIT.HIT");
    cmd.arg(key).arg(limit).arg("1h");
    if cost != 1 {
        cmd.arg("COST").arg(cost);
    }
    cmd
}

/// A peek answers as if its hit were stored, where it would be.
fn units_left(client: &mut impl ConnectionLike, key: &str, limit: u64) -> i64 {
    let answer = client.answer(&format!("RATELIMIT.PEEK {key} {limit} 1h"));
    answer[0] + answer[2]
}

fn allowed(reply: &Value) -> bool {
    six(reply)[0] == 1
}

#[test]
fn three_primaries_and_three_replicas() {
    let cluster = Cluster::start(&[]);
    keys_are_found(&cluster);
    limits_are_exact(&cluster);
    several_keys(&cluster);
    a_budget_in_shares(&cluster);
    too_few_replicas(&cluster);
    nodes_without_the_module(&cluster);
    a_slot_moves_under_load(&cluster);
    a_replica_takes_over_from_a_line(&cluster);
    for node in cluster.nodes() {
        node.connect().run("CONFIG SET cluster-node-timeout 2000");
    }
    a_primary_dies(&cluster, 2, Link::Cut);
    a_primary_dies(&cluster, 0, Link::Whole);
}

/// What clients and proxies ask a node to find out where a command goes.
fn keys_are_found(cluster: &Cluster) {
    let mut client = cluster.primaries[0].connect();
    for (command, keys) in [
        ("RATELIMIT.HIT k 10 1s 500 1h COST 2", &["k"][..]),
        ("RATELIMIT.PEEK k 10 1s", &["k"]),
        ("RATELIMIT.MHIT 2 {k}1 {k}2 10 1s COST 2 AND 20 1m COST 2", &["{k}1", "{k}2"]),
        ("RATELIMIT.RESET {k}1 {k}2 {k}3", &["{k}1", "{k}2", "{k}3"]),
    ] {
        assert_eq!(get::<Vec<String>>(client.run(&format!("COMMAND GETKEYS {command}"))), keys, "{command}");
    }
    assert!(client.error("COMMAND GETKEYS RATELIMIT.TOP COUNT 5").contains("no key arguments"));
}

fn limits_are_exact(cluster: &Cluster) {
    let mut client = cluster.client();
    let keys: Vec<String> = (0..300).map(|n| format!("user:{n}")).collect();
    for call in 0..5 {
        for key in &keys {
            let answer = client.answer(&format!("RATELIMIT.HIT {key} 3 1h"));
            assert_eq!(answer[..3], [i64::from(call < 3), 3, (2 - call).max(0)], "{key}, call {call}");
            assert_eq!(units_left(&mut client, key, 3), (2 - call).max(0), "{key}");
        }
    }
    // Each node holds the keys of its slots, its replica answers PEEK, and TOP speaks of the node that is asked.
    for (at, primary) in cluster.primaries.iter().enumerate() {
        let mut mine: Vec<&str> = keys.iter().map(String::as_str).filter(|key| cluster.owner(key) == at).collect();
        mine.sort_unstable();
        assert!(mine.len() > 50, "{mine:?}");
        let mut stored: Vec<String> = get(primary.connect().run("KEYS *"));
        stored.sort_unstable();
        assert_same(&stored.iter().map(String::as_str).collect::<Vec<_>>(), &mine, "keys of a node");
        let top: Vec<(String, u64, u64)> = get(primary.connect().run("RATELIMIT.TOP COUNT 1000"));
        let mut refused: Vec<&str> = top.iter().map(|(key, ..)| key.as_str()).collect();
        refused.sort_unstable();
        assert_same(&refused, &mine, "keys that a node refused");
        let mut replica = cluster.replicas[at].connect_to_read();
        wait_for("the replica has every hit", || mine.iter().all(|key| units_left(&mut replica, key, 3) == 0));
    }

    // A node that does not own the slot says who does, and keeps nothing.
    let (slot, owner) = (cluster.slot("elsewhere"), cluster.owner("elsewhere"));
    let moved = format!("MOVED {slot} 127.0.0.1:{}", cluster.primaries[owner].port());
    for at in (0..3).filter(|&at| at != owner) {
        assert_eq!(cluster.primaries[at].connect().error("RATELIMIT.HIT elsewhere 3 1h"), moved);
        assert_eq!(cluster.primaries[at].connect().error("RATELIMIT.PEEK elsewhere 3 1h"), moved);
    }
    assert_eq!(cluster.replicas[owner].connect_to_read().error("RATELIMIT.HIT elsewhere 3 1h"), moved);
    assert_eq!(cluster.primaries[owner].connect().integer("EXISTS elsewhere"), 0);
}

fn several_keys(cluster: &Cluster) {
    let mut client = cluster.client();
    let together = words("RATELIMIT.MHIT 2 user:{42} org:{42} 2 1h AND 100 1h");
    let left = |reply: &Value| -> Vec<[i64; 3]> {
        let rows: Vec<Vec<i64>> = get(reply.clone());
        rows.into_iter().map(|row| [row[0], row[1], row[2]]).collect()
    };
    // The node that owns the slot, asked directly.
    let owner = cluster.owner("{42}");
    let reply = cluster.primaries[owner].connect().ask(&together).unwrap();
    assert_eq!(left(&reply), [[1, 2, 1], [1, 100, 99]]);
    // This client takes the first argument of a command that it does not know for a key, which is the number of keys
    // here: it arrives by a redirection, each time.
    let reply = client.ask(&together).unwrap();
    assert_eq!(left(&reply), [[1, 2, 0], [1, 100, 98]]);
    // So it is better told the way.
    let route = Route::with_key("{42}", SlotAddr::Master);
    let routing = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
    let reply = client.route_command(&together, routing).unwrap();
    assert_eq!(left(&reply), [[0, 2, 0], [0, 100, 98]], "all are charged or none is");

    // Keys of several slots are an error, whoever is asked and also where one node owns both.
    let neighbours = [cluster.tag_on(0, "a"), cluster.tag_on(0, "b")];
    assert_ne!(cluster.slot(&neighbours[0]), cluster.slot(&neighbours[1]));
    let strangers = [cluster.tag_on(0, "c"), cluster.tag_on(1, "d")];
    for [one, other] in [neighbours, strangers] {
        client.answer(&format!("RATELIMIT.HIT {one} 10 1h"));
        let apart = format!("RATELIMIT.MHIT 2 {one} {other} 10 1h AND 10 1h");
        for node in cluster.nodes() {
            assert!(node.connect().error(&apart).starts_with("CROSSSLOT "));
            assert!(node.connect().error(&format!("RATELIMIT.RESET {one} {other}")).starts_with("CROSSSLOT "));
        }
        assert!(client.error(&apart).starts_with("CROSSSLOT "));
        assert_eq!(units_left(&mut client, &one, 10), 9, "nothing is charged");
        assert_eq!(client.integer(&format!("EXISTS {other}")), 0);
    }
    assert_eq!(client.integer("RATELIMIT.RESET user:{42} org:{42}"), 2);
}

/// A limit that is too much for one node, split over tags: never exceeded, and used up by who tries the next share.
fn a_budget_in_shares(cluster: &Cluster) {
    let mut client = cluster.client();
    let mut admitted = 0;
    for call in 0..200 {
        let mut shares = (0..4).map(|share| format!("RATELIMIT.HIT global:{{{}}} 25 1h", (call + share) % 4));
        admitted += i32::from(shares.any(|line| client.answer(&line)[0] == 1));
    }
    assert_eq!(admitted, 100);
}

/// What bounds the loss of a failover: a primary that cannot reach its replicas admits nobody.
fn too_few_replicas(cluster: &Cluster) {
    let tag = cluster.tag_on(1, "guard");
    let mut client = cluster.primaries[1].connect();
    client.run("CONFIG SET min-replicas-to-write 2");
    assert!(client.error(&format!("RATELIMIT.HIT {tag} 3 1h")).starts_with("NOREPLICAS "));
    assert_eq!(units_left(&mut client, &tag, 3), 3);
    client.run("CONFIG SET min-replicas-to-write 0");
    assert_eq!(client.answer(&format!("RATELIMIT.HIT {tag} 3 1h"))[2], 2);
}

/// A log is a plain stream: a server without the module stores it, gives it back, and cannot answer for it.
fn nodes_without_the_module(cluster: &Cluster) {
    let tag = cluster.tag_on(1, "plain");
    let mut client = cluster.primaries[1].connect();
    (0..3).for_each(|_| _ = client.answer(&format!("RATELIMIT.HIT {tag} 5 1h")));
    let entries = client.entries(&tag);
    let plain = Setup::new().without_module().tcp().start();
    client.run(&format!("MIGRATE 127.0.0.1 {} {tag} 0 5000", plain.port));
    assert_eq!(client.integer(&format!("EXISTS {tag}")), 0);
    let mut there = plain.connect();
    assert_eq!(there.entries(&tag), entries);
    assert!(there.integer(&format!("PTTL {tag}")) > 3_500_000);
    assert!(there.error(&format!("RATELIMIT.PEEK {tag} 5 1h")).contains("unknown command"));
    there.run(&format!("MIGRATE 127.0.0.1 {} {tag} 0 5000", cluster.primaries[1].port()));
    assert_eq!(client.answer(&format!("RATELIMIT.HIT {tag} 5 1h"))[..3], [1, 5, 1]);
}

const MANY: u64 = 1_000_000;

/// Keys of one slot, a third of them with a small limit, and the clients that hit them until it is over.
struct Traffic {
    keys: Vec<String>,
    seed: u64,
    running: AtomicBool,
    /// Answers to calls of one key, and of two.
    answered: AtomicUsize,
    together: AtomicUsize,
}

impl Traffic {
    fn new(tag: &str, keys: usize, seed: u64) -> Self {
        let keys = (0..keys).map(|n| format!("{tag}:{n}")).collect();
        Self { keys, seed, running: true.into(), answered: 0.into(), together: 0.into() }
    }

    fn limit(key: usize) -> u64 {
        if key % 3 == 0 { 60 } else { MANY }
    }

    /// What was admitted.
    fn one_by_one(&self, number: u64, mut call: impl FnMut(&Cmd) -> Value) -> Vec<Count> {
        let mut rng = fastrand::Rng::with_seed(self.seed + number);
        let mut counts = vec![Count::default(); self.keys.len()];
        while self.running.load(Relaxed) {
            let (key, cost) = (rng.usize(..self.keys.len()), rng.u64(1..=3));
            if allowed(&call(&hit(&self.keys[key], Self::limit(key), cost))) {
                counts[key].add(cost);
            }
            self.answered.fetch_add(1, Relaxed);
        }
        counts
    }

    /// The same with two keys at a time, of the first so many.
    fn in_pairs(&self, number: u64, first: usize, mut call: impl FnMut(&Cmd) -> Value) -> Vec<Count> {
        let mut rng = fastrand::Rng::with_seed(self.seed + number);
        let mut counts = vec![Count::default(); self.keys.len()];
        while self.running.load(Relaxed) {
            let one = rng.usize(..first);
            let other = (one + rng.usize(1..first)) % first;
            let cost = rng.u64(1..=3);
            let mut cmd = redis::cmd("RATELIMIT.MHIT");
            cmd.arg(2).arg(&self.keys[one]).arg(&self.keys[other]);
            add_groups(&mut cmd, &[one, other].map(|key| (Self::limit(key), 3_600_000)), cost);
            let Value::Array(replies) = call(&cmd) else { panic!("no array") };
            assert_eq!(allowed(&replies[0]), allowed(&replies[1]));
            if allowed(&replies[0]) {
                counts[one].add(cost);
                counts[other].add(cost);
            }
            self.together.fetch_add(1, Relaxed);
        }
        counts
    }

    fn wait(&self, what: &str, answered: usize, together: usize) {
        wait_for_more(what, &self.answered, answered);
        wait_for_more(what, &self.together, together);
    }

    /// After the traffic: what is left of the small limits can be used to the last unit, and the log of each key is what was
    /// acknowledged. What there is of each key.
    fn account(&self, client: &mut Connection, mut counts: Vec<Vec<Count>>) -> Vec<Count> {
        let mut last = vec![Count::default(); self.keys.len()];
        for key in (0..self.keys.len()).filter(|&key| Self::limit(key) != MANY) {
            while allowed(&client.ask(&hit(&self.keys[key], Self::limit(key), 1)).unwrap()) {
                last[key].add(1);
            }
        }
        counts.push(last);
        let keys = self.keys.iter().enumerate();
        keys.map(|(key, name)| {
            let (expected, limit) = (sum(&counts, key), Self::limit(key));
            assert!(limit == MANY || expected.units == limit, "{name}: {expected:?}");
            assert_eq!(logged(client, name), expected, "{name}: the log is what was acknowledged");
            assert_eq!(units_left(client, name, limit), (limit - expected.units) as i64, "{name}");
            expected
        })
        .collect()
    }
}

fn total(counts: &[Count]) -> Count {
    let add = |sum: Count, one: &Count| Count { hits: sum.hits + one.hits, units: sum.units + one.units };
    counts.iter().fold(Count::default(), add)
}

/// A slot with hundreds of limiters goes from one primary to another while clients hit them. Not one hit is lost or
/// counted twice, whichever way a client took.
fn a_slot_moves_under_load(cluster: &Cluster) {
    const OLD: usize = 300;
    const ALL: usize = 400;
    let [from, to, other] = &cluster.primaries[..] else { panic!("three primaries") };
    let tag = cluster.tag_on(0, "moving");
    let slot = cluster.slot(&tag);
    let traffic = Traffic::new(&tag, ALL, random("a_slot_moves_under_load").u64(..));

    // Some logs are long, and some keys will be new during the move.
    let mut first = vec![Count::default(); ALL];
    let mut caller = cluster.caller(from);
    for (key, count) in first.iter_mut().enumerate().take(OLD) {
        for _ in 0..if key % 50 == 0 && Traffic::limit(key) == MANY { 1_000 } else { 1 } {
            assert!(allowed(&caller.answer(&hit(&traffic.keys[key], Traffic::limit(key), 1))));
            count.add(1);
        }
    }

    let mut seen = HashSet::new();
    let counts = std::thread::scope(|scope| {
        let traffic = &traffic;
        let mut by_library = cluster.client();
        let library = scope.spawn(move || traffic.one_by_one(1, |cmd| by_library.ask(cmd).unwrap()));
        let mut caller = cluster.caller(from);
        let by_hand = scope.spawn(move || (traffic.one_by_one(2, |cmd| caller.answer(cmd)), caller.seen));
        let mut caller = cluster.caller(from);
        let pairs = scope.spawn(move || (traffic.in_pairs(3, OLD, |cmd| caller.answer(cmd)), caller.seen));
        let stop = Running(&traffic.running);
        traffic.wait("traffic", 200, 50);
        move_by_key(slot, from, to, other, || wait_for_more("traffic goes on", &traffic.answered, 20));
        traffic.wait("traffic at the new place", 500, 50);
        drop(stop);

        let (by_hand, pairs) = (by_hand.join().unwrap(), pairs.join().unwrap());
        seen.extend(by_hand.1);
        seen.extend(pairs.1);
        vec![first, library.join().unwrap(), by_hand.0, pairs.0]
    });
    for code in ["ASK", "MOVED", "TRYAGAIN"] {
        assert!(seen.contains(code), "no client met {code}: {seen:?}");
    }

    let mut client = to.connect();
    let counts = traffic.account(&mut client, counts);
    for (name, expected) in traffic.keys.iter().zip(&counts) {
        // By chance nobody may have asked for one of the keys.
        let left = client.integer(&format!("PTTL {name}"));
        assert!(expected.hits == 0 || left > 3_500_000, "{name} still expires, and not early: {left} ms");
    }
    assert_eq!(from.connect().integer(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), 0);
    let Count { hits, units } = total(&counts);
    eprintln!(
        "migration: {hits} hits of {units} units on {ALL} keys, {} calls during it, none lost, none doubled",
        traffic.answered.load(Relaxed) + traffic.together.load(Relaxed)
    );

    // The replicas have followed, byte for byte.
    for (primary, replica) in cluster.primaries.iter().zip(&cluster.replicas) {
        let (mut one, mut other) = (primary.connect(), replica.connect_to_read());
        wait_for("the replica follows", || one.text("DEBUG DIGEST") == other.text("DEBUG DIGEST"));
        assert_same(&one.fingerprint(), &other.fingerprint(), "primary and replica");
    }
}

/// Moves a slot ten keys at a time, with a pause after each step.
fn move_by_key(slot: u16, from: &Node, to: &Node, other: &Node, pause: impl Fn()) {
    to.connect().run(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", from.id));
    from.connect().run(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", to.id));
    let mut source = from.connect();
    loop {
        let batch: Vec<String> = get(source.run(&format!("CLUSTER GETKEYSINSLOT {slot} 10")));
        if batch.is_empty() {
            break;
        }
        let mut cmd = redis::cmd("MIGRATE");
        cmd.arg("127.0.0.1").arg(to.port()).arg("").arg(0).arg(5_000).arg("KEYS").arg(&batch);
        assert_eq!(source.ask(&cmd), Ok(Value::Okay));
        pause();
    }
    for node in [to, from, other] {
        node.connect().run(&format!("CLUSTER SETSLOT {slot} NODE {}", to.id));
        pause();
    }
}

/// How a server moves a slot as a whole, if it can: no key is ever on both sides or on none for its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AsAWhole {
    /// `CLUSTER MIGRATESLOTS`, asked of the source, in all databases.
    Valkey,
    /// `CLUSTER MIGRATION IMPORT`, asked of the destination. A cluster has one database.
    Redis,
}

impl AsAWhole {
    fn of_the_server() -> Option<Self> {
        let server = Server::start();
        let mut client = server.connect();
        let mut knows = |name: &str| {
            let info = client.run(&format!("COMMAND INFO {name}"));
            matches!(info, Value::Array(items) if matches!(items[..], [Value::Array(_)]))
        };
        match [knows("cluster|migrateslots"), knows("cluster|migration")] {
            [true, _] => Some(Self::Valkey),
            [_, true] => Some(Self::Redis),
            _ => None,
        }
    }

    /// Moves a slot, and returns when every primary knows. Valkey gives a move up now and then while the slot is written to
    /// (valkey-io/valkey issue 4545); the slot then stays where it is, and nothing may be lost by that either.
    fn move_slot(self, cluster: &Cluster, slot: u16, from: &Node, to: &Node) {
        wait_for("a slot has moved", || self.try_to_move(slot, from, to));
        wait_for("every primary knows", || {
            cluster.primaries.iter().all(|node| {
                let reply = node.connect().ask(&words(&format!("CLUSTER COUNTKEYSINSLOT {slot}")));
                let slots = node.connect().text("CLUSTER NODES");
                let line = slots.lines().find(|line| line.starts_with(&to.id)).unwrap();
                reply.is_ok() && owns(line, slot)
            })
        });
    }

    fn try_to_move(self, slot: u16, from: &Node, to: &Node) -> bool {
        let (mut source, mut destination) = (from.connect(), to.connect());
        let status = match self {
            Self::Valkey => {
                source.run(&format!("CLUSTER MIGRATESLOTS SLOTSRANGE {slot} {slot} NODE {}", to.id));
                "CLUSTER GETSLOTMIGRATIONS".to_owned()
            }
            Self::Redis => {
                let task = destination.text(&format!("CLUSTER MIGRATION IMPORT {slot} {slot}"));
                format!("CLUSTER MIGRATION STATUS ID {task}")
            }
        };
        let asked = if self == Self::Valkey { &mut source } else { &mut destination };
        let mut state = String::new();
        wait_for("the move has ended", || {
            let jobs: Vec<HashMap<String, Value>> = get(asked.run(&status));
            state = get(jobs[0]["state"].clone());
            ["success", "completed", "failed"].contains(&state.as_str())
        });
        state != "failed"
    }
}

/// Whether a line of `CLUSTER NODES` has this slot.
fn owns(line: &str, slot: u16) -> bool {
    line.split(' ').skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
    })
}

#[test]
fn slots_move_as_a_whole() {
    let Some(how) = AsAWhole::of_the_server() else {
        skipped("this server moves slots key by key only");
        return;
    };
    let (args, databases): (&[&str], &[u8]) = match how {
        AsAWhole::Valkey => (&["--cluster-databases", "4"], &[0, 2]),
        AsAWhole::Redis => (&[], &[0]),
    };
    let cluster = Cluster::start(args);
    no_cursor_is_stale(&cluster, how, databases);
    a_slot_with_a_line_moves_as_a_whole(&cluster, how);
    a_slot_moves_as_a_whole_under_load(&cluster, how, 0, None);
    if how == AsAWhole::Valkey {
        // Not the other way round: with keys in a higher database of the same slot, Valkey 9.1.2 itself sends writes to the wrong
        // one of them, those of its own commands as well.
        a_slot_moves_as_a_whole_under_load(&cluster, how, 2, Some(0));
    }
}

/// What a node says of keys, first with the table of cursors and then without it.
fn with_cursors_and_without(node: &Node, database: u8, keys: &[String]) -> [Vec<i64>; 2] {
    let mut client = node.connect_to(database);
    let mut ask = || keys.iter().map(|key| client.answer(&format!("RATELIMIT.PEEK {key} 1000000 1h"))[2]).collect();
    let with = ask();
    node.connect().run("CONFIG SET ratelimit.cursors 0");
    let without = ask();
    node.connect().run("CONFIG SET ratelimit.cursors 8192");
    [with, without]
}

/// While a slot was away its logs were replaced by others of the same length.
fn no_cursor_is_stale(cluster: &Cluster, how: AsAWhole, databases: &[u8]) {
    let [home, away, _] = &cluster.primaries[..] else { panic!("three primaries") };
    let tag = cluster.tag_on(0, "away");
    let slot = cluster.slot(&tag);
    let keys: Vec<String> = (0..20).map(|n| format!("{tag}:{n}")).collect();
    for round in 1..=2 {
        for &database in databases {
            let mut client = home.connect_to(database);
            let mut replica = cluster.replicas[0].connect_to(database);
            for key in &keys {
                client.run(&format!("DEL {key}"));
                (0..5).for_each(|_| _ = client.answer(&format!("RATELIMIT.HIT {key} 1000000 1h")));
                // A key is followed from the second call on.
                wait_for("the replica has it", || replica.integer(&format!("XLEN {key}")) == 5);
                (0..3).for_each(|_| _ = replica.answer(&format!("RATELIMIT.PEEK {key} 1000000 1h")));
            }
        }
        how.move_slot(cluster, slot, home, away);
        for &database in databases {
            let mut client = away.connect_to(database);
            for key in &keys {
                assert_eq!(client.answer(&format!("RATELIMIT.HIT {key} 1000000 1h"))[2], 999_994, "{key} arrived");
                client.run(&format!("DEL {key}"));
                (0..5).for_each(|_| _ = client.answer(&format!("RATELIMIT.HIT {key} 1000000 1h COST {}", 10 * round)));
            }
        }
        how.move_slot(cluster, slot, away, home);
        let expected = vec![1_000_000 - 50 * round - 1; keys.len()];
        for &database in databases {
            let mut replica = cluster.replicas[0].connect_to(database);
            let mut primary = home.connect_to(database);
            wait_for("the replica follows", || {
                keys.iter().all(|key| {
                    let line = format!("XREVRANGE {key} + - COUNT 1");
                    primary.run(&line) == replica.run(&line)
                })
            });
            for node in [home, &cluster.replicas[0]] {
                let [with, without] = with_cursors_and_without(node, database, &keys);
                assert_eq!(without, expected, "{how:?}, database {database}");
                assert_eq!(with, expected, "{how:?}, database {database}: with the table of cursors");
            }
        }
    }
    if how == AsAWhole::Valkey {
        home.connect().run(&format!("CLUSTER FLUSHSLOT {slot}"));
        for &database in databases {
            for node in [home, &cluster.replicas[0]] {
                let mut client = node.connect_to(database);
                wait_for("the slot is empty", || client.integer(&format!("EXISTS {}", keys[0])) == 0);
                let expected = vec![999_999; keys.len()];
                assert_eq!(with_cursors_and_without(node, database, &keys), [expected.clone(), expected]);
            }
        }
    }
}

/// There and back, twice, while clients hit keys of the slot in one database, one and two at a time. In `resting` there are
/// logs too.
fn a_slot_moves_as_a_whole_under_load(cluster: &Cluster, how: AsAWhole, database: u8, resting: Option<u8>) {
    const KEYS: usize = 200;
    let [home, away, _] = &cluster.primaries[..] else { panic!("three primaries") };
    let tag = cluster.tag_on(0, &format!("whole-{database}-"));
    let slot = cluster.slot(&tag);
    let traffic = Traffic::new(&tag, KEYS, random("a_slot_moves_as_a_whole_under_load").u64(..));
    if let Some(resting) = resting {
        let mut client = home.connect_to(resting);
        traffic.keys.iter().for_each(|key| assert!(allowed(&client.ask(&hit(key, MANY, 7)).unwrap())));
    }

    let (counts, seen) = std::thread::scope(|scope| {
        let traffic = &traffic;
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let mut caller = cluster.caller(home);
                caller.database = database;
                scope.spawn(move || {
                    let call = |cmd: &Cmd| caller.answer(cmd);
                    let counts = match number % 2 {
                        0 => traffic.one_by_one(number, call),
                        _ => traffic.in_pairs(number, KEYS, call),
                    };
                    (counts, caller.seen)
                })
            })
            .collect();
        let stop = Running(&traffic.running);
        traffic.wait("traffic", 1_000, 1_000);
        for _ in 0..2 {
            for [from, to] in [[home, away], [away, home]] {
                how.move_slot(cluster, slot, from, to);
                traffic.wait("traffic at the new place", 500, 500);
            }
        }
        drop(stop);
        let (counts, codes): (Vec<_>, Vec<_>) = threads.into_iter().map(|thread| thread.join().unwrap()).unzip();
        (counts, codes.into_iter().flatten().collect::<HashSet<_>>())
    });
    assert_eq!(seen, HashSet::from(["MOVED".to_owned()]), "clients are sent on, and nothing else");

    let (mut client, mut replica) = (home.connect_to(database), cluster.replicas[0].connect_to(database));
    let counts = traffic.account(&mut client, counts);
    for (key, name) in traffic.keys.iter().enumerate() {
        wait_for("the replica follows", || replica.entries(name) == client.entries(name));
        let limit = Traffic::limit(key);
        assert_eq!(units_left(&mut replica, name, limit), (limit - counts[key].units) as i64, "{name}");
    }
    for node in [home, &cluster.replicas[0]] {
        let [with, without] = with_cursors_and_without(node, database, &traffic.keys);
        assert_eq!(with, without, "{how:?}, database {database}: with the table of cursors and without");
        if let Some(resting) = resting {
            let expected = vec![MANY as i64 - 8; KEYS];
            assert_eq!(with_cursors_and_without(node, resting, &traffic.keys), [expected.clone(), expected]);
        }
    }
    assert_eq!(away.connect().integer(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), 0);
    for (primary, replica) in cluster.primaries.iter().zip(&cluster.replicas) {
        let (mut one, mut other) = (primary.connect(), replica.connect_to_read());
        wait_for("the replica follows", || one.text("DEBUG DIGEST") == other.text("DEBUG DIGEST"));
    }
    let Count { hits, units } = total(&counts);
    eprintln!(
        "whole slots, {how:?}: {hits} hits of {units} units on {KEYS} keys in database {database}, moved four times, \
         none lost, none doubled"
    );
}

/// Clients wait for a key whose slot goes to another node. Whoever was admitted is counted there, all others are sent on and
/// are not. Returns how many were admitted.
fn a_line_is_sent_on(from: &Node, to: &Node, tag: &str, go: impl FnOnce()) -> usize {
    let line = format!("RATELIMIT.HIT {tag} 1 5ms {MANY} 1h WAIT 1h");
    let mut client = from.connect();
    client.answer(&format!("RATELIMIT.HIT {tag} 1 1h"));
    let before = ended(&mut client)[0];
    let connections: Vec<Connection> = (0..150).map(|_| from.connect()).collect();
    let mut waiters: Vec<Waiter> = connections.into_iter().map(|client| Waiter::send(client, &line)).collect();
    wait_for("some are served", || ended(&mut client)[0] >= before + 3);
    go();
    let mut admitted = 0;
    for waiter in &mut waiters {
        match waiter.reply() {
            Ok(reply) => admitted += usize::from(allowed(&reply)),
            Err(error) => assert!(["MOVED", "UNBLOCKED"].iter().any(|code| error.starts_with(code)), "{error}"),
        }
    }
    assert!(admitted >= 3, "{admitted}");
    assert_eq!(waiting(&mut client), 0);
    assert_eq!(logged(&mut to.connect(), tag).hits, 1 + admitted);
    assert_eq!(Waiter::send(to.connect(), &line).answer()[0], 1, "there one waits as well");
    admitted
}

fn a_slot_with_a_line_moves_as_a_whole(cluster: &Cluster, how: AsAWhole) {
    let [home, away, _] = &cluster.primaries[..] else { panic!("three primaries") };
    let tag = cluster.tag_on(0, "line");
    let admitted = a_line_is_sent_on(home, away, &tag, || how.move_slot(cluster, cluster.slot(&tag), home, away));
    eprintln!("whole slots, {how:?}: of 150 who waited, {admitted} were admitted before the slot went, none after");
    how.move_slot(cluster, cluster.slot(&tag), away, home);
}

fn a_replica_takes_over_from_a_line(cluster: &Cluster) {
    let (primary, replica) = (&cluster.primaries[1], &cluster.replicas[1]);
    let admitted = a_line_is_sent_on(primary, replica, &cluster.tag_on(1, "line"), || {
        replica.connect().run("CLUSTER FAILOVER");
        for (node, role) in [(primary, "slave"), (replica, "master")] {
            wait_for("it has another role", || node.connect().info("replication", "role") == role);
        }
    });
    eprintln!("failover: of 150 who waited, {admitted} were admitted before it, none after");
    // Not the other way round: Redis lets a pair change places only once in a while.
    wait_for("the cluster is up", || cluster.nodes().all(is_up));
}

/// The way from a primary to its replica at the moment of death.
#[derive(Debug, PartialEq, Eq)]
enum Link {
    /// As it happens to be.
    Whole,
    /// Some hundred acknowledged hits have not got through, so that there is something to lose.
    Cut,
}

/// What one client knows of one key.
#[derive(Clone, Copy, Default)]
struct Known {
    /// Admitted by the primary that died, and by its successor.
    before: usize,
    after: usize,
    /// Sent, and carried out or not: the answer never came.
    unanswered: usize,
}

const LIMIT: usize = 300;

/// Hits random keys until it is over. `admitted` are the hits that this primary and its successor have let in.
fn hit_random_keys(
    caller: &mut Caller,
    keys: &[String],
    mut rng: fastrand::Rng,
    running: &AtomicBool,
    admitted: &[AtomicUsize; 2],
) -> Vec<Known> {
    let primary = caller.at;
    let mut known = vec![Known::default(); keys.len()];
    while running.load(Relaxed) {
        let key = rng.usize(..keys.len());
        let known = &mut known[key];
        match caller.call(&hit(&keys[key], LIMIT as u64, 1)) {
            Attempt::Answered(port, reply) if allowed(&reply) => {
                let is_successor = port != primary;
                *if is_successor { &mut known.after } else { &mut known.before } += 1;
                admitted[usize::from(is_successor)].fetch_add(1, Relaxed);
            }
            Attempt::Answered(..) => {}
            Attempt::Unanswered => known.unanswered += 1,
            Attempt::Later => panic!("a call ends in one way or another"),
        }
    }
    known
}

/// Replication is asynchronous: what the successor never got is lost, and that much more than the limit may get in over
/// all. Nothing else is lost, nothing is counted twice, and the successor's own count is exact from its first hit.
fn a_primary_dies(cluster: &Cluster, dying: usize, link: Link) {
    const KEYS: usize = 40;
    let seed = random("a_primary_dies").u64(..);
    let (primary, replica) = (&cluster.primaries[dying], &cluster.replicas[dying]);
    let tag = cluster.tag_on(dying, "dying");
    let keys: Vec<String> = (0..KEYS).map(|n| format!("{tag}:{n}")).collect();

    // What WAIT has seen on the replica is safe.
    let mut client = primary.connect();
    let safe: Vec<String> = (0..30).map(|n| format!("{tag}:safe:{n}")).collect();
    for key in &safe {
        (0..5).for_each(|_| assert!(allowed(&client.ask(&hit(key, 8, 1)).unwrap())));
    }
    assert_eq!(client.integer("WAIT 1 10000"), 1);

    let (running, admitted) = (AtomicBool::new(true), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    let (known, killed_at) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|number| {
                let (keys, running, admitted) = (&keys, &running, &admitted);
                let (mut caller, rng) = (cluster.caller(primary), fastrand::Rng::with_seed(seed + number));
                scope.spawn(move || hit_random_keys(&mut caller, keys, rng, running, admitted))
            })
            .collect();
        let stop = Running(&running);

        wait_for_more("traffic", &admitted[0], 2_000);
        if link == Link::Cut {
            replica.server.signal("STOP");
            client.run("CLIENT KILL TYPE replica");
            wait_for_more("hits that are not replicated", &admitted[0], 300);
        }
        primary.server.signal("KILL");
        wait_for("the primary is gone", || primary_is_gone(primary));
        let killed_at = now();
        replica.server.signal("CONT");
        wait_for("the replica is promoted", || replica.connect().info("replication", "role") == "master");
        wait_for("the cluster is up again", || is_up(replica));
        wait_for_more("traffic on the successor", &admitted[1], 1_000);
        drop(stop);
        (threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>(), killed_at)
    });

    let mut client = replica.connect();
    let lost = lost_hits(&mut client, &keys, &known, killed_at, &link);
    assert!(link == Link::Whole || lost >= 300, "a cut link loses what it did not carry");
    for key in &safe {
        assert_eq!(logged(&mut client, key).hits, 5, "{key}: WAIT has seen it on the replica");
        assert_eq!(client.answer(&format!("RATELIMIT.HIT {key} 8 1h"))[..3], [1, 8, 2]);
    }
}

/// Compares what the successor counts with what each client knows of each key, and tells what was lost.
fn lost_hits(client: &mut Connection, keys: &[String], known: &[Vec<Known>], killed_at: u64, link: &Link) -> usize {
    let (mut acknowledged, mut lost_hits, mut unanswered_hits, mut kept_unanswered) = (0, 0, 0, 0);
    for (at, key) in keys.iter().enumerate() {
        let total = |of: fn(&Known) -> usize| known.iter().map(|known| of(&known[at])).sum::<usize>();
        let (before, after) = (total(|known| known.before), total(|known| known.after));
        let unanswered = total(|known| known.unanswered);
        // One machine, one clock, and seconds between the last hit of one node and the first of the other.
        let inherited = client.entries(key).iter().filter(|(id, ..)| time_of(id) <= killed_at).count();
        assert!(inherited <= before + unanswered, "{key}: {inherited} of {before}, {unanswered} unanswered");
        assert_eq!(logged(client, key).hits, inherited + after, "{key}: exact since the failover");
        let mut filled = 0;
        while allowed(&client.ask(&hit(key, LIMIT as u64, 1)).unwrap()) {
            filled += 1;
        }
        assert_eq!(inherited + after + filled, LIMIT, "{key}: what the successor counts is exact");
        let lost = before.saturating_sub(inherited);
        assert!(before + after + filled <= LIMIT + lost, "{key}: {before} + {after} + {filled}, {lost} lost");
        acknowledged += before;
        lost_hits += lost;
        unanswered_hits += unanswered;
        kept_unanswered += inherited.saturating_sub(before);
    }
    eprintln!(
        "failover, link {link:?}: {acknowledged} hits acknowledged by the dead primary, {lost_hits} of them lost; \
         {unanswered_hits} unanswered, at least {kept_unanswered} of them kept"
    );
    assert!(acknowledged >= 2_000);
    lost_hits
}

/// A killed process whose parent has not asked for it yet is a zombie: gone as far as clients are concerned.
fn primary_is_gone(node: &Node) -> bool {
    Client::open(("127.0.0.1", node.port())).unwrap().get_connection_with_timeout(Duration::from_secs(1)).is_err()
}
