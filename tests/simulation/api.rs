//! The functions of the module API, as far as the module uses them, with every rule of theirs checked.
//!
//! What the server would crash on, or only get wrong at times, is a problem here at once.

use std::alloc::Layout;
use std::ffi::{CStr, c_char, c_int, c_long, c_longlong, c_uint, c_ulonglong, c_void};
use std::ptr::{null, null_mut};
use std::rc::Rc;

use redis_module::raw::{self, RedisModuleCommandArg, RedisModuleCommandInfo, RedisModuleStreamID};

use crate::frame::Part;
use crate::module::{
    CommandFunc, FilterFunc, GetFunc, InfoFunc, KeyEventFunc, Registered, ServerEventFunc, SetFunc, Setting,
};
use crate::problems::problem;
use crate::server::{Effect, Entry, Failure, GENERIC, NEW, Reply, Role, STREAM, Server, Value, text};
use crate::stream::{Id, Place, Stream, Text};
use crate::strings::{self, Str};
use crate::waiting::{Blocked, LeftFunc, Timer, TimerFunc, What};

const OK: c_int = 0;
const ERR: c_int = 1;

/// What a context is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Load,
    Command,
    Event,
    Over,
}

#[repr(C)]
pub struct Ctx {
    /// Where `RedisModule_Init` looks for it.
    get_api: *const c_void,
    kind: Kind,
    server: *mut Server,
    database: usize,
    open_keys: u32,
    open_replies: i64,
    reply: Option<Reply>,
    /// Arrays that are not complete, the outermost first.
    arrays: Vec<(usize, Vec<Reply>)>,
    /// The server asks for the positions of keys.
    asks_for_keys: bool,
    positions: Vec<(c_int, c_int)>,
    /// What the module has given to know a client by that waits.
    data: *mut c_void,
    /// The client of the command waits.
    blocks: Option<u64>,
}

thread_local! {
    /// Functions without a context ask this one.
    static CURRENT: std::cell::Cell<*mut Server> = const { std::cell::Cell::new(null_mut()) };
    static OLD: std::cell::RefCell<[Vec<usize>; 2]> = const { std::cell::RefCell::new([Vec::new(), Vec::new()]) };
}

const CONTEXTS: usize = 0;
const KEYS: usize = 1;

/// Something whose memory is used again, but never given back: so its state can be looked at when it is over.
fn old<T>(kind: usize) -> Option<*mut T> {
    if cfg!(feature = "sanitized") {
        return None;
    }
    OLD.with_borrow_mut(|old| old[kind].pop().map(|place| place as *mut T))
}

fn keep<T>(kind: usize, place: *mut T) {
    if cfg!(feature = "sanitized") {
        // SAFETY: it came from a box, and nobody has a right to it any more.
        drop(unsafe { Box::from_raw(place) });
        return;
    }
    OLD.with_borrow_mut(|old| old[kind].push(place as usize));
}

/// The module is called without a context.
pub fn at(server: *mut Server) {
    CURRENT.set(server);
}

/// A context for one call into the module. The caller gives it back.
pub fn enter(server: *mut Server, kind: Kind, database: usize) -> *mut Ctx {
    let fresh = Ctx {
        get_api: get_api as *const c_void,
        kind,
        server,
        database,
        open_keys: 0,
        open_replies: 0,
        reply: None,
        arrays: Vec::new(),
        asks_for_keys: false,
        positions: Vec::new(),
        data: null_mut(),
        blocks: None,
    };
    CURRENT.set(server);
    match old::<Ctx>(CONTEXTS) {
        Some(place) => {
            // SAFETY: it came from a box, and nobody else uses it.
            unsafe { *place = fresh };
            place
        }
        None => Box::into_raw(Box::new(fresh)),
    }
}

/// The same about a client that waits.
pub fn enter_for(server: *mut Server, kind: Kind, database: usize, data: *mut c_void) -> *mut Ctx {
    let ctx = enter(server, kind, database);
    // SAFETY: the context is ours until it is left.
    unsafe { (*ctx).data = data };
    ctx
}

/// The call is over.
pub fn leave(server: *mut Server, ctx: *mut Ctx) -> Option<Reply> {
    CURRENT.set(server);
    // SAFETY: the context came from `enter`, and is given back once.
    let one = unsafe { &mut *ctx };
    if one.open_keys != 0 {
        problem(format!("{} keys are left open", one.open_keys));
    }
    if one.open_replies != 0 {
        problem(format!("{} replies of calls are not freed", one.open_replies));
    }
    if !one.arrays.is_empty() {
        problem("an array of the reply is not complete");
    }
    one.kind = Kind::Over;
    let reply = one.reply.take();
    keep(CONTEXTS, ctx);
    reply
}

/// Runs a command of the module.
pub fn call(server: *mut Server, command: CommandFunc, database: usize, argv: &[Text]) -> Reply {
    let ctx = enter(server, Kind::Command, database);
    run(ctx, command, argv);
    // SAFETY: the context is ours until it is left.
    let waits = unsafe { (*ctx).blocks.is_some() };
    let reply = leave(server, ctx);
    if reply.is_some() == waits {
        problem(if waits { "a reply to a client that waits" } else { "there is no reply" });
    }
    reply.unwrap_or(Reply::Nil)
}

fn run(ctx: *mut Ctx, command: CommandFunc, argv: &[Text]) {
    let mut strings: Vec<*mut Str> = argv.iter().map(strings::lend).collect();
    // SAFETY: the context and the strings live until the function returns.
    unsafe { command(ctx.cast(), strings.as_mut_ptr().cast(), strings.len() as c_int) };
    // SAFETY: as above.
    let (blocks, server) = unsafe { ((*ctx).blocks, (*ctx).server) };
    if let Some(number) = blocks {
        // SAFETY: the server called the module, which has returned.
        let blocked = unsafe { (*server).waiting.blocked.iter_mut() }.find(|one| one.number == number);
        if let Some(one) = blocked {
            one.strings = strings;
            return;
        }
    }
    strings.into_iter().for_each(strings::take_back);
}

/// Asks a command for the positions of its keys, as a cluster does.
pub fn key_positions(server: *mut Server, command: CommandFunc, argv: &[Text]) -> Vec<(i32, i32)> {
    let ctx = enter(server, Kind::Command, 0);
    // SAFETY: the context is ours until it is left.
    unsafe { (*ctx).asks_for_keys = true };
    run(ctx, command, argv);
    // SAFETY: as above.
    let positions = unsafe { std::mem::take(&mut (*ctx).positions) };
    if leave(server, ctx).is_some() {
        problem("a command replied when it was asked for its keys");
    }
    positions
}

pub fn info(server: &mut Server) -> Vec<(String, String)> {
    let Some(write) = server.module.as_ref().and_then(|module| module.info) else { return Vec::new() };
    let mut fields: Vec<(String, String)> = Vec::new();
    CURRENT.set(server);
    // SAFETY: the context of a section is whatever the functions below take it for.
    unsafe { write((&raw mut fields).cast(), 0) };
    fields
}

/// The context, if it is one that may be used now.
fn context<'a>(ctx: *mut Ctx) -> Option<&'a mut Ctx> {
    // SAFETY: contexts keep their memory, so one that is over is found here.
    match unsafe { ctx.as_mut() } {
        Some(one) if one.kind != Kind::Over => Some(one),
        Some(_) => {
            problem("a context is used after its call");
            None
        }
        None => {
            problem("a null context is used");
            None
        }
    }
}

/// The server that is running.
fn current<'a>() -> Option<&'a mut Server> {
    // SAFETY: it is set by `enter` to the server that called, which lives until that returns.
    unsafe { CURRENT.get().as_mut() }
}

fn server_of<'a>(ctx: *mut Ctx) -> Option<(&'a mut Ctx, &'a mut Server)> {
    let ctx = context(ctx)?;
    // SAFETY: the server called the module, and does nothing until that returns.
    let server = unsafe { &mut *ctx.server };
    CURRENT.set(server);
    Some((ctx, server))
}

/// # Safety
/// `name` is a C string.
unsafe fn word<'a>(name: *const c_char) -> &'a CStr {
    // SAFETY: as promised.
    unsafe { CStr::from_ptr(name) }
}

/// # Safety
/// `name` is a C string, or null.
unsafe fn word_or_none(name: *const c_char) -> Option<String> {
    // SAFETY: as promised.
    (!name.is_null()).then(|| unsafe { word(name) }.to_string_lossy().into_owned())
}

// Memory. The head of each piece has its size, and whether it is in use.

#[repr(C, align(16))]
struct Head {
    size: usize,
    state: u64,
}

