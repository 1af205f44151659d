//! Clients that wait: blocking them, answering them, and the timer that serves them.
//!
//! A client is blocked on a key of the same slot as its own, which nobody uses ([`place_of`]). So the server does with it what it
//! does with BLPOP: it sends MOVED when the slot has gone, ends the waiting when the server becomes a replica, and obeys CLIENT
//! UNBLOCK. The line itself is the module's. It cannot be the server's own line of a key, tried on every server:
//! * Redis 7.0 serves nobody while the key does not exist, and a log that is empty does not.
//! * Every write to a key asks each client that waits for it, so hits would become dearer with the length of the line.
//!
//! Whoever is served has been charged by then: a timer calls RATELIMIT.HIT as the server calls commands in scripts, which
//! checks what it checks before any write. The answer is kept until the server asks for it: at once on Redis 7.0 and Valkey,
//! before it sleeps next on Redis 8.
//!
//! Timers go by the clock of the machine. One that was set before the clock was set back would come late, so
//! [`tick`] looks after it.

use std::ffi::{CString, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use limiter::error::{self, Error};
use limiter::line::LOOK_AFTER;
use redis_module::raw;

use super::api::{ERR, OK, api};
use super::command::Reply;
use super::context::{Arg, Server};
use super::dispatch;
use super::shared::Exclusive;
use super::strings::OwnedString;

/// What is done with clients that wait. A client is known by its number, from 1 on.
pub trait Waiting {
    /// The timer has come, or is not to be relied on. The context is one of its own.
    fn look(server: Server) -> Result<(), Error>;

    /// The reply to a client that was answered, or whose time is over. `args` are those of its command.
    fn end(server: Server, client: u64, args: &[Arg]) -> Result<Reply, Error>;

    /// A client waits no longer, and gets no reply from the module.
    fn left(server: Server, client: u64) -> Result<(), Error>;
}

/// A client that waits, and its command.
pub struct Client {
    blocked: *mut raw::RedisModuleBlockedClient,
    command: Asked,
}

// SAFETY: only the main thread, where commands run, uses it.
unsafe impl Send for Client {}

/// The command of a client that waits, without WAIT, and who asked.
pub struct Asked {
    args: Box<[OwnedString]>,
    /// None for the default user.
    user: Option<OwnedString>,
}

const DEFAULT_USER: &str = "default";

impl Client {
    pub fn key(&self) -> Result<OwnedString, Error> {
        OwnedString::retain(self.command.key()?)
    }

    pub fn asked(&self) -> Result<Asked, Error> {
        let retain = |string: &OwnedString| OwnedString::retain(string.as_arg());
        let args = self.command.args.iter().map(retain).collect::<Result<_, _>>()?;
        Ok(Asked { args, user: self.command.user.as_ref().map(retain).transpose()? })
    }
}

impl Asked {
    pub fn key(&self) -> Result<Arg<'_>, Error> {
        self.args.get(1).map(OwnedString::as_arg).ok_or(error::INTERNAL)
    }

    fn raw(&self) -> Vec<*mut raw::RedisModuleString> {
        self.args.iter().map(OwnedString::as_raw).collect()
    }
}

/// What became of the hit of a client that waits.
pub enum Outcome {
    Reply(Reply),
    /// The key's slot is not served here at the moment. The server itself tells the client, unless that changes.
    Elsewhere,
}

static TIMER: Exclusive<Timer> = Exclusive::new(Timer { set: None, look: None });

struct Timer {
    /// The timer that is set, and when it comes, in milliseconds since the epoch.
    set: Option<(raw::RedisModuleTimerID, u64)>,
    /// What it does. None as long as nobody has waited.
    look: Option<fn(Server) -> Result<(), Error>>,
}

