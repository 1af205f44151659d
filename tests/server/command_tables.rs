//! `COMMAND INFO`, `COMMAND GETKEYS`, `COMMAND DOCS` and `MODULE LIST` tell the truth about the commands and the module.

use redis::Value;
use support::client::{listed, show};
use support::{Ask, Server, get, words};

#[test]
fn command_info() {
    let server = Server::start();
    let mut client = server.connect();
    let specs = |flags: &str, last: i32| {
        format!(
            "[[flags [{flags}] begin_search [type index spec [index 1]] \
             find_keys [type range spec [lastkey {last} keystep 1 limit 0]]]]"
        )
    };
    for (name, arity, flags, last, key_specs) in [
        ("ratelimit.hit", -4, &["denyoom", "fast", "module", "write"][..], 1, specs("RW access update", 0)),
        ("ratelimit.peek", -4, &["fast", "module", "readonly"], 1, specs("RO access", 0)),
        ("ratelimit.reset", -2, &["module", "write"], -1, specs("RM delete", -1)),
    ] {
        let rows: Vec<Vec<Value>> = get(client.run(&format!("COMMAND INFO {name}")));
        let row = &rows[0];
        let heads = [0, 1, 3, 4, 5].map(|at| show(&row[at]));
        let expected = [name.to_owned(), arity.to_string(), 1.to_string(), last.to_string(), 1.to_string()];
        assert_eq!(heads, expected, "{name}: name, arity, first key, last key, step");
        let mut actual: Vec<String> = get(row[2].clone());
        actual.sort();
        assert_eq!(actual, flags, "{name}");
        assert_eq!(show(&row[8]), key_specs, "{name}");
        // Commands of modules have no categories before Redis 7.2, whatever their flags are.
        let categories: Vec<String> = get(row[6].clone());
        for category in if categories.is_empty() { &[] } else { flags } {
            let follows = ["fast", "write"].contains(category);
            assert!(!follows || categories.contains(&format!("@{category}")), "{name}: {categories:?}");
        }
    }
    assert_eq!(client.run("COMMAND INFO ratelimit.nonsense"), Value::Array(vec![Value::Nil]));
}

#[test]
fn command_getkeys() {
    let server = Server::start();
    let mut client = server.connect();
    for (line, keys) in [
        ("RATELIMIT.HIT k 10 1s", &["k"][..]),
        ("RATELIMIT.HIT k 10 1s 500 1h COST 3 STRICT", &["k"]),
        ("RATELIMIT.HIT 10 10 10", &["10"]),
        ("RATELIMIT.PEEK COST 1 1 COST 2", &["COST"]),
        ("RATELIMIT.PEEK k 1 1 2 2 3 3", &["k"]),
        ("RATELIMIT.RESET a", &["a"]),
        ("RATELIMIT.RESET a b c a", &["a", "b", "c", "a"]),
    ] {
        assert_eq!(get::<Vec<String>>(client.run(&format!("COMMAND GETKEYS {line}"))), keys, "{line}");
    }
    for line in ["RATELIMIT.HIT k 10", "RATELIMIT.PEEK k"] {
        let short = client.ask(&words(&format!("COMMAND GETKEYS {line}")));
        assert_eq!(short, Err("ERR Invalid number of arguments specified for command".to_owned()), "{line}");
    }
}

#[test]
fn command_docs() {
    let server = Server::start();
    let mut client = server.connect();
    const KEY: &str = "[name key type key key_spec_index 0]";
    const TIER: &str = "[name tier type block flags [multiple] \
        arguments [[name limit type integer] [name window type string]]]";
    const COST: &str = "[name units type integer token COST flags [optional]]";
    const RECORD: &str = "[name record type oneof flags [optional] \
        arguments [[name strict type pure-token token STRICT] [name force type pure-token token FORCE]]]";
    const WITHTIERS: &str = "[name withtiers type pure-token token WITHTIERS flags [optional]]";
    const WAIT: &str = "[name timeout type string token WAIT flags [optional]]";
    for (name, summary, complexity, arguments) in [
        (
            "ratelimit.hit",
            "Records a hit if every limit allows it, and tells what is left.",
            "O(log N) for each tier, N being the number of entries in the log",
            format!("[{KEY} {TIER} {COST} {RECORD} {WAIT} {WITHTIERS}]"),
        ),
        (
            "ratelimit.peek",
            "Tells what RATELIMIT.HIT would answer, and changes nothing.",
            "O(log N) for each tier, N being the number of entries in the log",
            format!("[{KEY} {TIER} {COST} {WITHTIERS}]"),
        ),
        (
            "ratelimit.mhit",
            "Records a hit on several keys if every limit allows it, or on none.",
            "O(K log N) for K keys, N being the number of entries in a log",
            format!(
                "[[name numkeys type integer] [name key type key key_spec_index 0 flags [multiple]] \
                 [name group type block arguments [{TIER} {COST}]] \
                 [name further type block token AND flags [optional multiple multiple_token] \
                 arguments [{TIER} {COST}]] {RECORD} {WITHTIERS}]"
            ),
        ),
        (
            "ratelimit.reset",
            "Forgets the hits of keys.",
            "O(N) where N is the number of keys; their memory is freed in the background",
            "[[name key type key key_spec_index 0 flags [multiple]]]".to_owned(),
        ),
    ] {
        let docs: Vec<(String, Vec<(String, Value)>)> = get(client.run(&format!("COMMAND DOCS {name}")));
        assert_eq!(docs[0].0, name);
        let field = |wanted: &str| {
            let found = docs[0].1.iter().find(|(field, _)| field == wanted);
            found.map_or_else(|| panic!("{name} has no {wanted}"), |(_, value)| show(value))
        };
        assert_eq!(field("summary"), summary, "{name}");
        assert_eq!(field("since"), "0.1.0", "{name}");
        assert_eq!(field("group"), "module", "{name}");
        assert_eq!(field("module"), "ratelimit", "{name}");
        assert_eq!(field("complexity"), complexity, "{name}");
        // Servers from 7.2 on add a text to show to arguments that have none of their own.
        let shown: Vec<String> = field("arguments").split(" display_text ").map(str::to_owned).collect();
        let mut arguments_seen = shown[0].clone();
        for part in &shown[1..] {
            arguments_seen += part.find([' ', ']']).map_or("", |end| &part[end..]);
        }
        assert_eq!(arguments_seen, arguments, "{name}");
    }
}

#[test]
fn module_list_shows_the_packages_version() {
    let server = Server::start();
    let module = listed(&mut server.connect()).unwrap();
    let field = |wanted: &str| &module.iter().find(|(name, _)| name == wanted).unwrap().1;
    let part = |text: &str| text.parse::<i64>().unwrap();
    let version = part(env!("CARGO_PKG_VERSION_MAJOR")) * 10_000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 100
        + part(env!("CARGO_PKG_VERSION_PATCH"));
    assert_eq!(*field("ver"), Value::Int(version));
}