const IN_USE: u64 = 0x6d65_6d6f_7279_2121;

fn count(size: usize, sign: i64) {
    if let Some(module) = current().and_then(|server| server.module.as_mut()) {
        module.memory += sign * size as i64;
    }
}

fn layout_of(size: usize) -> Option<Layout> {
    Layout::from_size_align(size.checked_add(size_of::<Head>())?, align_of::<Head>()).ok()
}

/// The head of a piece of the module's, and its layout.
fn head_of(place: *mut c_void) -> Option<(*mut Head, Layout)> {
    let head = place.cast::<Head>().wrapping_sub(1);
    // SAFETY: every piece has a head, which stays readable when it is freed, or is found by AddressSanitizer.
    let Head { size, state } = unsafe { &*head };
    if *state != IN_USE {
        problem("memory is freed that is not in use");
        return None;
    }
    Some((head, layout_of(*size)?))
}

fn allocate(size: usize, with: unsafe fn(Layout) -> *mut u8) -> *mut c_void {
    let Some(layout) = layout_of(size) else { return null_mut() };
    // SAFETY: the layout has the size of a head at least.
    let head: *mut Head = unsafe { with(layout) }.cast();
    if head.is_null() {
        return null_mut();
    }
    count(size, 1);
    // SAFETY: the head is the beginning of what was allocated.
    unsafe {
        head.write(Head { size, state: IN_USE });
        head.add(1).cast()
    }
}

unsafe extern "C" fn alloc(size: usize) -> *mut c_void {
    allocate(size, std::alloc::alloc)
}

unsafe extern "C" fn calloc(count_of: usize, size: usize) -> *mut c_void {
    count_of.checked_mul(size).map_or(null_mut(), |size| allocate(size, std::alloc::alloc_zeroed))
}

unsafe extern "C" fn realloc(place: *mut c_void, size: usize) -> *mut c_void {
    if place.is_null() {
        return allocate(size, std::alloc::alloc);
    }
    let (Some((head, old)), Some(new)) = (head_of(place), layout_of(size)) else { return null_mut() };
    // SAFETY: the piece was allocated with this layout, and is in use.
    unsafe {
        let before = (*head).size;
        let head: *mut Head = std::alloc::realloc(head.cast(), old, new.size()).cast();
        if head.is_null() {
            return null_mut();
        }
        count(before, -1);
        count(size, 1);
        (*head).size = size;
        head.add(1).cast()
    }
}

unsafe extern "C" fn free(place: *mut c_void) {
    if place.is_null() {
        return;
    }
    let Some((head, layout)) = head_of(place) else { return };
    // SAFETY: the piece was allocated with this layout, and is in use.
    unsafe {
        count((*head).size, -1);
        (*head).state = 0;
        std::alloc::dealloc(head.cast(), layout);
    }
}

// Loading.

unsafe extern "C" fn get_api(name: *const c_char, target: *mut *mut c_void) -> c_int {
    // SAFETY: the name is a C string.
    let name = unsafe { word(name) }.to_bytes();
    let Some(server) = current() else { return ERR };
    let is_missing = |lacks: &[String]| lacks.iter().any(|one| one.as_bytes() == name);
    let lacks = server.flavor.lacks.iter().any(|one| one.as_bytes() == name)
        || server.module.as_ref().is_some_and(|module| is_missing(&module.conditions.lacks));
    let found = if lacks { None } else { FUNCTIONS.iter().find(|(known, _)| known.as_bytes() == name) };
    // SAFETY: the target is the module's pointer to this function.
    unsafe { *target = found.map_or(null_mut(), |(_, function)| function.0.cast_mut()) };
    if found.is_some() { OK } else { ERR }
}

/// Whether this function is to fail while the module is loaded.
fn fails(server: &Server, name: &str) -> bool {
    server.module.as_ref().is_some_and(|module| module.conditions.fails.iter().any(|one| one == name))
}

/// # Safety
/// The same as for every function of the API: the pointers are what their names say.
unsafe extern "C" fn set_module_attribs(ctx: *mut Ctx, name: *const c_char, version: c_int, _: c_int) {
    if let Some(module) = server_of(ctx).and_then(|(_, server)| server.module.as_mut()) {
        // SAFETY: the name is a C string.
        module.name = unsafe { word(name) }.to_string_lossy().into_owned();
        module.version = version;
    }
}

unsafe extern "C" fn is_module_name_busy(_: *const c_char) -> c_int {
    0
}

unsafe extern "C" fn set_module_options(ctx: *mut Ctx, options: c_int) {
    if let Some(module) = server_of(ctx).and_then(|(_, server)| server.module.as_mut()) {
        module.options = options;
    }
}

unsafe extern "C" fn get_module_options_all() -> c_int {
    current().map_or(0, |server| {
        let known = server.module.as_ref().and_then(|module| module.conditions.options);
        known.unwrap_or(server.flavor.options)
    })
}

unsafe extern "C" fn create_command(
    ctx: *mut Ctx,
    name: *const c_char,
    func: Option<CommandFunc>,
    flags: *const c_char,
    first: c_int,
    last: c_int,
    step: c_int,
) -> c_int {
    let Some((ctx, server)) = server_of(ctx) else { return ERR };
    if ctx.kind != Kind::Load || fails(server, "CreateCommand") {
        return ERR;
    }
    let (Some(module), Some(func)) = (&mut server.module, func) else { return ERR };
    // SAFETY: both are C strings.
    let (name, flags) = unsafe { (word(name).to_owned(), word(flags).to_string_lossy().into_owned()) };
    module.commands.push(Box::new(Registered {
        name,
        func,
        writes: flags.split(' ').any(|flag| flag == "write"),
        denies_oom: flags.split(' ').any(|flag| flag == "deny-oom"),
        flags,
        keys: [first, last, step],
        arity: -1,
        info: String::new(),
        categories: None,
    }));
    OK
}

unsafe extern "C" fn get_command(ctx: *mut Ctx, name: *const c_char) -> *mut Registered {
    // SAFETY: the name is a C string.
    let name = unsafe { word(name) };
    let module = server_of(ctx).and_then(|(_, server)| server.module.as_mut());
    let command = module.and_then(|module| module.commands.iter_mut().find(|one| *one.name == *name));
    command.map_or(null_mut(), |command| &raw mut **command)
}

unsafe extern "C" fn set_command_info(command: *mut Registered, info: *const RedisModuleCommandInfo) -> c_int {
    // SAFETY: both are what they say, as the module promises; lists end with an empty element.
    unsafe {
        let (Some(command), Some(info)) = (command.as_mut(), info.as_ref()) else { return ERR };
        if current().is_some_and(|server| fails(server, "SetCommandInfo")) {
            return ERR;
        }
        let version = &*info.version;
        let sizes = [version.sizeof_historyentry, version.sizeof_keyspec, version.sizeof_arg];
        let expected = [
            size_of::<raw::RedisModuleCommandHistoryEntry>(),
            size_of::<raw::RedisModuleCommandKeySpec>(),
            size_of::<RedisModuleCommandArg>(),
        ];
        if version.version != 1 || sizes != expected {
            return ERR;
        }
        command.arity = info.arity;
        let texts = [info.summary, info.complexity, info.since, info.tips].map(|one| word_or_none(one));
        let mut lines = format!("  {texts:?}\n");
        let mut spec = info.key_specs;
        while !spec.is_null() && (*spec).begin_search_type != 0 {
            let one = &*spec;
            let (begin, find) = (one.begin_search_type, one.find_keys_type);
            let index = one.bs.index.pos;
            let found = match find {
                raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE => {
                    let range = one.fk.range;
                    format!("range {} {} {}", range.lastkey, range.keystep, range.limit)
                }
                _ => {
                    let keynum = one.fk.keynum;
                    format!("keynum {} {} {}", keynum.keynumidx, keynum.firstkey, keynum.keystep)
                }
            };
            lines += &format!("  key spec flags {:#x}, begin {begin} at {index}, find {find} {found}\n", one.flags);
            spec = spec.add(1);
        }
        describe_args(info.args, 1, &mut lines);
        command.info = lines;
    }
    OK
}

/// # Safety
/// The list ends with an element without a name, or is null.
unsafe fn describe_args(mut arg: *const RedisModuleCommandArg, depth: usize, lines: &mut String) {
    // SAFETY: as promised.
    unsafe {
        while !arg.is_null() && !(*arg).name.is_null() {
            let one = &*arg;
            let rest = [one.token, one.summary, one.since, one.deprecated_since, one.display_text];
            *lines += &format!(
                "{}{} type {} spec {} flags {:#x} {:?}\n",
                "  ".repeat(depth),
                word(one.name).to_string_lossy(),
                one.type_,
                one.key_spec_index,
                one.flags,
                rest.map(|one| word_or_none(one))
            );
            describe_args(one.subargs, depth + 1, lines);
            arg = arg.add(1);
        }
    }
}