impl Server<'_> {
    fn flags(self) -> Result<u32, Error> {
        // SAFETY: the context is that of the running command or callback.
        Ok(unsafe { api(raw::RedisModule_GetContextFlags)?(self.ctx()) }.unsigned_abs())
    }

    /// Whether the client may be blocked: not in transactions, scripts and functions, and not if another module calls.
    pub fn may_block(self) -> Result<bool, Error> {
        const DENIED: u32 = raw::REDISMODULE_CTX_FLAGS_DENY_BLOCKING
            | raw::REDISMODULE_CTX_FLAGS_MULTI
            | raw::REDISMODULE_CTX_FLAGS_LUA
            | raw::REDISMODULE_CTX_FLAGS_REPLICATED;
        Ok(self.flags()? & DENIED == 0)
    }

    /// Whether nothing may be written or deleted at the moment: CLIENT PAUSE, FAILOVER, a slot on its way.
    pub fn is_paused(self) -> Result<bool, Error> {
        // SAFETY: the function takes nothing.
        Ok(unsafe { api(raw::RedisModule_AvoidReplicaTraffic)?() } != 0)
    }

    /// Blocks the client of the running command, which then sends no reply. None if the server does not do it.
    pub fn block<W: Waiting>(
        self,
        client: u64,
        name: Arg,
        args: &[Arg],
        timeout: u64,
    ) -> Result<Option<Client>, Error> {
        let place = OwnedString::new(&place_of(name.bytes()))?;
        let args = args.iter().map(|arg| OwnedString::retain(*arg)).collect::<Result<_, _>>()?;
        // SAFETY: the context is that of a client's command; the string becomes ours.
        let user = unsafe { OwnedString::from_raw(api(raw::RedisModule_GetCurrentUserName)?(self.ctx())) };
        let user = Some(user).filter(|user| user.bytes() != DEFAULT_USER.as_bytes());
        let timeout = i64::try_from(timeout).unwrap_or(i64::MAX);
        let id = usize::try_from(client).map_err(|_| error::INTERNAL)?;
        // SAFETY: the context is that of a command that may block; the server retains the key's name. The private data are a
        // number and point to nothing, so nothing has to free them.
        let blocked = unsafe {
            let block = api(raw::RedisModule_BlockClientOnKeys)?;
            let set_disconnect = api(raw::RedisModule_SetDisconnectCallback)?;
            let mut keys = [place.as_raw()];
            let (ctx, keys, data) = (self.ctx(), keys.as_mut_ptr(), id as *mut c_void);
            let blocked = block(ctx, Some(on_ready), Some(on_end::<W>), None, timeout, keys, 1, data);
            if blocked.is_null() {
                return Ok(None);
            }
            set_disconnect(blocked, Some(on_disconnect::<W>));
            blocked
        };
        Ok(Some(Client { blocked, command: Asked { args, user } }))
    }

    /// Lets the server ask for the reply to a client, by [`Waiting::end`].
    pub fn answer(self, client: Client) -> Result<(), Error> {
        // SAFETY: the handle is that of a client which waits: whoever has left is known by the disconnect callback.
        unsafe { api(raw::RedisModule_UnblockClient)?(client.blocked, null_mut()) };
        Ok(())
    }

    /// Selects a database for what follows in this context.
    pub fn select(self, database: i32) -> Result<(), Error> {
        // SAFETY: the context is that of a timer, with a client of its own.
        unsafe { api(raw::RedisModule_SelectDb)?(self.ctx(), database) };
        Ok(())
    }

    /// Calls the command of a client that waits, if a client could call it now. It replicates what it does. An error reply is the
    /// server's own where the server refuses it.
    pub fn call(self, asked: &Asked) -> Result<Outcome, Error> {
        if !asked.is_permitted()? {
            return Ok(Outcome::Reply(Reply::Error(error::NO_PERMISSION.0.into())));
        }
        let flags = self.flags()?;
        let is_full = flags & raw::REDISMODULE_CTX_FLAGS_OOM != 0;
        // The server evicts before a command, but not here.
        if is_full && flags & raw::REDISMODULE_CTX_FLAGS_EVICT == 0 {
            return Ok(Outcome::Reply(Reply::Error(error::OUT_OF_MEMORY.0.into())));
        }
        // `!` lets the command replicate what it does, `S` checks what is checked in scripts, `M` whether there was memory at
        // the last command, `E` makes refusals a reply (Valkey 9.1 ends without it), `v` stands for strings and their number.
        let format = if is_full { c"!SMEv" } else { c"!SEv" };
        let mut args = asked.raw();
        let args = args.get_mut(1..).ok_or(error::INTERNAL)?;
        // SAFETY: the strings outlive the call; the reply is null or freed once.
        let reply = unsafe {
            let call = api(raw::RedisModule_Call)?;
            let reply = call(self.ctx(), c"RATELIMIT.HIT".as_ptr(), format.as_ptr(), args.as_mut_ptr(), args.len());
            if reply.is_null() {
                return Err(error::INTERNAL);
            }
            let copied = copy(reply);
            api(raw::RedisModule_FreeCallReply)?(reply);
            copied?
        };
        Ok(match reply {
            Reply::Error(text) if is_elsewhere(text.to_bytes()) => Outcome::Elsewhere,
            reply => Outcome::Reply(reply),
        })
    }

    /// Lets [`Waiting::look`] be called at a moment, or before.
    pub fn set_timer<W: Waiting>(self, now: u64, at: u64) -> Result<(), Error> {
        let before = TIMER.with(|timer| match timer.set {
            Some((_, before)) if before <= at => None,
            _ => Some(timer.set.take()),
        });
        let Some(Some(before)) = before else { return Ok(()) };
        // Timers that come at once would come again in the same step.
        let period = at.saturating_sub(now).max(1);
        // SAFETY: the context is one of this module; the timer that is stopped has not come.
        let id = unsafe {
            if let Some((before, _)) = before {
                api(raw::RedisModule_StopTimer)?(self.ctx(), before, null_mut());
            }
            let period = raw::mstime_t::try_from(period).unwrap_or(raw::mstime_t::MAX);
            api(raw::RedisModule_CreateTimer)?(self.ctx(), period, Some(on_timer::<W>), null_mut())
        };
        TIMER.with(|timer| *timer = Timer { set: Some((id, at)), look: Some(W::look) });
        Ok(())
    }
}

