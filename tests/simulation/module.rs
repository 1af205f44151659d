//! The module: a copy of its file, loaded as a server loads it, and what it has registered.

use std::ffi::{CStr, CString, c_char, c_int, c_longlong, c_void};
use std::path::Path;
use std::ptr::null_mut;

use redis_module::raw;

use crate::api::{self, Kind};
use crate::server::Server;
use crate::stream::Text;
use crate::strings;

pub type CommandFunc = unsafe extern "C" fn(*mut raw::RedisModuleCtx, *mut *mut raw::RedisModuleString, c_int) -> c_int;
pub type KeyEventFunc =
    unsafe extern "C" fn(*mut raw::RedisModuleCtx, c_int, *const c_char, *mut raw::RedisModuleString) -> c_int;
pub type ServerEventFunc = unsafe extern "C" fn(*mut raw::RedisModuleCtx, raw::RedisModuleEvent, u64, *mut c_void);
pub type FilterFunc = unsafe extern "C" fn(*mut raw::RedisModuleCommandFilterCtx);
pub type InfoFunc = unsafe extern "C" fn(*mut raw::RedisModuleInfoCtx, c_int);
pub type GetFunc = unsafe extern "C" fn(*const c_char, *mut c_void) -> c_longlong;
pub type SetFunc =
    unsafe extern "C" fn(*const c_char, c_longlong, *mut c_void, *mut *mut raw::RedisModuleString) -> c_int;

#[derive(Clone, Debug)]
pub struct Registered {
    pub name: CString,
    pub func: CommandFunc,
    pub flags: String,
    pub writes: bool,
    pub denies_oom: bool,
    pub keys: [c_int; 3],
    pub arity: c_int,
    /// Key specs, arguments and texts, as `COMMAND DOCS` would show them.
    pub info: String,
    pub categories: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Setting {
    pub name: String,
    pub default: i64,
    pub min: i64,
    pub max: i64,
    pub flags: u32,
    pub get: GetFunc,
    pub set: SetFunc,
}

/// How the server is while the module is loaded, beyond its flavor.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    pub args: Vec<Text>,
    /// Functions of the API that are missing, or that fail.
    pub lacks: Vec<String>,
    pub fails: Vec<String>,
    /// Commands with another name.
    pub renamed: Vec<String>,
    pub node_bytes: Option<String>,
    /// What the configuration says.
    pub settings: Vec<(String, i64)>,
    /// The ACL category is there already.
    pub has_category: bool,
    pub valkey: Option<Option<String>>,
    pub options: Option<c_int>,
}

#[derive(Default)]
pub struct Module {
    handle: usize,
    pub conditions: Conditions,
    pub commands: Vec<Box<Registered>>,
    pub settings: Vec<Setting>,
    pub key_events: Option<(c_int, KeyEventFunc)>,
    pub server_events: Vec<(u64, ServerEventFunc)>,
    pub filter: Option<FilterFunc>,
    pub info: Option<InfoFunc>,
    pub options: c_int,
    pub category: Option<String>,
    pub name: String,
    pub version: c_int,
    pub log: Vec<String>,
    /// The time that it was told last.
    pub saw_last: i64,
    /// Bytes that it has allocated.
    pub memory: i64,
}