unsafe extern "C" fn set_command_acl_categories(command: *mut Registered, categories: *const c_char) -> c_int {
    // SAFETY: both are what they say.
    let (command, categories) = unsafe { (command.as_mut(), word(categories)) };
    let Some(command) = command else { return ERR };
    if current().is_some_and(|server| fails(server, "SetCommandACLCategories")) {
        return ERR;
    }
    command.categories = Some(categories.to_string_lossy().into_owned());
    OK
}

unsafe extern "C" fn add_acl_category(ctx: *mut Ctx, name: *const c_char) -> c_int {
    let Some((_, server)) = server_of(ctx) else { return ERR };
    let fails = fails(server, "AddACLCategory");
    let Some(module) = &mut server.module else { return ERR };
    if module.conditions.has_category || fails {
        // SAFETY: errno is the thread's own.
        unsafe { *libc::__errno_location() = if fails { libc::EINVAL } else { libc::EBUSY } };
        return ERR;
    }
    // SAFETY: the name is a C string.
    module.category = Some(unsafe { word(name) }.to_string_lossy().into_owned());
    OK
}

#[allow(clippy::too_many_arguments, reason = "as the API has it")]
unsafe extern "C" fn register_numeric_config(
    ctx: *mut Ctx,
    name: *const c_char,
    default: c_longlong,
    flags: c_uint,
    min: c_longlong,
    max: c_longlong,
    get: Option<GetFunc>,
    set: Option<SetFunc>,
    apply: *const c_void,
    data: *mut c_void,
) -> c_int {
    let Some((_, server)) = server_of(ctx) else { return ERR };
    if fails(server, "RegisterNumericConfig") || !apply.is_null() || !data.is_null() {
        return ERR;
    }
    let (Some(module), Some(get), Some(set)) = (&mut server.module, get, set) else { return ERR };
    // SAFETY: the name is a C string.
    let name = unsafe { word(name) }.to_string_lossy().into_owned();
    module.settings.push(Setting { name, default, min, max, flags, get, set });
    OK
}

unsafe extern "C" fn load_configs(ctx: *mut Ctx) -> c_int {
    let Some((_, server)) = server_of(ctx) else { return ERR };
    if fails(server, "LoadConfigs") {
        return ERR;
    }
    let Some(module) = &server.module else { return ERR };
    let given = module.conditions.settings.clone();
    for Setting { name, default, .. } in module.settings.clone() {
        let value = given.iter().find(|(one, _)| *one == name).map_or(default, |one| one.1);
        if server.set_config(&name, value).is_err() {
            return ERR;
        }
    }
    OK
}

unsafe extern "C" fn subscribe_to_keyspace_events(
    ctx: *mut Ctx,
    classes: c_int,
    handler: Option<KeyEventFunc>,
) -> c_int {
    let Some((_, server)) = server_of(ctx) else { return ERR };
    if fails(server, "SubscribeToKeyspaceEvents") {
        return ERR;
    }
    let Some(module) = &mut server.module else { return ERR };
    module.key_events = handler.map(|handler| (classes, handler));
    OK
}

unsafe extern "C" fn subscribe_to_server_event(
    ctx: *mut Ctx,
    event: raw::RedisModuleEvent,
    handler: Option<ServerEventFunc>,
) -> c_int {
    let Some((_, server)) = server_of(ctx) else { return ERR };
    if fails(server, &format!("SubscribeToServerEvent {}", event.id)) || event.dataver != 1 {
        return ERR;
    }
    let (Some(module), Some(handler)) = (&mut server.module, handler) else { return ERR };
    module.server_events.push((event.id, handler));
    OK
}

/// What stands for the one filter.
const FILTER: usize = 0x0f17_7e40;

unsafe extern "C" fn register_command_filter(ctx: *mut Ctx, filter: Option<FilterFunc>, _: c_int) -> *mut c_void {
    let Some(module) = server_of(ctx).and_then(|(_, server)| server.module.as_mut()) else { return null_mut() };
    module.filter = filter;
    FILTER as *mut c_void
}

unsafe extern "C" fn unregister_command_filter(ctx: *mut Ctx, filter: *mut c_void) -> c_int {
    let Some(module) = server_of(ctx).and_then(|(_, server)| server.module.as_mut()) else { return ERR };
    if filter as usize != FILTER || module.filter.take().is_none() {
        problem("a filter is removed that is not there");
    }
    OK
}

unsafe extern "C" fn register_info_func(ctx: *mut Ctx, info: Option<InfoFunc>) -> c_int {
    let Some((_, server)) = server_of(ctx) else { return ERR };
    if fails(server, "RegisterInfoFunc") {
        return ERR;
    }
    let Some(module) = &mut server.module else { return ERR };
    module.info = info;
    OK
}

unsafe extern "C" fn info_add_section(fields: *mut Vec<(String, String)>, name: *const c_char) -> c_int {
    // SAFETY: the context of a section is the list that `info` passes.
    let (Some(fields), name) = (unsafe { fields.as_mut() }, unsafe { word_or_none(name) }) else { return ERR };
    fields.push(("section".into(), name.unwrap_or_default()));
    OK
}

unsafe extern "C" fn info_add_field_cstring(
    fields: *mut Vec<(String, String)>,
    name: *const c_char,
    value: *const c_char,
) -> c_int {
    // SAFETY: as above; both are C strings.
    let (Some(fields), name, value) = (unsafe { (fields.as_mut(), word_or_none(name), word_or_none(value)) }) else {
        return ERR;
    };
    fields.push((name.unwrap_or_default(), value.unwrap_or_default()));
    OK
}

unsafe extern "C" fn info_add_field_ulonglong(
    fields: *mut Vec<(String, String)>,
    name: *const c_char,
    value: c_ulonglong,
) -> c_int {
    // SAFETY: as above; the name is a C string.
    let (Some(fields), name) = (unsafe { (fields.as_mut(), word_or_none(name)) }) else { return ERR };
    fields.push((name.unwrap_or_default(), value.to_string()));
    OK
}

/// What a module may ask of `INFO server`.
struct ServerInfo(Option<std::ffi::CString>);

unsafe extern "C" fn get_server_info(ctx: *mut Ctx, _: *const c_char) -> *mut ServerInfo {
    let Some((ctx, server)) = server_of(ctx) else { return null_mut() };
    ctx.open_replies += 1;
    let said = server.module.as_ref().and_then(|module| module.conditions.valkey.clone());
    let version = said.unwrap_or_else(|| server.flavor.valkey.map(str::to_owned));
    Box::into_raw(Box::new(ServerInfo(version.and_then(|version| std::ffi::CString::new(version).ok()))))
}

unsafe extern "C" fn server_info_get_field(info: *const ServerInfo, name: *const c_char) -> *const c_char {
    // SAFETY: the module has it from `get_server_info`; the name is a C string.
    let (Some(info), name) = (unsafe { (info.as_ref(), word(name)) }) else { return null() };
    info.0.as_ref().filter(|_| name == c"valkey_version").map_or(null(), |version| version.as_ptr())
}

unsafe extern "C" fn free_server_info(ctx: *mut Ctx, info: *mut ServerInfo) {
    if let Some(ctx) = context(ctx) {
        ctx.open_replies -= 1;
    }
    // SAFETY: it came from a box; if it is freed twice, the count above tells.
    drop(unsafe { Box::from_raw(info) });
}

// Replies.

fn reply(ctx: *mut Ctx, mut reply: Reply) -> c_int {
    let Some(ctx) = context(ctx) else { return ERR };
    if ctx.kind != Kind::Command {
        problem("a reply outside of a command");
        return ERR;
    }
    loop {
        match ctx.arrays.last_mut() {
            None => break,
            Some((left, items)) => {
                items.push(reply);
                *left -= 1;
                if *left > 0 {
                    return OK;
                }
                reply = Reply::Array(std::mem::take(items));
                ctx.arrays.pop();
            }
        }
    }
    if ctx.reply.replace(reply).is_some() {
        problem("a second reply");
    }
    OK
}

unsafe extern "C" fn reply_with_error(ctx: *mut Ctx, message: *const c_char) -> c_int {
    // SAFETY: the message is a C string.
    reply(ctx, Reply::Error(unsafe { word(message) }.to_string_lossy().into_owned()))
}

