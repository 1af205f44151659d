//! Many clients wait for one key: served in the order in which they came, as many in each window as the limit says, none
//! lost, and the server has next to nothing to do meanwhile. `make test-long` has a thousand of them wait on `100 1s`.

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::Connection;
use support::client::{number, time_of};
use support::servers::cpu_time;
use support::{Ask, Server, is_long, wait_for};

use crate::waiting::{SLACK, Waiter, ended, waiting};

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

    /// Who was served, in order. No window holds more than the limit, and none of the last ones less.
    fn served(&self, client: &mut Connection) -> Vec<u64> {
        let entries = client.entries("k");
        let times: Vec<u64> = entries.iter().map(|(id, ..)| time_of(id)).collect();
        let a_window_later = times.iter().skip(self.limit as usize);
        let mut late: Vec<u64> = Vec::new();
        for (before, time) in times.iter().zip(a_window_later) {
            let turn = before + self.window;
            assert!(*time >= turn, "no window holds more than the limit: {times:?}");
            late.push(time - turn);
        }
        late.sort_unstable();
        let (half, most) = (late[late.len() / 2], late[late.len() - 1]);
        eprintln!("{} served, by the log {half} ms late (median), at most {most} ms", times.len());
        assert!(u128::from(half) < SLACK.as_millis(), "{times:?}");
        entries.iter().map(|(_, _, cost)| self.nth(cost)).collect()
    }
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
    cpu(&server, "while all are served", || waiters.iter_mut().for_each(|waiter| assert_eq!(waiter.answer()[0], 1)));
    assert_eq!(crowd.served(&mut client), (0..crowd.clients).collect::<Vec<_>>());
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
    let served = crowd.served(&mut client);
    assert!(served.is_sorted_by(|one, next| one < next), "{served:?}");
    assert!(!served.iter().any(|nth| nth % 4 == 1), "nobody is counted who left before: {served:?}");
    let staying: Vec<u64> = served.iter().copied().filter(|nth| nth % 2 == 0).collect();
    assert_eq!(staying, (0..crowd.clients).step_by(2).collect::<Vec<_>>());
    let [admitted, timed_out, disconnected] = ended(&mut client);
    assert_eq!([admitted, timed_out, admitted + disconnected], [served.len() as u64, 0, crowd.clients]);
}