impl Asked {
    /// Whether the user who asked may still call this command on this key.
    fn is_permitted(&self) -> Result<bool, Error> {
        let default = match &self.user {
            Some(_) => None,
            None => Some(OwnedString::new(DEFAULT_USER.as_bytes())?),
        };
        let Some(name) = self.user.as_ref().or(default.as_ref()) else { return Err(error::INTERNAL) };
        let mut args = self.raw();
        let count = c_int::try_from(args.len()).map_err(|_| error::INTERNAL)?;
        // SAFETY: name and arguments are strings of ours; the user is null or freed once, which frees only what this module
        // holds of it.
        unsafe {
            let free = api(raw::RedisModule_FreeModuleUser)?;
            let check = api(raw::RedisModule_ACLCheckCommandPermissions)?;
            let user = api(raw::RedisModule_GetModuleUserFromUserName)?(name.as_raw());
            if user.is_null() {
                return Ok(false);
            }
            let is_permitted = check(user, args.as_mut_ptr(), count) == OK;
            free(user);
            Ok(is_permitted)
        }
    }
}

/// A key in the slot of another one, for clients that wait for that one.
fn place_of(name: &[u8]) -> Vec<u8> {
    const SUFFIX: &[u8] = b":ratelimit.waiting";
    let tag = name.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = name.get(open.saturating_add(1)..)?;
        rest.get(..rest.iter().position(|&byte| byte == b'}')?).filter(|tag| !tag.is_empty())
    });
    match tag {
        Some(tag) => [b"{", tag, b"}", SUFFIX].concat(),
        None if name.is_empty() || name.contains(&b'}') => name.to_vec(),
        None => [b"{", name, b"}", SUFFIX].concat(),
    }
}

/// Whether an error says that the key's slot is not served here, or none is. The words are for modules; a client is told MOVED,
/// ASK or CLUSTERDOWN.
fn is_elsewhere(text: &[u8]) -> bool {
    const WORDS: [&[u8]; 2] = [b"non local key", b"the cluster is down"];
    WORDS.iter().any(|words| text.windows(words.len()).any(|part| part == *words))
}