unsafe extern "C" fn reply_with_simple_string(ctx: *mut Ctx, message: *const c_char) -> c_int {
    // SAFETY: the message is a C string.
    reply(ctx, Reply::Status(unsafe { word(message) }.to_string_lossy().into_owned()))
}

unsafe extern "C" fn reply_with_long_long(ctx: *mut Ctx, value: c_longlong) -> c_int {
    reply(ctx, Reply::Integer(value))
}

unsafe extern "C" fn reply_with_string_buffer(ctx: *mut Ctx, start: *const c_char, length: usize) -> c_int {
    // SAFETY: there are so many bytes.
    reply(ctx, Reply::Text(unsafe { bytes(start, length) }))
}

unsafe extern "C" fn reply_with_array(ctx: *mut Ctx, length: c_long) -> c_int {
    match (length, context(ctx)) {
        (0, _) => reply(ctx, Reply::Array(Vec::new())),
        (1.., Some(ctx)) => {
            ctx.arrays.push((length as usize, Vec::with_capacity(length as usize)));
            OK
        }
        _ => {
            problem("an array of unknown length");
            ERR
        }
    }
}

unsafe extern "C" fn is_keys_position_request(ctx: *mut Ctx) -> c_int {
    context(ctx).map_or(0, |ctx| c_int::from(ctx.asks_for_keys))
}

unsafe extern "C" fn key_at_pos_with_flags(ctx: *mut Ctx, position: c_int, flags: c_int) {
    match context(ctx) {
        Some(ctx) if ctx.asks_for_keys && position > 0 => ctx.positions.push((position, flags)),
        _ => problem("the position of a key that nobody asked for"),
    }
}

// Strings, time, and the rest.

/// # Safety
/// There are `length` bytes at `start`.
unsafe fn bytes(start: *const c_char, length: usize) -> Text {
    // SAFETY: as promised; an empty string may be anywhere.
    text(if length == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(start.cast(), length) } })
}

unsafe extern "C" fn create_string(_: *mut Ctx, start: *const c_char, length: usize) -> *mut Str {
    // SAFETY: there are so many bytes.
    strings::give(unsafe { bytes(start, length) })
}

unsafe extern "C" fn free_string(_: *mut Ctx, string: *mut Str) {
    strings::free_by_module(string);
}

unsafe extern "C" fn retain_string(_: *mut Ctx, string: *mut Str) {
    strings::retain(string);
}

unsafe extern "C" fn get_server_version() -> c_int {
    current().map_or(0, |server| server.flavor.version)
}

/// The crate asks for one while the module is loaded; the module does not use it.
unsafe extern "C" fn get_detached_thread_safe_context(_: *mut Ctx) -> *mut c_void {
    null_mut()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn simulated_string_place(string: *const Str, length: *mut usize) -> *const c_char {
    let (place, bytes) = strings::place_of(string);
    // SAFETY: the length is a pointer, or null.
    if let Some(length) = unsafe { length.as_mut() } {
        *length = bytes;
    }
    place.cast()
}

unsafe extern "C" fn milliseconds() -> c_longlong {
    current().map_or(0, |server| server.clock(true))
}

unsafe extern "C" fn cached_microseconds() -> c_longlong {
    current().map_or(0, |server| server.clock(false) * 1_000 + 999)
}

unsafe extern "C" fn get_selected_db(ctx: *mut Ctx) -> c_int {
    context(ctx).map_or(0, |ctx| ctx.database as c_int)
}

unsafe extern "C" fn get_context_flags(ctx: *mut Ctx) -> c_int {
    let Some((_, server)) = server_of(ctx) else { return 0 };
    let role = match server.role {
        Role::Replica => raw::REDISMODULE_CTX_FLAGS_SLAVE,
        Role::Primary => raw::REDISMODULE_CTX_FLAGS_MASTER,
    };
    let denied = match server.open.last() {
        Some(frame) if frame.may_block => 0,
        _ => raw::REDISMODULE_CTX_FLAGS_DENY_BLOCKING,
    };
    let memory = if server.is_out_of_memory { raw::REDISMODULE_CTX_FLAGS_OOM } else { 0 };
    (role | denied | memory) as c_int
}

unsafe extern "C" fn avoid_replica_traffic() -> c_int {
    current().map_or(0, |server| c_int::from(server.is_paused))
}

unsafe extern "C" fn select_db(ctx: *mut Ctx, database: c_int) -> c_int {
    match context(ctx) {
        Some(ctx) if ctx.kind == Kind::Event && (0..crate::server::DATABASES as c_int).contains(&database) => {
            ctx.database = database as usize;
            OK
        }
        _ => {
            problem("a database is selected for a client, or one that there is not");
            ERR
        }
    }
}

// Clients that wait, and timers.

#[allow(clippy::too_many_arguments, reason = "as the API has it")]
unsafe extern "C" fn block_client_on_keys(
    ctx: *mut Ctx,
    on_ready: Option<CommandFunc>,
    on_end: Option<CommandFunc>,
    free_data: *const c_void,
    timeout: c_longlong,
    keys: *mut *mut Str,
    count: c_int,
    data: *mut c_void,
) -> *mut c_void {
    let Some((ctx, server)) = server_of(ctx) else { return null_mut() };
    let (Some(on_ready), Some(on_end)) = (on_ready, on_end) else { return null_mut() };
    if !server.open.last().is_some_and(|frame| frame.may_block) || ctx.blocks.is_some() || ctx.reply.is_some() {
        problem("a client is blocked that may not be");
        return null_mut();
    }
    if count != 1 || timeout <= 0 || !free_data.is_null() || ctx.open_keys > 0 {
        problem("a client is blocked on several keys, for ever, or while a key is open");
    }
    // SAFETY: there is one key.
    let Some(place) = strings::text_of(unsafe { *keys }) else { return null_mut() };
    let number = server.waiting.number();
    let (database, now) = (ctx.database, server.now);
    let Some(frame) = server.open.last_mut() else { return null_mut() };
    if place == frame.argv[1] && !place.is_empty() && !place.contains(&b'}') {
        problem("a client is blocked on a key that others write");
    }
    frame.part = Part::Joins(number);
    let argv = frame.argv.clone();
    ctx.blocks = Some(number);
    server.waiting.blocked.push(Blocked {
        number,
        database,
        argv,
        place,
        strings: Vec::new(),
        on_ready,
        on_end,
        on_left: None,
        data,
        until: now.saturating_add(timeout),
        is_answered: false,
    });
    number as usize as *mut c_void
}

/// A client that waits.
fn blocked<'a>(client: *mut c_void) -> Option<(&'a mut Server, usize)> {
    let server = current()?;
    let at = server.waiting.blocked.iter().position(|one| one.number == client as usize as u64);
    if at.is_none() {
        problem("the handle of a client is used that waits no longer");
    }
    Some((server, at?))
}

unsafe extern "C" fn set_disconnect_callback(client: *mut c_void, on_left: Option<LeftFunc>) {
    if let Some((server, at)) = blocked(client) {
        server.waiting.blocked[at].on_left = on_left;
    }
}

unsafe extern "C" fn unblock_client(client: *mut c_void, _: *mut c_void) -> c_int {
    let Some((server, at)) = blocked(client) else { return ERR };
    if std::mem::replace(&mut server.waiting.blocked[at].is_answered, true) {
        problem("a client is unblocked twice");
    }
    server.has_happened(client as usize as u64, What::Answered);
    if !server.flavor.answers_late {
        server.reply_to(at);
        CURRENT.set(server);
    }
    OK
}

unsafe extern "C" fn get_blocked_client_private_data(ctx: *mut Ctx) -> *mut c_void {
    context(ctx).map_or(null_mut(), |ctx| ctx.data)
}

unsafe extern "C" fn create_timer(
    ctx: *mut Ctx,
    period: raw::mstime_t,
    func: Option<TimerFunc>,
    data: *mut c_void,
) -> u64 {
    let (Some((ctx, server)), Some(func)) = (server_of(ctx), func) else { return 0 };
    if period < 1 {
        problem("a timer comes again in the same step");
    }
    let number = server.waiting.number();
    let at = server.now.saturating_add(period.max(1));
    server.waiting.timers.push(Timer { number, at, database: ctx.database, func, data });
    if server.waiting.timers.len() > 1 {
        problem("there is more than one timer");
    }
    number
}

unsafe extern "C" fn stop_timer(ctx: *mut Ctx, timer: u64, _: *mut *mut c_void) -> c_int {
    let Some((_, server)) = server_of(ctx) else { return ERR };
    let Some(at) = server.waiting.timers.iter().position(|one| one.number == timer) else {
        problem("a timer is stopped that has come");
        return ERR;
    };
    server.waiting.timers.remove(at);
    OK
}

