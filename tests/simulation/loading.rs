//! What the module does while it is loaded and before the first command: on every server, and where anything is missing, has
//! another name, or fails.

use std::path::{Path, PathBuf};

use crate::api;
use crate::module::{Conditions, Module, load, unload};
use crate::problems;
use crate::server::{CRON, FLAVORS, Flavor, Reply, Server, argv, text};
use crate::stream::Bounds;
use crate::world::{START, Verdict};

/// Functions without which the module must not load. (Strings and calls are left out: the crate uses them before the module is asked.)
const NEEDED: &str = "SetModuleOptions SetCommandInfo RegisterNumericConfig IsKeysPositionRequest KeyAtPosWithFlags \
    ReplyWithError ReplyWithArray ReplyWithLongLong ReplyWithStringBuffer ReplyWithSimpleString Milliseconds GetSelectedDb GetContextFlags OpenKey CloseKey KeyType ValueLength UnlinkKey GetAbsExpire SetAbsExpire StreamAdd \
    StreamTrimByID StreamTrimByLength StreamIteratorStart StreamIteratorStop StreamIteratorNextID StreamIteratorNextField \
    Replicate SignalModifiedKey NotifyKeyspaceEvent GetNotifyKeyspaceEvents \
    BlockClientOnKeys SetDisconnectCallback GetBlockedClientPrivateData UnblockClient CreateTimer StopTimer SelectDb \
    AvoidReplicaTraffic GetCurrentUserName GetModuleUserFromUserName ACLCheckCommandPermissions FreeModuleUser";

/// Functions that some servers lack, and the module can do without.
const OPTIONAL: &str = "CachedMicroseconds SetCommandACLCategories AddACLCategory GetModuleOptionsAll";

/// What may fail, in the order in which it is asked for; whether the module has subscribed to anything by then.
const FAILING: [(&str, bool); 7] = [
    ("CreateCommand", false),
    ("SetCommandInfo", false),
    ("SetCommandACLCategories", false),
    ("RegisterNumericConfig", false),
    ("LoadConfigs", false),
    ("RegisterInfoFunc", false),
    ("SubscribeToServerEvent 8", true),
];

const TOO_OLD: &str = "ratelimit needs Redis 7.0 or Valkey 7.2 or later";
const NOT_ACCEPTED: &str = "the server did not accept a part of ratelimit";

struct Trial<'a> {
    file: &'a Path,
    flavor: &'static Flavor,
}

fn has(conditions: &str, is_so: bool) -> Verdict {
    if is_so { Ok(()) } else { Err(format!("loading: {conditions}")) }
}

