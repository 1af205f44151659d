//! Registers commands: the C form of how they describe themselves.

use std::ffi::{CStr, CString, c_int};
use std::ptr::{null, null_mut};

use redis_module::{Context, raw};

use super::api::OK;
use super::command::{Argument, ArgumentKind, Command, Keys, Spec};
use super::dispatch;

/// Registers one command with everything the server wants to know about it. None if the server does not accept it.
pub fn register<C: Command>(ctx: &Context, category: Option<&CStr>) -> Option<()> {
    let Spec { name, flags, arity, keys, summary, complexity, args, categories } = C::SPEC;
    let (first, last, step) = match keys {
        Keys::Range { last, .. } => (1, if last < 0 { last } else { last.saturating_add(1) }, 1),
        // The arguments tell.
        Keys::None | Keys::Counted { .. } => (0, 0, 0),
    };
    // SAFETY: the context is that of the module that is being loaded, and the server copies the texts.
    let command = unsafe {
        let create = raw::RedisModule_CreateCommand?;
        if create(ctx.ctx, name.as_ptr(), Some(dispatch::run::<C>), flags.as_ptr(), first, last, step) != OK {
            return None;
        }
        raw::RedisModule_GetCommand?(ctx.ctx, name.as_ptr())
    };

    let version = raw::RedisModuleCommandInfoVersion {
        version: 1,
        sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
        sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
        sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
    };
    let mut key_specs = [key_spec(keys), key_spec(Keys::None)];
    let mut trees = Vec::new();
    let info = raw::RedisModuleCommandInfo {
        version: &raw const version,
        summary: summary.as_ptr(),
        complexity: complexity.as_ptr(),
        since: SINCE.as_ptr(),
        history: null_mut(),
        tips: null(),
        arity,
        key_specs: key_specs.as_mut_ptr(),
        args: raw_arguments(args, &mut trees),
    };
    // SAFETY: `info` and all it points to outlive the call, lists end with an empty element, and the server copies all.
    if unsafe { raw::RedisModule_SetCommandInfo?(command, &raw const info) } != OK {
        return None;
    }

    // Missing before 7.2, where module commands have no categories at all.
    // SAFETY: the pointer is copied.
    let Some(set_categories) = (unsafe { raw::RedisModule_SetCommandACLCategories }) else {
        return Some(());
    };
    let mut all = categories.to_bytes().to_vec();
    if let Some(category) = category {
        all.push(b' ');
        all.extend(category.to_bytes());
    }
    let all = CString::new(all).ok()?;
    // SAFETY: the command is the one just registered; the server only reads the text.
    if unsafe { set_categories(command, all.as_ptr()) } != OK {
        return None;
    }
    Some(())
}

const SINCE: &CStr = c"0.1.0";

/// The C form of a command's keys. That of no keys ends a list.
fn key_spec(keys: Keys) -> raw::RedisModuleCommandKeySpec {
    // SAFETY: a plain C struct of integers, pointers and unions of integers, for which all zeros is valid.
    let mut spec: raw::RedisModuleCommandKeySpec = unsafe { std::mem::zeroed() };
    let (flags, find_keys_type, fk) = match keys {
        Keys::None => return spec,
        Keys::Range { last, flags } => (
            flags,
            raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE,
            raw::RedisModuleCommandKeySpec__bindgen_ty_2 {
                range: raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_1 {
                    lastkey: last,
                    keystep: 1,
                    limit: 0,
                },
            },
        ),
        Keys::Counted { flags } => (
            flags,
            raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_KEYNUM,
            raw::RedisModuleCommandKeySpec__bindgen_ty_2 {
                keynum: raw::RedisModuleCommandKeySpec__bindgen_ty_2__bindgen_ty_2 {
                    keynumidx: 0,
                    firstkey: 1,
                    keystep: 1,
                },
            },
        ),
    };
    spec.flags = flags.into();
    spec.begin_search_type = raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX;
    spec.bs.index = raw::RedisModuleCommandKeySpec__bindgen_ty_1__bindgen_ty_1 { pos: 1 };
    spec.find_keys_type = find_keys_type;
    spec.fk = fk;
    spec
}

/// The C form of an argument tree. `trees` keeps the lists alive.
fn raw_arguments(
    args: &[Argument],
    trees: &mut Vec<Vec<raw::RedisModuleCommandArg>>,
) -> *mut raw::RedisModuleCommandArg {
    let mut list = Vec::new();
    for arg in args {
        let (kind, children): (_, &[Argument]) = match arg.kind {
            ArgumentKind::Key => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY, &[]),
            ArgumentKind::Integer => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_INTEGER, &[]),
            ArgumentKind::String => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_STRING, &[]),
            ArgumentKind::Token => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PURE_TOKEN, &[]),
            ArgumentKind::OneOf(children) => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_ONEOF, children),
            ArgumentKind::Block(children) => (raw::RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_BLOCK, children),
        };
        // A key names its key spec; anything else must name none.
        let key_spec_index = if matches!(arg.kind, ArgumentKind::Key) { 0 } else { -1 };
        list.push(raw::RedisModuleCommandArg {
            name: arg.name.as_ptr(),
            type_: kind,
            key_spec_index,
            token: arg.token.map_or(null(), CStr::as_ptr),
            summary: null(),
            since: null(),
            flags: arg.flags as c_int,
            deprecated_since: null(),
            subargs: if children.is_empty() { null_mut() } else { raw_arguments(children, trees) },
            display_text: null(),
        });
    }
    // SAFETY: a plain C struct of integers and pointers; all zeros ends the list.
    list.push(unsafe { std::mem::zeroed() });
    let start = list.as_mut_ptr();
    trees.push(list);
    start
}
