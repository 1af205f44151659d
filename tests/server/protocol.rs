//! Commands work in pipelines, in both versions of the protocol, and from a shell.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use redis::Value;
use support::errors;
use support::{Ask, PATIENCE, Server, Stage, in_minutes};

#[test]
fn pipelined() {
    let server = Server::start();
    let mut client = server.connect();
    let mut pipe = redis::pipe();
    for _ in 0..200 {
        pipe.cmd("RATELIMIT.HIT").arg("key").arg(60).arg("1m");
    }
    let replies: Vec<Value> = pipe.query(&mut client).unwrap();
    for (at, reply) in (0..).zip(&replies) {
        let expected = if at < 60 { [1, 60, 59 - at, 0, 60_000, 60_000] } else { [0, 60, 0, 60_000, 60_000, 60_000] };
        assert_eq!(in_minutes(reply), expected, "call {at}");
    }
    assert_eq!(replies.len(), 200);
}

#[test]
fn both_protocols_get_the_same_bytes() {
    let Some(Stage { server, clock: _clock, .. }) = Stage::new() else { return };
    let calls = [
        ("RATELIMIT.HIT {} 2 1m", "*6\r\n:1\r\n:2\r\n:1\r\n:0\r\n:60000\r\n:60000\r\n"),
        ("RATELIMIT.HIT {} 2 1m", "*6\r\n:1\r\n:2\r\n:0\r\n:0\r\n:60000\r\n:60000\r\n"),
        ("RATELIMIT.HIT {} 2 1m", "*6\r\n:0\r\n:2\r\n:0\r\n:60000\r\n:60000\r\n:60000\r\n"),
        ("RATELIMIT.PEEK {} 2 1m COST 3", "*6\r\n:0\r\n:2\r\n:0\r\n:-1\r\n:60000\r\n:60000\r\n"),
        ("RATELIMIT.HIT {} 2 60 COST 0", "-ERR cost is not an integer or out of range\r\n"),
        ("RATELIMIT.RESET {} other", ":1\r\n"),
        ("RATELIMIT.PEEK {} 0 1m", "*6\r\n:0\r\n:0\r\n:0\r\n:-1\r\n:0\r\n:0\r\n"),
    ];
    for protocol in ["2", "3"] {
        let mut stream = UnixStream::connect(server.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut sent = format!("HELLO {protocol}\r\nECHO begin\r\n");
        let mut expected = "$5\r\nbegin\r\n".to_owned();
        for (line, bytes) in calls {
            sent += &(line.replace("{}", &format!("raw:{protocol}")) + "\r\n");
            expected += bytes;
        }
        stream.write_all((sent + "QUIT\r\n").as_bytes()).unwrap();
        let mut received = String::new();
        stream.read_to_string(&mut received).unwrap();
        let (hello, rest) = received.split_at(received.find("$5\r\nbegin").unwrap());
        assert!(hello.starts_with(if protocol == "2" { '*' } else { '%' }), "protocol {protocol}: {hello}");
        assert_eq!(rest, expected + "+OK\r\n", "protocol {protocol}");
    }
    for mut client in [server.connect(), server.connect_resp3()] {
        assert_eq!(client.answer("RATELIMIT.HIT client 2 1m")[0], 1);
        assert_eq!(client.integer("RATELIMIT.RESET client"), 1);
    }
}

#[test]
fn in_a_shell_script() {
    let server = Server::start();
    let script = r#"
        set -eu
        for try in 1 2 3; do
            set -- $(redis-cli -s "$SOCKET" RATELIMIT.HIT login 2 10m)
            if [ "$1" -eq 1 ]; then
                echo "try $try: welcome, $3 of $2 left"
            else
                echo "try $try: come back in $(( ($4 + 59999) / 60000 )) min"
            fi
        done
        redis-cli -s "$SOCKET" RATELIMIT.RESET login
        redis-cli -e -s "$SOCKET" RATELIMIT.HIT login two 10m 2>&1 || echo "failed"
    "#;
    let output = Command::new("sh").args(["-c", script]).env("SOCKET", server.socket()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let expected = [
        "try 1: welcome, 1 of 2 left",
        "try 2: welcome, 0 of 2 left",
        "try 3: come back in 10 min",
        "1",
        errors::LIMIT,
        "failed",
    ];
    assert_eq!(lines, expected);
    assert!(output.status.success());
}