impl Trial<'_> {
    fn load(&self, conditions: Conditions) -> (Server, Verdict) {
        let mut server = Server::new(self.flavor, START, Bounds::DEFAULT);
        let result = load(self.file, &mut server, conditions);
        (server, result)
    }

    /// Loads, as it must.
    fn loads(&self, conditions: Conditions) -> Verdict<(Server, Module)> {
        let shown = format!("{}, {conditions:?}", self.flavor.name);
        let (mut server, result) = self.load(conditions);
        result.map_err(|error| format!("loading: it does not load on {shown}: {error}"))?;
        let module = server.module.take().ok_or("no module")?;
        let facts = module.facts();
        server.module = Some(module);
        Ok((server, facts))
    }

    /// Does not load, as it must not, for a reason.
    fn refuses(&self, conditions: Conditions, reason: &str) -> Verdict<Module> {
        let shown = format!("{}, {conditions:?}", self.flavor.name);
        let (server, result) = self.load(conditions);
        match (result, server.module) {
            (Err(error), Some(module)) if error.contains(reason) => Ok(*module),
            (result, _) => Err(format!("loading: {shown}: {result:?}, not {reason:?}")),
        }
    }

    fn anything_missing(&self) -> Verdict {
        let lacking = |name: &str| Conditions { lacks: vec![format!("RedisModule_{name}")], ..Conditions::default() };
        for name in NEEDED.split_whitespace() {
            self.refuses(lacking(name), TOO_OLD)?;
        }
        for name in OPTIONAL.split_whitespace() {
            self.loads(lacking(name))?;
        }
        for name in ["GetCommand", "CreateCommand", "SubscribeToServerEvent", "RegisterCommandFilter", "LoadConfigs"] {
            self.refuses(lacking(name), NOT_ACCEPTED)?;
        }
        // Who cannot tell its version is not Valkey.
        self.load(lacking("GetServerInfo")).1?;
        Ok(())
    }

    fn anything_fails(&self) -> Verdict {
        for (name, has_subscribed) in FAILING {
            if self.flavor.lacks.iter().any(|lacks| lacks.ends_with(name)) {
                continue;
            }
            let conditions = Conditions { fails: vec![name.to_owned()], ..Conditions::default() };
            let module = self.refuses(conditions, NOT_ACCEPTED)?;
            // Redis 7.0 keeps the subscriptions of a module that was not loaded.
            let listens = module.key_events.is_some() || !module.server_events.is_empty() || module.filter.is_some();
            has(&format!("after {name} has failed nothing may be called"), has_subscribed || !listens)?;
        }
        Ok(())
    }

    fn arguments_and_names(&self) -> Verdict {
        self.refuses(
            Conditions { args: argv("COUNT 3"), ..Conditions::default() },
            "ratelimit takes no arguments at load",
        )?;
        for name in ["XADD", "PEXPIREAT", "UNLINK"] {
            let conditions = Conditions { renamed: vec![name.to_owned()], ..Conditions::default() };
            self.refuses(conditions, "must not be renamed")?;
        }
        self.loads(Conditions { renamed: vec!["DEL".to_owned(), "COMMAND".to_owned()], ..Conditions::default() })?;
        Ok(())
    }

    fn options(&self) -> Verdict {
        // On every server: keys are not signalled when they are closed; data may be exchanged while commands are answered.
        const ALWAYS: i32 = (1 << 1) | (1 << 2);
        for known in [0, 0xf, 1 << 4, 1 << 5, 0x3f] {
            for valkey in [None, Some("9.1.2".to_owned()), Some("7.2.5".to_owned())] {
                let of_valkey = if valkey.is_some() { known & (1 << 4 | 1 << 5) } else { 0 };
                let conditions =
                    Conditions { options: Some(known), valkey: Some(valkey.clone()), ..Conditions::default() };
                let (_, module) = self.loads(conditions)?;
                let knows = !self.flavor.lacks.contains(&"RedisModule_GetModuleOptionsAll");
                let expected = ALWAYS | if knows { of_valkey } else { 0 };
                has(
                    &format!("options {:#x}, not {expected:#x}, on {valkey:?}", module.options),
                    module.options == expected,
                )?;
            }
        }
        Ok(())
    }

    fn categories(&self) -> Verdict {
        let knows = !self.flavor.lacks.contains(&"RedisModule_AddACLCategory");
        let is_in = |module: &Module| {
            module
                .commands
                .iter()
                .all(|command| command.categories.as_ref().is_some_and(|all| all.ends_with(" ratelimit")))
        };
        let (_, module) = self.loads(Conditions { has_category: true, ..Conditions::default() })?;
        has("the ACL category is there already", is_in(&module) == knows)?;
        let conditions = Conditions { fails: vec!["AddACLCategory".to_owned()], ..Conditions::default() };
        let (_, module) = self.loads(conditions)?;
        has("the ACL category cannot be added", !is_in(&module))
    }

    fn settings(&self) -> Verdict {
        let given = [("cursors".to_owned(), 100), ("top-entries".to_owned(), 64)];
        let (mut server, _) = self.loads(Conditions { settings: given.to_vec(), ..Conditions::default() })?;
        has("cursors of the configuration", server.get_config("cursors") == Some(100))?;
        has("top-entries of the configuration", server.get_config("top-entries") == Some(64))?;
        for (name, value) in
            [("cursors", 0), ("cursors", 77), ("top-entries", 0), ("top-entries", 65_536), ("max-waiters", 9)]
        {
            server.set_config(name, value)?;
            let read = server.get_config(name);
            has(&format!("{name} is {read:?}, not {value}"), read == Some(value))?;
        }
        Ok(())
    }

    fn unloading(&self) -> Verdict {
        // The server takes the module out again if a setting of MODULE LOADEX is unknown.
        let (mut server, _) = self.loads(Conditions::default())?;
        let refused = unload(&mut server);
        has(&format!("taken out again: {refused:?}"), refused.is_ok())?;
        let memory = server.module.as_ref().map_or(0, |module| module.memory);
        has(&format!("taken out again, {memory} bytes are kept"), memory == 0)?;

        let stays =
            |result: &Verdict| matches!(result, Err(line) if line.starts_with("warning: ratelimit is never unloaded"));
        let (mut server, _) = self.loads(Conditions::default())?;
        server.command(0, &argv("RATELIMIT.PEEK a 1 1s"));
        has("unloaded after a command", stays(&unload(&mut server)))?;

        let (mut server, _) = self.loads(Conditions::default())?;
        has(
            "no filter waits for the first command",
            server.module.as_ref().is_some_and(|module| module.filter.is_some()),
        )?;
        for _ in 0..2 {
            server.server_event(CRON, 0);
            has("the filter stays", server.module.as_ref().is_some_and(|module| module.filter.is_none()))?;
        }
        has("unloaded after a while", stays(&unload(&mut server)))
    }

    /// What a cluster asks a command with keys in unknown places.
    fn key_positions(&self) -> Verdict {
        const FLAGS: i32 = 1 << 1 | 1 << 4 | 1 << 5;
        let (mut server, module) = self.loads(Conditions::default())?;
        let command = module.command(b"ratelimit.mhit").ok_or("no MHIT")?.func;
        let of = |keys: &[i32]| keys.iter().map(|&key| (key, FLAGS)).collect::<Vec<_>>();
        for (line, keys) in [
            ("RATELIMIT.MHIT 1 a 1 1s", &[2][..]),
            ("RATELIMIT.MHIT 2 a b 1 1s AND 1 1s", &[2, 3]),
            ("RATELIMIT.MHIT 3 a b c", &[2, 3, 4]),
            ("RATELIMIT.MHIT 4 a b c", &[]),
            ("RATELIMIT.MHIT 0 a b c", &[]),
            ("RATELIMIT.MHIT -1 a b c", &[]),
            ("RATELIMIT.MHIT x a b c", &[]),
            ("RATELIMIT.MHIT", &[]),
        ] {
            let positions = api::key_positions(&raw mut server, command, &argv(line));
            has(&format!("keys of {line}: {positions:?}"), positions == of(keys))?;
        }
        // Without the function that a cluster asks by, it is an ordinary call.
        let reply = server.command(0, &argv("RATELIMIT.MHIT 1 a 1 1s"));
        has("MHIT after that", matches!(reply, Reply::Array(_)))
    }

    fn most_keys(&self) -> Verdict {
        let (mut server, _) = self.loads(Conditions::default())?;
        for (keys, is_accepted) in [(1_024, true), (1_025, false)] {
            let names: String = (0..keys).map(|key| format!(" k{key}")).collect();
            let line = format!("RATELIMIT.MHIT {keys}{names} {}", vec!["1 1s"; keys].join(" AND "));
            let reply = server.command(0, &argv(&line));
            has(&format!("MHIT of {keys} keys"), matches!(reply, Reply::Array(_)) == is_accepted)?;
        }
        Ok(())
    }

    fn info(&self) -> Verdict {
        let (mut server, _) = self.loads(Conditions::default())?;
        server.command(0, &argv("RATELIMIT.HIT a 1 1s"));
        let fields = server.info();
        let version = fields.iter().find(|field| field.0 == "version").map(|field| field.1.clone());
        has("the version in INFO", version.as_deref() == Some(env!("CARGO_PKG_VERSION_OF_MODULE")))?;
        // A long key is not counted, a long argument is not echoed.
        let long = text(vec![b'k'; 100_000]);
        let mut words = argv("RATELIMIT.HIT a 0 1s");
        words[1] = long;
        has("a long key", matches!(server.command(0, &words), Reply::Array(_)))?;
        has("a long key in TOP", server.command(0, &argv("RATELIMIT.TOP")) == Reply::Array(Vec::new()))
    }
}