/// Who has the rights of the default user keeps them.
unsafe extern "C" fn get_current_user_name(ctx: *mut Ctx) -> *mut Str {
    let even = server_of(ctx).is_some_and(|(_, server)| server.waiting.numbers % 2 == 0);
    strings::give(text(if even { "default" } else { "worker" }))
}

struct User {
    may_call: bool,
}

unsafe extern "C" fn get_module_user_from_user_name(name: *mut Str) -> *mut User {
    let (Some(name), Some(server)) = (strings::text_of(name), current()) else { return null_mut() };
    Box::into_raw(Box::new(User { may_call: *name == b"default"[..] || !server.is_denied }))
}

unsafe extern "C" fn acl_check_command_permissions(user: *const User, args: *mut *mut Str, count: c_int) -> c_int {
    // SAFETY: the module has the user from the function above, and as many strings as it says.
    let (user, args) = unsafe { (user.as_ref(), std::slice::from_raw_parts(args, count as usize)) };
    let is_whole = args.iter().all(|one| strings::text_of(*one).is_some());
    if is_whole && user.is_some_and(|user| user.may_call) { OK } else { ERR }
}

unsafe extern "C" fn free_module_user(user: *mut User) {
    // SAFETY: it came from a box, and AddressSanitizer finds whoever frees it twice.
    drop(unsafe { Box::from_raw(user) });
}

unsafe extern "C" fn get_notify_keyspace_events() -> c_int {
    current().map_or(0, |server| server.notify_flags)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn simulated_log(level: *const c_char, line: *const c_char) {
    // SAFETY: both are C strings.
    let line = unsafe { format!("{}: {}", word(level).to_string_lossy(), word(line).to_string_lossy()) };
    if let Some(module) = current().and_then(|server| server.module.as_mut()) {
        module.log.push(line);
    }
}

// Keys.

const ALIVE: u32 = 0x006b_6579;

/// An open key.
struct Key {
    state: u32,
    ctx: *mut Ctx,
    name: Text,
    writes: bool,
    /// Of the value that it is about; 0 for none.
    birth: u64,
    /// Where the key is in its database, if it is there.
    place: Option<usize>,
    iterator: Option<Iterator>,
}

#[derive(Clone, Copy)]
struct Iterator {
    backwards: bool,
    next: Option<Place>,
    at: Option<Place>,
    field: usize,
    /// Fields of the entry that are still to be read.
    left: usize,
}

fn key_of<'a>(key: *mut Key) -> Option<(&'a mut Key, &'a mut Ctx, &'a mut Server)> {
    // SAFETY: keys keep their memory, so one that was closed is found here.
    let key = match unsafe { key.as_mut() } {
        Some(key) if key.state == ALIVE => key,
        Some(_) => {
            problem("a key is used after it was closed");
            return None;
        }
        None => return None,
    };
    let (ctx, server) = server_of(key.ctx)?;
    let database = &server.databases[ctx.database];
    if key.place.is_none_or(|place| !database.is_at(place, &key.name)) {
        key.place = database.find(&key.name);
    }
    let birth = key.place.map_or(0, |place| database.at(place).1.birth);
    // One that was opened for reading and has expired reads as nothing.
    if birth != key.birth && key.birth != 0 {
        problem("a key is used although somebody else has deleted it");
        return None;
    }
    Some((key, ctx, server))
}

fn stream<'a>(server: &'a Server, database: usize, name: &[u8]) -> Option<&'a Stream> {
    match server.entry(database, name) {
        Some(Entry { value: Value::Stream(stream), .. }) => Some(stream),
        _ => None,
    }
}

/// What is at an open key, right after `key_of`.
fn value<'a>(key: &Key, ctx: &Ctx, server: &'a Server) -> Option<&'a Entry> {
    let place = key.place.filter(|_| key.birth != 0)?;
    Some(server.databases[ctx.database].at(place).1)
}

fn stream_at<'a>(key: &Key, ctx: &Ctx, server: &'a Server) -> Option<&'a Stream> {
    match value(key, ctx, server) {
        Some(Entry { value: Value::Stream(stream), .. }) => Some(stream),
        _ => None,
    }
}

/// A change must come before the call's first event, and not while an iterator is running.
fn may_write(key: &Key, server: &Server) -> bool {
    if !key.writes {
        problem("a key is written that was opened for reading");
        return false;
    }
    if key.iterator.is_some() {
        problem("a key is written while an iterator is running");
        return false;
    }
    if server.open.last().is_some_and(|frame| !frame.events.is_empty()) {
        problem("a key is written after the first event");
    }
    true
}

unsafe extern "C" fn open_key(ctx: *mut Ctx, name: *mut Str, mode: c_int) -> *mut Key {
    let (Some((ctx, server)), Some(name)) = (server_of(ctx), strings::text_of(name)) else { return null_mut() };
    let writes = mode & raw::REDISMODULE_WRITE as c_int != 0;
    if server.open.last().is_some_and(|frame| !frame.events.is_empty()) {
        problem("a key is opened after the first event");
    }
    if writes && server.open.last().is_some_and(|frame| !frame.may_write) {
        problem("a command that only reads opens a key for writing");
    }
    let exists = server.exists(ctx.database, &name);
    CURRENT.set(server);
    if !exists && !writes {
        return null_mut();
    }
    let place = server.databases[ctx.database].find(&name);
    let (name, birth) = match place.filter(|_| exists).map(|place| server.databases[ctx.database].at(place)) {
        Some((name, entry)) => (name.clone(), entry.birth),
        None => (name, 0),
    };
    ctx.open_keys += 1;
    let fresh = Key { state: ALIVE, ctx, name, writes, birth, place, iterator: None };
    match old::<Key>(KEYS) {
        Some(place) => {
            // SAFETY: it came from a box, and nobody else uses it.
            unsafe { *place = fresh };
            place
        }
        None => Box::into_raw(Box::new(fresh)),
    }
}

unsafe extern "C" fn close_key(key: *mut Key) {
    if key.is_null() {
        return;
    }
    // SAFETY: as in `key_of`; whoever deleted the value, the key must be closed.
    let one = unsafe { &mut *key };
    if one.state != ALIVE {
        problem("a key is closed twice");
        return;
    }
    if one.iterator.is_some() {
        problem("a key is closed while an iterator is running");
    }
    if let Some(ctx) = context(one.ctx) {
        ctx.open_keys -= 1;
        // SAFETY: as in `server_of`.
        let server = unsafe { &mut *ctx.server };
        let options = server.module.as_ref().map_or(0, |module| module.options);
        if one.writes && options & raw::REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED as c_int == 0 {
            if let Some(frame) = server.open.last_mut() {
                frame.signalled.push(one.name.clone());
            }
        }
    }
    one.state = 0;
    keep(KEYS, key);
}

unsafe extern "C" fn key_type(key: *mut Key) -> c_int {
    let Some((key, ctx, server)) = key_of(key) else { return 0 };
    match value(key, ctx, server).map(|entry| &entry.value) {
        None => raw::REDISMODULE_KEYTYPE_EMPTY as c_int,
        Some(Value::Stream(_)) => raw::REDISMODULE_KEYTYPE_STREAM as c_int,
        Some(Value::Other(kind)) => match &kind[..1] {
            b"s" => raw::REDISMODULE_KEYTYPE_STRING as c_int,
            b"l" => raw::REDISMODULE_KEYTYPE_LIST as c_int,
            // One that is newer than the crate.
            _ => 99,
        },
    }
}

unsafe extern "C" fn value_length(key: *mut Key) -> usize {
    let Some((key, ctx, server)) = key_of(key) else { return 0 };
    match value(key, ctx, server).map(|entry| &entry.value) {
        Some(Value::Stream(stream)) => stream.len() as usize,
        Some(Value::Other(_)) => 1,
        None => 0,
    }
}

unsafe extern "C" fn unlink_key(key: *mut Key) -> c_int {
    let Some((key, ctx, server)) = key_of(key) else { return ERR };
    if !may_write(key, server) {
        return ERR;
    }
    if key.birth != 0 {
        server.remove(ctx.database, &key.name);
        key.birth = 0;
    }
    OK
}

unsafe extern "C" fn get_abs_expire(key: *mut Key) -> c_longlong {
    let Some((key, ctx, server)) = key_of(key) else { return -1 };
    if key.birth == 0 {
        problem("the expiry of a key that does not exist");
        return -1;
    }
    value(key, ctx, server).and_then(|entry| entry.expires).unwrap_or(-1)
}