impl Module {
    pub fn command(&self, name: &[u8]) -> Option<&Registered> {
        // Nearly always it is written as it was registered.
        let find =
            |is: fn(&[u8], &[u8]) -> bool| self.commands.iter().find(|command| is(command.name.to_bytes(), name));
        find(|one, other| one == other).or_else(|| find(|one, other| one.eq_ignore_ascii_case(other))).map(|one| &**one)
    }

    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the handle is that of a library that is never closed while this is in use.
        unsafe { libc::dlsym(self.handle as *mut c_void, name.as_ptr()) }
    }

    /// What it has registered, without the module itself.
    pub fn facts(&self) -> Self {
        Self {
            commands: self.commands.clone(),
            settings: self.settings.clone(),
            key_events: self.key_events,
            server_events: self.server_events.clone(),
            filter: self.filter,
            info: self.info,
            options: self.options,
            category: self.category.clone(),
            name: self.name.clone(),
            version: self.version,
            log: self.log.clone(),
            ..Self::default()
        }
    }

    /// Everything that the module has told the server about itself.
    pub fn describe(&self) -> String {
        let mut lines = vec![format!("{} version {}, options {:#x}", self.name, self.version, self.options)];
        lines.extend(self.category.iter().map(|category| format!("category {category}")));
        for command in &self.commands {
            let Registered { name, flags, keys, arity, info, categories, .. } = &**command;
            let name = name.to_string_lossy();
            lines.push(format!(
                "{name}, arity {arity}, flags {flags}, keys {keys:?}, categories {categories:?}\n{info}"
            ));
        }
        for Setting { name, default, min, max, flags, .. } in &self.settings {
            lines.push(format!("setting {name} {default} ({min}..={max}) flags {flags}"));
        }
        lines.push(format!("key events {:#x}", self.key_events.map_or(0, |events| events.0)));
        lines.push(format!("events {:?}", self.server_events.iter().map(|event| event.0).collect::<Vec<_>>()));
        lines.push(format!("filter {}, info {}", self.filter.is_some(), self.info.is_some()));
        lines.extend(self.log.iter().map(|line| format!("log {line}")));
        lines.join("\n") + "\n"
    }
}

/// Another copy of the module in this process, with statics of its own: what `loadmodule` does. Errors are what the log says.
pub fn load(file: &Path, server: &mut Server, conditions: Conditions) -> Result<(), String> {
    let handle = open_copy(file)?;
    let args = conditions.args.clone();
    server.module = Some(Box::new(Module { handle: handle as usize, conditions, ..Module::default() }));
    let on_load = server.module.as_ref().map_or(null_mut(), |module| module.symbol(c"RedisModule_OnLoad"));
    if on_load.is_null() {
        return Err("no RedisModule_OnLoad".into());
    }
    // SAFETY: every module has this function, with this signature.
    let on_load: CommandFunc = unsafe { std::mem::transmute(on_load) };
    server.begin();
    let ctx = api::enter(server, Kind::Load, 0);
    let mut strings: Vec<_> = args.iter().map(strings::lend).collect();
    // SAFETY: the context and the strings live until the function returns.
    let status = unsafe { on_load(ctx.cast(), strings.as_mut_ptr().cast(), strings.len() as c_int) };
    strings.into_iter().for_each(strings::take_back);
    api::leave(server, ctx);
    server.end();
    match (status, &server.module) {
        (0, _) => Ok(()),
        (_, Some(module)) => Err(module.log.join("\n")),
        _ => Err("no module".into()),
    }
}

/// `MODULE UNLOAD`. Errors are what the log says.
pub fn unload(server: &mut Server) -> Result<(), String> {
    let on_unload = server.module.as_ref().map_or(null_mut(), |module| module.symbol(c"RedisModule_OnUnload"));
    if on_unload.is_null() {
        return Err("no RedisModule_OnUnload".into());
    }
    // SAFETY: the function has this signature.
    let on_unload: unsafe extern "C" fn(*mut raw::RedisModuleCtx) -> c_int = unsafe { std::mem::transmute(on_unload) };
    let ctx = api::enter(server, Kind::Load, 0);
    // SAFETY: the context lives until the function returns.
    let status = unsafe { on_unload(ctx.cast()) };
    api::leave(server, ctx);
    match (status, &mut server.module) {
        (0, _) => Ok(()),
        (_, Some(module)) => Err(module.log.pop().unwrap_or_default()),
        _ => Err("no module".into()),
    }
}

/// A library that is opened under another name has statics of its own.
fn open_copy(file: &Path) -> Result<*mut c_void, String> {
    let copy =
        tempfile::Builder::new().prefix("simulated-").suffix(".so").tempfile().map_err(|error| error.to_string())?;
    std::fs::copy(file, copy.path()).map_err(|error| format!("{}: {error}", file.display()))?;
    let path = CString::new(copy.path().as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the library is a module of Redis, which does nothing when it is opened.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        if handle.is_null() {
            return Err(CStr::from_ptr(libc::dlerror()).to_string_lossy().into_owned());
        }
        Ok(handle)
    }
}