/// Where it is written down what the module registers.
fn golden(flavor: &Flavor) -> PathBuf {
    let name = flavor.name.to_ascii_lowercase().replace(' ', "-");
    Path::new(env!("CARGO_MANIFEST_DIR")).join("registered").join(format!("{name}.txt"))
}

/// Compares everything that the module registers with what is written down, which `UPDATE` writes anew.
fn registered(file: &Path, flavor: &'static Flavor) -> Verdict {
    let (_, module) = Trial { file, flavor }.loads(Conditions::default())?;
    let (described, path) = (module.describe(), golden(flavor));
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(&path, described).map_err(|error| error.to_string());
    }
    let expected = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let differs = described.lines().zip(expected.lines()).find(|(one, other)| one != other);
    match differs {
        None if described.len() == expected.len() => Ok(()),
        differs => Err(format!("loading: on {} it registers something else: {differs:?}", flavor.name)),
    }
}

/// All of it, on every server.
pub fn check(file: &Path) -> Verdict {
    for flavor in &FLAVORS {
        let trial = Trial { file, flavor };
        registered(file, flavor)?;
        trial.anything_fails()?;
        trial.options()?;
        trial.categories()?;
        trial.settings()?;
        trial.unloading()?;
        trial.key_positions()?;
        trial.most_keys()?;
        trial.info()?;
        if let Some(problem) = problems::first() {
            return Err(format!("loading: {problem}"));
        }
    }
    let trial = Trial { file, flavor: &FLAVORS[1] };
    trial.anything_missing()?;
    trial.arguments_and_names()?;
    problems::first().map_or(Ok(()), |problem| Err(format!("loading: {problem}")))
}