/// # Safety
/// `reply` is a reply of the server.
unsafe fn copy(reply: *mut raw::RedisModuleCallReply) -> Result<Reply, Error> {
    // SAFETY: the reply is as promised; its parts live as long as it does; texts are copied.
    unsafe {
        match api(raw::RedisModule_CallReplyType)?(reply) as isize {
            raw::REDISMODULE_REPLY_INTEGER => Ok(Reply::Integer(api(raw::RedisModule_CallReplyInteger)?(reply))),
            raw::REDISMODULE_REPLY_ARRAY => {
                let element = api(raw::RedisModule_CallReplyArrayElement)?;
                let length = api(raw::RedisModule_CallReplyLength)?(reply);
                (0..length).map(|at| copy(element(reply, at))).collect::<Result<_, _>>().map(Reply::Array)
            }
            raw::REDISMODULE_REPLY_ERROR => {
                let mut length = 0;
                let text = api(raw::RedisModule_CallReplyStringPtr)?(reply, &raw mut length);
                if text.is_null() {
                    return Err(error::INTERNAL);
                }
                let text = std::slice::from_raw_parts(text.cast::<u8>(), length);
                let line = text.split(|byte| matches!(byte, 0 | b'\r' | b'\n')).next().unwrap_or_default();
                CString::new(line).map(Reply::Error).map_err(|_| error::INTERNAL)
            }
            _ => Err(error::INTERNAL),
        }
    }
}

/// Somebody has written the key on which a client is blocked, which says nothing.
///
/// # Safety
/// Called by the server alone.
unsafe extern "C" fn on_ready(_: *mut raw::RedisModuleCtx, _: *mut *mut raw::RedisModuleString, _: c_int) -> c_int {
    ERR
}

/// # Safety
/// `ctx` is the context of a callback about a blocked client.
unsafe fn number_of(ctx: *mut raw::RedisModuleCtx) -> u64 {
    // SAFETY: as promised; the private data are a number.
    unsafe { raw::RedisModule_GetBlockedClientPrivateData.map_or(0, |data| data(ctx) as usize as u64) }
}

/// The server asks for the reply to a client that was answered, or whose time is over.
///
/// # Safety
/// Called by the server alone, with the arguments of the client's command.
unsafe extern "C" fn on_end<W: Waiting>(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> c_int {
    // SAFETY: the server calls it as a command.
    unsafe {
        let client = number_of(ctx);
        dispatch::enter(ctx, argv, argc, |server, args| W::end(server, client, args));
    }
    OK
}

/// # Safety
/// Called by the server alone, when a client waits no longer for another reason than that it was answered.
unsafe extern "C" fn on_disconnect<W: Waiting>(ctx: *mut raw::RedisModuleCtx, _: *mut raw::RedisModuleBlockedClient) {
    // SAFETY: the context is as promised.
    let (server, client) = unsafe { (Server::new(ctx), number_of(ctx)) };
    let _ = catch_unwind(AssertUnwindSafe(|| W::left(server, client)));
}

/// # Safety
/// Called by the server alone.
unsafe extern "C" fn on_timer<W: Waiting>(ctx: *mut raw::RedisModuleCtx, _: *mut c_void) {
    TIMER.with(|timer| timer.set = None);
    // SAFETY: the context is that of this callback.
    let server = unsafe { Server::new(ctx) };
    let _ = catch_unwind(AssertUnwindSafe(|| W::look(server)));
}

/// Looks after the timer ten times a second (`hz`), by a clock that nobody can set: it may be late, or there may be none.
pub fn tick(server: Server) {
    let timer = TIMER.with(|timer| Some((timer.look?, timer.set.map(|(_, at)| at))));
    let Some((look, at)) = timer.flatten() else { return };
    let now = server.clock();
    let is_well = at.is_some_and(|at| at > now && at <= now.saturating_add(LOOK_AFTER.saturating_mul(2)));
    if !is_well {
        let _ = look(server);
    }
}