unsafe extern "C" fn set_abs_expire(key: *mut Key, at: c_longlong) -> c_int {
    let Some((key, ctx, server)) = key_of(key) else { return ERR };
    if !may_write(key, server) || key.birth == 0 || (at < 0 && at != -1) {
        problem("an expiry is set that cannot be");
        return ERR;
    }
    server.touch(ctx.database, &key.name);
    if let Some(entry) = server.databases[ctx.database].get_mut(&key.name) {
        entry.expires = (at >= 0).then_some(at);
    }
    OK
}

fn fails_now(server: &mut Server, failure: Failure) -> bool {
    let fails = server.failure == Some(failure);
    if fails {
        server.failure = None;
        if let Some(frame) = server.open.last_mut() {
            frame.has_failed = true;
        }
    }
    fails
}

unsafe extern "C" fn stream_add(
    key: *mut Key,
    flags: c_int,
    id: *const RedisModuleStreamID,
    argv: *const *mut Str,
    fields: c_long,
) -> c_int {
    let Some((key, ctx, server)) = key_of(key) else { return ERR };
    // SAFETY: the ID is a pointer to one.
    let Some(id) = (unsafe { id.as_ref() }).map(id_of) else { return ERR };
    if !may_write(key, server) || flags != 0 || fields < 1 || id == Id::default() {
        return ERR;
    }
    // SAFETY: there are two strings for each field.
    let texts = unsafe { std::slice::from_raw_parts(argv, fields as usize * 2) };
    let Some(texts) = texts.iter().map(|one| strings::text_of(*one)).collect::<Option<Vec<Text>>>() else {
        return ERR;
    };
    if fails_now(server, Failure::StreamAdd) {
        return ERR;
    }
    let fields = crate::server::fields(&texts);
    let (database, name) = (ctx.database, key.name.clone());
    if key.birth == 0 {
        // Others hear of a new key at once.
        if ctx.open_keys != 1 {
            problem("a key is created while others are open");
        }
        if server.entry(database, &name).is_some() {
            problem("a key is created that exists already");
            return ERR;
        }
        let empty = server.empty_stream();
        server.put(database, &name, empty, None);
        key.birth = server.entry(database, &name).map_or(0, |entry| entry.birth);
        server.born.push(name.clone());
        server.notify(database, NEW, c"new", &name);
        server.born.pop();
        CURRENT.set(server);
        if server.entry(database, &name).map(|entry| entry.birth) != Some(key.birth) {
            problem("the key that is created is gone");
            return ERR;
        }
    }
    let bounds = server.bounds;
    server.touch(database, &name);
    let Some(Entry { value: Value::Stream(stream), .. }) = server.databases[database].get_mut(&name) else {
        return ERR;
    };
    if stream.append(id, fields, bounds) {
        return OK;
    }
    // One that was created for nothing goes again.
    if stream.entries_added() == 0 && stream.last_id() == Id::default() && stream.is_empty() {
        server.databases[database].remove(&name);
        key.birth = 0;
    }
    ERR
}

fn id_of(id: &RedisModuleStreamID) -> Id {
    Id { ms: id.ms, seq: id.seq }
}

fn trim(key: *mut Key, flags: c_int, trim: impl FnOnce(&mut Stream, bool, u64) -> u64) -> c_longlong {
    let Some((key, ctx, server)) = key_of(key) else { return -1 };
    let approximately = flags == raw::REDISMODULE_STREAM_TRIM_APPROX as c_int;
    if !may_write(key, server) || !approximately && flags != 0 {
        return -1;
    }
    let limit = if approximately { server.bounds.limit_of_module() } else { 0 };
    server.touch(ctx.database, &key.name);
    match server.databases[ctx.database].get_mut(&key.name) {
        Some(Entry { value: Value::Stream(stream), .. }) if key.birth != 0 => {
            trim(stream, approximately, limit) as c_longlong
        }
        _ => -1,
    }
}

unsafe extern "C" fn stream_trim_by_id(key: *mut Key, flags: c_int, id: *const RedisModuleStreamID) -> c_longlong {
    // SAFETY: the ID is a pointer to one.
    let Some(id) = (unsafe { id.as_ref() }).map(id_of) else { return -1 };
    trim(key, flags, |stream, approximately, limit| stream.trim_min_id(id, approximately, limit))
}

unsafe extern "C" fn stream_trim_by_length(key: *mut Key, flags: c_int, length: c_longlong) -> c_longlong {
    let Ok(length) = u64::try_from(length) else { return -1 };
    trim(key, flags, |stream, approximately, limit| stream.trim_length(length, approximately, limit))
}

unsafe extern "C" fn stream_iterator_start(
    key: *mut Key,
    flags: c_int,
    start: *const RedisModuleStreamID,
    end: *const RedisModuleStreamID,
) -> c_int {
    let Some((key, ctx, server)) = key_of(key) else { return ERR };
    let backwards = flags == raw::REDISMODULE_STREAM_ITERATOR_REVERSE as c_int;
    if key.iterator.is_some() || key.birth == 0 || !end.is_null() {
        problem("an iterator that cannot be started");
        return ERR;
    }
    let Some(stream) = stream_at(key, ctx, server) else { return ERR };
    // SAFETY: the ID is a pointer to one, or null.
    let start = unsafe { start.as_ref() }.map(id_of);
    let next = match (backwards, start) {
        (true, None) => stream.last(),
        (false, start) => stream.first_at_or_after(start.unwrap_or_default()),
        (true, Some(_)) => {
            problem("an iterator of a kind that is not simulated");
            return ERR;
        }
    };
    key.iterator = Some(Iterator { backwards, next, at: None, field: 0, left: 0 });
    OK
}

unsafe extern "C" fn stream_iterator_stop(key: *mut Key) -> c_int {
    // SAFETY: as in `key_of`; an iterator may be stopped whatever became of the value.
    match unsafe { key.as_mut() }.filter(|key| key.state == ALIVE).and_then(|key| key.iterator.take()) {
        Some(_) => OK,
        None => {
            problem("an iterator is stopped that does not run");
            ERR
        }
    }
}

unsafe extern "C" fn stream_iterator_next_id(
    key: *mut Key,
    id: *mut RedisModuleStreamID,
    fields: *mut c_long,
) -> c_int {
    let Some((key, ctx, server)) = key_of(key) else { return ERR };
    let (Some(stream), Some(iterator)) = (stream_at(key, ctx, server), &mut key.iterator) else {
        problem("an iterator is used that does not run");
        return ERR;
    };
    if iterator.left > 0 {
        problem("an iterator moves on before all fields are read");
        return ERR;
    }
    let Some(at) = iterator.next else { return ERR };
    let row = stream.at(at);
    iterator.at = Some(at);
    iterator.field = 0;
    iterator.left = row.fields.len();
    iterator.next = if iterator.backwards { stream.before(at) } else { stream.after(at) };
    // SAFETY: both are pointers to what their names say, or null.
    unsafe {
        if let Some(id) = id.as_mut() {
            (id.ms, id.seq) = (row.id.ms, row.id.seq);
        }
        if let Some(fields) = fields.as_mut() {
            *fields = row.fields.len() as c_long;
        }
    }
    OK
}

unsafe extern "C" fn stream_iterator_next_field(key: *mut Key, field: *mut *mut Str, value: *mut *mut Str) -> c_int {
    let Some((key, ctx, server)) = key_of(key) else { return ERR };
    let (Some(stream), Some(iterator)) = (stream_at(key, ctx, server), &mut key.iterator) else {
        problem("an iterator is used that does not run");
        return ERR;
    };
    let (Some(at), true) = (iterator.at, iterator.left > 0) else { return ERR };
    let fields = stream.at(at).fields;
    let at = 2 * iterator.field;
    iterator.field += 1;
    iterator.left -= 1;
    // SAFETY: both are pointers to pointers, or null.
    unsafe {
        if let Some(field) = field.as_mut() {
            *field = strings::give(fields.texts()[at].clone());
        }
        if let Some(value) = value.as_mut() {
            *value = strings::give(fields.texts()[at + 1].clone());
        }
    }
    OK
}

// What others are told.

/// As in variadic.c.
#[repr(C)]
struct Argument {
    start: *const c_char,
    length: usize,
    string: *mut Str,
}

