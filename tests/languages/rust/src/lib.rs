//! Compiles what the stock generators make of the contracts; nothing else.
#![allow(clippy::all)]
include!(concat!(env!("OUT_DIR"), "/drey.rs"));
