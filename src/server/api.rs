//! The functions of the server's raw API.
//!
//! The server fills in the pointers when it loads the module. Which ones exist depends on the server. Those that the module
//! needs are checked at load, so a missing one later is a bug.

use std::ffi::{CStr, c_int};

use limiter::error::{self, Error};
use redis_module::raw;

pub const OK: c_int = raw::REDISMODULE_OK as c_int;
pub const ERR: c_int = raw::REDISMODULE_ERR as c_int;

/// A function of the server's API.
pub fn api<F>(pointer: Option<F>) -> Result<F, Error> {
    pointer.ok_or(error::INTERNAL)
}

/// The first API function that this module needs and this server lacks.
pub fn missing() -> Option<&'static CStr> {
    macro_rules! first_missing {
        ($($name:ident)*) => {
            // SAFETY: the pointers are set once, before the module's load function runs; they are copied, not borrowed.
            $(if unsafe { raw::$name.map(|_| ()) }.is_none() {
                return Some(c_name(concat!(stringify!($name), "\0")));
            })*
        };
    }
    first_missing! {
        RedisModule_SetModuleOptions RedisModule_SetCommandInfo RedisModule_RegisterNumericConfig
        RedisModule_IsKeysPositionRequest RedisModule_KeyAtPosWithFlags
        RedisModule_ReplyWithError RedisModule_ReplyWithArray RedisModule_ReplyWithLongLong
        RedisModule_ReplyWithStringBuffer RedisModule_ReplyWithSimpleString
        RedisModule_StringPtrLen RedisModule_CreateString RedisModule_FreeString
        RedisModule_Milliseconds RedisModule_GetSelectedDb RedisModule_GetContextFlags
        RedisModule_OpenKey RedisModule_CloseKey RedisModule_KeyType RedisModule_ValueLength
        RedisModule_UnlinkKey RedisModule_GetAbsExpire RedisModule_SetAbsExpire
        RedisModule_StreamAdd RedisModule_StreamTrimByID RedisModule_StreamTrimByLength
        RedisModule_StreamIteratorStart RedisModule_StreamIteratorStop
        RedisModule_StreamIteratorNextID RedisModule_StreamIteratorNextField
        RedisModule_Replicate RedisModule_SignalModifiedKey
        RedisModule_Call RedisModule_CallReplyType RedisModule_CallReplyStringPtr RedisModule_FreeCallReply
        RedisModule_NotifyKeyspaceEvent RedisModule_GetNotifyKeyspaceEvents
        RedisModule_BlockClientOnKeys RedisModule_SetDisconnectCallback RedisModule_GetBlockedClientPrivateData
        RedisModule_UnblockClient RedisModule_CreateTimer RedisModule_StopTimer RedisModule_SelectDb
        RedisModule_AvoidReplicaTraffic RedisModule_RetainString RedisModule_GetCurrentUserName
        RedisModule_GetModuleUserFromUserName RedisModule_ACLCheckCommandPermissions RedisModule_FreeModuleUser
        RedisModule_CallReplyInteger RedisModule_CallReplyLength RedisModule_CallReplyArrayElement
    }
    None
}

fn c_name(text: &'static str) -> &'static CStr {
    CStr::from_bytes_with_nul(text.as_bytes()).unwrap_or_default()
}