/// # Safety
/// There are `count` arguments at `args`.
unsafe fn arguments(args: *const Argument, count: usize) -> Vec<Text> {
    // SAFETY: as promised; an argument is a string, or so many bytes.
    unsafe {
        let args = if count == 0 { &[][..] } else { std::slice::from_raw_parts(args, count) };
        let one = |arg: &Argument| match arg.string.is_null() {
            true if arg.length <= 9 => Some(known_word(if arg.length == 0 {
                &[]
            } else {
                std::slice::from_raw_parts(arg.start.cast(), arg.length)
            })),
            true => Some(bytes(arg.start, arg.length)),
            false => strings::text_of(arg.string),
        };
        args.iter().filter_map(one).collect()
    }
}

thread_local! {
    static WORDS: std::cell::RefCell<Vec<Text>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A word that comes again and again.
fn known_word(word: &[u8]) -> Text {
    WORDS.with_borrow_mut(|words| {
        if let Some(known) = words.iter().find(|known| ***known == *word) {
            return known.clone();
        }
        let word = text(word);
        if words.len() < 8 {
            words.push(word.clone());
        }
        word
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn simulated_replicate(
    ctx: *mut Ctx,
    command: *const c_char,
    args: *const Argument,
    count: usize,
    flags: *const c_char,
) -> c_int {
    let Some((ctx, server)) = server_of(ctx) else { return ERR };
    // SAFETY: as the C side promises.
    let (command, args, flags) = unsafe { (word(command), arguments(args, count), word(flags)) };
    if !flags.is_empty() {
        problem(format!("flags {flags:?} in what is replicated"));
    }
    if server.open.last().is_some_and(|frame| !frame.events.is_empty()) {
        problem("something is replicated after the first event");
    }
    let argv: Rc<[Text]> = std::iter::once(known_word(command.to_bytes())).chain(args).collect();
    if let Some(frame) = server.open.last_mut() {
        frame.effects.push(Effect { database: ctx.database, argv: Rc::clone(&argv) });
    }
    server.tell(ctx.database, argv);
    OK
}

unsafe extern "C" fn signal_modified_key(ctx: *mut Ctx, name: *mut Str) -> c_int {
    let (Some((_, server)), Some(name)) = (server_of(ctx), strings::text_of(name)) else { return ERR };
    if let Some(frame) = server.open.last_mut() {
        frame.signalled.push(name);
    }
    OK
}

unsafe extern "C" fn notify_keyspace_event(ctx: *mut Ctx, class: c_int, name: *const c_char, key: *mut Str) -> c_int {
    let (Some((ctx, server)), Some(key)) = (server_of(ctx), strings::text_of(key)) else { return ERR };
    // SAFETY: the name is a C string.
    let name = unsafe { word(name) };
    if ctx.open_keys != 0 {
        problem("an event is sent while a key is open");
    }
    if let Some(mut frame) = server.open.pop() {
        frame.look_after(server);
        frame.sent(name, &key);
        server.open.push(frame);
    }
    server.notify_as(true, ctx.database, class, name, &key);
    CURRENT.set(server);
    OK
}

// Calls of commands by the module.

const CALL_REPLY: u64 = 0x7265_706c_7921;

struct CallReply {
    state: u64,
    ctx: *mut Ctx,
    reply: Reply,
    items: Vec<CallReply>,
    is_root: bool,
}

impl CallReply {
    fn of(reply: Reply, ctx: *mut Ctx, is_root: bool) -> Self {
        let items = match &reply {
            Reply::Array(items) => items.iter().map(|item| Self::of(item.clone(), ctx, false)).collect(),
            _ => Vec::new(),
        };
        Self { state: CALL_REPLY, ctx, reply, items, is_root }
    }
}

fn call_reply<'a>(reply: *mut CallReply) -> Option<&'a mut CallReply> {
    // SAFETY: a reply that was freed is found by its state, or by AddressSanitizer.
    unsafe { reply.as_mut() }.filter(|reply| {
        if reply.state != CALL_REPLY {
            problem("the reply of a call is used after it was freed");
        }
        reply.state == CALL_REPLY
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn simulated_call(
    ctx: *mut Ctx,
    command: *const c_char,
    args: *const Argument,
    count: usize,
    flags: *const c_char,
) -> *mut CallReply {
    let place = ctx;
    let Some((ctx, server)) = server_of(ctx) else { return null_mut() };
    // SAFETY: as the C side promises.
    let (command, args, flags) = unsafe { (word(command), arguments(args, count), word(flags)) };
    let reply = match command.to_bytes() {
        b"COMMAND" => {
            let renamed = server.module.as_ref().map(|module| module.conditions.renamed.clone()).unwrap_or_default();
            let row = |name: &Text| match renamed.iter().any(|one| one.as_bytes() == &**name) {
                true => Reply::Nil,
                false => Reply::Array(vec![Reply::Text(name.clone())]),
            };
            if renamed.iter().any(|one| one == "COMMAND") || args.first().is_none_or(|one| **one != b"INFO"[..]) {
                return null_mut();
            }
            Reply::Array(args.iter().skip(1).map(row).collect())
        }
        b"CONFIG" => {
            let known = server.module.as_ref().and_then(|module| module.conditions.node_bytes.clone());
            let value = known.unwrap_or_else(|| server.bounds.bytes.to_string());
            Reply::Array(vec![Reply::Text(text("stream-node-max-bytes")), Reply::Text(text(value))])
        }
        // The crate asks for it while the module is loaded.
        b"info" if ctx.kind == Kind::Load => {
            let version = server.flavor.version;
            let [_, major, minor, patch] = version.to_be_bytes();
            Reply::Text(text(format!("# Server\r\nredis_version:{major}.{minor}.{patch}\r\n")))
        }
        b"XINFO" if fails_now(server, Failure::Xinfo) => return null_mut(),
        b"XINFO" => {
            let Some(stream) = args.get(1).and_then(|name| stream(server, ctx.database, name)) else {
                problem("XINFO of no stream");
                return null_mut();
            };
            let (length, last) = (stream.len() as i64, stream.last_id());
            let name = |name: &str| Reply::Text(text(name));
            Reply::Array(vec![
                name("length"),
                Reply::Integer(length),
                name("radix-tree-keys"),
                Reply::Integer(stream.node_count() as i64),
                name("last-generated-id"),
                Reply::Text(crate::server::id_text(last)),
                name("groups"),
                Reply::Integer(0),
            ])
        }
        b"RESTORE" if fails_now(server, Failure::RestoreIsRenamed) => return null_mut(),
        b"RESTORE" if fails_now(server, Failure::Restore) => Reply::error("ERR not now"),
        b"RESTORE" => {
            if flags != c"!" {
                problem(format!("flags {flags:?} in a call that writes"));
            }
            if ctx.open_keys > 1 {
                problem("a key is created while others are open");
            }
            let argv: Rc<[Text]> = std::iter::once(known_word(b"RESTORE")).chain(args).collect();
            restore(server, ctx.database, &argv)
        }
        b"XDEL" => {
            if flags != c"!" || ctx.open_keys > 0 {
                problem(format!("flags {flags:?} in a call that writes, and {} open keys", ctx.open_keys));
            }
            let argv: Rc<[Text]> = std::iter::once(known_word(b"XDEL")).chain(args).collect();
            delete(server, ctx.database, &argv)
        }
        b"RATELIMIT.HIT" => {
            if flags != c"!SE" && flags != c"!SME" || ctx.open_keys > 0 {
                problem(format!("flags {flags:?} in the call of a hit, and {} open keys", ctx.open_keys));
            }
            if server.is_paused {
                problem("a hit is called while writes are paused");
            }
            let argv: Vec<Text> = std::iter::once(known_word(b"RATELIMIT.HIT")).chain(args).collect();
            if let Some(frame) = server.open.last_mut() {
                frame.has_called = true;
            }
            server.part = Part::Called;
            let reply = server.run(ctx.database, &argv);
            CURRENT.set(server);
            reply
        }
        other => {
            problem(format!("the module calls {}", String::from_utf8_lossy(other)));
            return null_mut();
        }
    };
    ctx.open_replies += 1;
    Box::into_raw(Box::new(CallReply::of(reply, place, true)))
}

/// RESTORE as the module calls it. Others hear of it at once, and may act.
fn restore(server: &mut Server, database: usize, argv: &Rc<[Text]>) -> Reply {
    let before = server.known(database, &argv[1]);
    let reply = server.restore_entry(database, argv).unwrap_or_else(|error| error);
    if matches!(&reply, Reply::Error(error) if error.contains("payload")) {
        problem("a payload that no server reads");
    }
    // Whose time is over before it begins is not created.
    if reply == Reply::ok() && before != server.known(database, &argv[1]) {
        if let Some(mut frame) = server.open.pop() {
            frame.effects.push(Effect { database, argv: Rc::clone(argv) });
            frame.signalled.push(argv[1].clone());
            // All that is done is known, unless there are other keys.
            if frame.keys().len() == 1 {
                frame.look_after(server);
            }
            server.open.push(frame);
        }
        server.notify(database, GENERIC, c"restore", &argv[1]);
    }
    CURRENT.set(server);
    reply
}

/// XDEL as the module calls it.
fn delete(server: &mut Server, database: usize, argv: &Rc<[Text]>) -> Reply {
    server.touch(database, &argv[1]);
    let deleted = match server.databases[database].get_mut(&argv[1]) {
        Some(Entry { value: Value::Stream(stream), .. }) => {
            argv[2..].iter().filter_map(|id| Id::parse(id)).filter(|id| stream.delete(*id)).count()
        }
        _ => 0,
    };
    if deleted != argv.len() - 2 {
        problem(format!("{deleted} of {} entries were there to be deleted", argv.len() - 2));
    }
    if let Some(mut frame) = server.open.pop() {
        frame.effects.push(Effect { database, argv: Rc::clone(argv) });
        frame.signalled.push(argv[1].clone());
        frame.look_after(server);
        server.open.push(frame);
    }
    server.tell(database, Rc::clone(argv));
    server.notify(database, STREAM, c"xdel", &argv[1]);
    CURRENT.set(server);
    Reply::Integer(deleted as i64)
}

unsafe extern "C" fn call_reply_type(reply: *mut CallReply) -> c_int {
    match call_reply(reply).map(|reply| &reply.reply) {
        None => -1,
        Some(Reply::Text(_) | Reply::Status(_)) => 0,
        Some(Reply::Error(_)) => 1,
        Some(Reply::Integer(_)) => 2,
        Some(Reply::Array(_)) => 3,
        Some(Reply::Nil) => 4,
    }
}

unsafe extern "C" fn call_reply_integer(reply: *mut CallReply) -> c_longlong {
    match call_reply(reply).map(|reply| &reply.reply) {
        Some(Reply::Integer(value)) => *value,
        _ => i64::MIN,
    }
}

unsafe extern "C" fn call_reply_length(reply: *mut CallReply) -> usize {
    match call_reply(reply).map(|reply| &reply.reply) {
        Some(Reply::Array(items)) => items.len(),
        Some(Reply::Text(text)) => text.len(),
        _ => 0,
    }
}

unsafe extern "C" fn call_reply_array_element(reply: *mut CallReply, at: usize) -> *mut CallReply {
    let item = call_reply(reply).and_then(|reply| reply.items.get_mut(at));
    item.map_or(null_mut(), |item| &raw mut *item)
}

unsafe extern "C" fn call_reply_string_ptr(reply: *mut CallReply, length: *mut usize) -> *const c_char {
    match call_reply(reply).map(|reply| &reply.reply) {
        Some(Reply::Text(text)) => {
            // SAFETY: the length is a pointer.
            unsafe { *length = text.len() };
            text.as_ptr().cast()
        }
        Some(Reply::Error(text)) => {
            // SAFETY: the length is a pointer.
            unsafe { *length = text.len() };
            text.as_ptr().cast()
        }
        _ => null(),
    }
}

unsafe extern "C" fn free_call_reply(reply: *mut CallReply) {
    let Some(one) = call_reply(reply) else { return };
    // The server frees the parts with the whole.
    if !one.is_root {
        return;
    }
    one.state = 0;
    if let Some(ctx) = context(one.ctx) {
        ctx.open_replies -= 1;
    }
    // SAFETY: it came from a box, and is freed once.
    drop(unsafe { Box::from_raw(reply) });
}

// The table.

unsafe extern "C" {
    fn simulated_variadic_replicate(ctx: *mut c_void, command: *const c_char, format: *const c_char, ...) -> c_int;
    fn simulated_variadic_call(ctx: *mut c_void, command: *const c_char, format: *const c_char, ...) -> *mut c_void;
    fn simulated_variadic_log(ctx: *mut c_void, level: *const c_char, format: *const c_char, ...);
}

struct Function(*const c_void);

// SAFETY: functions never change.
unsafe impl Sync for Function {}

macro_rules! functions {
    ($($name:literal => $function:path,)*) => {
        static FUNCTIONS: &[(&str, Function)] = &[$((concat!("RedisModule_", $name), Function($function as *const c_void)),)*];
    };
}

functions! {
    "Alloc" => alloc,
    "Calloc" => calloc,
    "Realloc" => realloc,
    "Free" => free,
    "SetModuleAttribs" => set_module_attribs,
    "IsModuleNameBusy" => is_module_name_busy,
    "SetModuleOptions" => set_module_options,
    "GetModuleOptionsAll" => get_module_options_all,
    "CreateCommand" => create_command,
    "GetCommand" => get_command,
    "SetCommandInfo" => set_command_info,
    "SetCommandACLCategories" => set_command_acl_categories,
    "AddACLCategory" => add_acl_category,
    "RegisterNumericConfig" => register_numeric_config,
    "LoadConfigs" => load_configs,
    "SubscribeToKeyspaceEvents" => subscribe_to_keyspace_events,
    "SubscribeToServerEvent" => subscribe_to_server_event,
    "RegisterCommandFilter" => register_command_filter,
    "UnregisterCommandFilter" => unregister_command_filter,
    "RegisterInfoFunc" => register_info_func,
    "InfoAddSection" => info_add_section,
    "InfoAddFieldCString" => info_add_field_cstring,
    "InfoAddFieldULongLong" => info_add_field_ulonglong,
    "GetServerInfo" => get_server_info,
    "ServerInfoGetFieldC" => server_info_get_field,
    "FreeServerInfo" => free_server_info,
    "ReplyWithError" => reply_with_error,
    "ReplyWithSimpleString" => reply_with_simple_string,
    "ReplyWithLongLong" => reply_with_long_long,
    "ReplyWithStringBuffer" => reply_with_string_buffer,
    "ReplyWithArray" => reply_with_array,
    "IsKeysPositionRequest" => is_keys_position_request,
    "KeyAtPosWithFlags" => key_at_pos_with_flags,
    "CreateString" => create_string,
    "FreeString" => free_string,
    "RetainString" => retain_string,
    "GetServerVersion" => get_server_version,
    "GetDetachedThreadSafeContext" => get_detached_thread_safe_context,
    "StringPtrLen" => simulated_string_place,
    "Milliseconds" => milliseconds,
    "CachedMicroseconds" => cached_microseconds,
    "GetSelectedDb" => get_selected_db,
    "GetContextFlags" => get_context_flags,
    "AvoidReplicaTraffic" => avoid_replica_traffic,
    "BlockClientOnKeys" => block_client_on_keys,
    "SetDisconnectCallback" => set_disconnect_callback,
    "GetBlockedClientPrivateData" => get_blocked_client_private_data,
    "UnblockClient" => unblock_client,
    "CreateTimer" => create_timer,
    "StopTimer" => stop_timer,
    "SelectDb" => select_db,
    "GetCurrentUserName" => get_current_user_name,
    "GetModuleUserFromUserName" => get_module_user_from_user_name,
    "ACLCheckCommandPermissions" => acl_check_command_permissions,
    "FreeModuleUser" => free_module_user,
    "GetNotifyKeyspaceEvents" => get_notify_keyspace_events,
    "Log" => simulated_variadic_log,
    "OpenKey" => open_key,
    "CloseKey" => close_key,
    "KeyType" => key_type,
    "ValueLength" => value_length,
    "UnlinkKey" => unlink_key,
    "GetAbsExpire" => get_abs_expire,
    "SetAbsExpire" => set_abs_expire,
    "StreamAdd" => stream_add,
    "StreamTrimByID" => stream_trim_by_id,
    "StreamTrimByLength" => stream_trim_by_length,
    "StreamIteratorStart" => stream_iterator_start,
    "StreamIteratorStop" => stream_iterator_stop,
    "StreamIteratorNextID" => stream_iterator_next_id,
    "StreamIteratorNextField" => stream_iterator_next_field,
    "Replicate" => simulated_variadic_replicate,
    "SignalModifiedKey" => signal_modified_key,
    "NotifyKeyspaceEvent" => notify_keyspace_event,
    "Call" => simulated_variadic_call,
    "CallReplyType" => call_reply_type,
    "CallReplyInteger" => call_reply_integer,
    "CallReplyLength" => call_reply_length,
    "CallReplyArrayElement" => call_reply_array_element,
    "CallReplyStringPtr" => call_reply_string_ptr,
    "FreeCallReply" => free_call_reply,
}
