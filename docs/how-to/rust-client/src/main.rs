//! Follows PVs, with nothing but the contracts in proto/, through lost connections and gateways
//! that stand still.
//!
//!     cargo run -- SERVER KEY NAME...

use std::{collections::HashMap, env, fmt::Display, process, time::Duration};

use prost::Message;
use tokio::time::{sleep, timeout};
use tonic::{transport::Endpoint, Code, Request, Status};

#[allow(dead_code, clippy::all)]
mod contracts {
    include!(concat!(env!("OUT_DIR"), "/contracts.rs"));
}
use contracts::drey::common::v1::{
    value::Data, ConnectionState, Freshness, PvRow, Selector, Value,
};
use contracts::drey::monitor::v1::{
    monitor_service_client::MonitorServiceClient, watch_pvs_response::Part, FreshnessChange,
    WatchPvsRequest, WatchPvsResponse, WatchSpec,
};
use contracts::google::rpc;

const RETRY: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_secs(5);

fn array<T>(elements: &[T], shown: impl Fn(&T) -> String) -> String {
    let texts = |some: &[T]| some.iter().map(&shown).collect::<Vec<_>>().join(", ");
    match elements {
        [first @ .., last] if first.len() >= 8 => {
            let (count, last) = (elements.len(), shown(last));
            format!("[{}, … {count} in all, the last {last}]", texts(&first[..3]))
        }
        all => format!("[{}]", texts(all)),
    }
}

fn numbers<T: Display>(elements: &[T]) -> String {
    array(elements, T::to_string)
}

/// Bytes that are not UTF-8, as escapes.
fn raw(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

/// A value of any type, as text.
fn shown(data: &Data) -> String {
    match data {
        Data::BoolValue(v) => v.to_string(),
        Data::Int8Value(v) | Data::Int16Value(v) | Data::Int32Value(v) => v.to_string(),
        Data::Int64Value(v) => v.to_string(),
        Data::Uint8Value(v) | Data::Uint16Value(v) | Data::Uint32Value(v) => v.to_string(),
        Data::Uint64Value(v) => v.to_string(),
        Data::Float32Value(v) => v.to_string(),
        Data::Float64Value(v) => v.to_string(),
        Data::StringValue(v) => format!("{v:?}"),
        Data::RawStringValue(v) => raw(v),
        Data::EnumValue(v) if v.label.is_empty() => format!("#{}", v.index),
        Data::EnumValue(v) => format!("{} ({})", v.label, v.index),
        Data::BoolArray(v) => numbers(&v.elements),
        Data::Int8Array(v) | Data::Int16Array(v) | Data::Int32Array(v) => numbers(&v.elements),
        Data::Int64Array(v) => numbers(&v.elements),
        Data::Uint8Array(v) => numbers(v),
        Data::Uint16Array(v) | Data::Uint32Array(v) | Data::EnumArray(v) => numbers(&v.elements),
        Data::Uint64Array(v) => numbers(&v.elements),
        Data::Float32Array(v) => numbers(&v.elements),
        Data::Float64Array(v) => numbers(&v.elements),
        Data::StringArray(v) if v.raw_elements.is_empty() => {
            array(&v.elements, |text| format!("{text:?}"))
        }
        Data::StringArray(v) => array(&v.raw_elements, |bytes| raw(bytes)),
        Data::Unsent(why) => format!("cannot be sent: {}", why.message),
        _ => "of a type that this program is too old for".into(),
    }
}

/// A value, or what is known instead of it. Zero, missing and disconnected are three things.
fn text(value: &Value) -> String {
    match (value.state(), &value.data) {
        (ConnectionState::NeverConnected, _) => "never connected".into(),
        (_, None) => "no value".into(),
        (ConnectionState::Disconnected, Some(data)) => format!("disconnected, was {}", shown(data)),
        (_, Some(data)) if value.freshness() == Freshness::Stale => {
            format!("{} (stale)", shown(data))
        }
        (_, Some(data)) => shown(data),
    }
}

/// How many elements are here; of strings they are bytes.
fn length(value: &Value) -> usize {
    match &value.data {
        Some(Data::StringValue(v)) => v.len(),
        Some(Data::RawStringValue(v) | Data::Uint8Array(v)) => v.len(),
        Some(Data::StringArray(v)) => v.elements.len().max(v.raw_elements.len()),
        Some(Data::BoolArray(v)) => v.elements.len(),
        Some(Data::Int8Array(v) | Data::Int16Array(v) | Data::Int32Array(v)) => v.elements.len(),
        Some(Data::Uint16Array(v) | Data::Uint32Array(v) | Data::EnumArray(v)) => v.elements.len(),
        Some(Data::Int64Array(v)) => v.elements.len(),
        Some(Data::Uint64Array(v)) => v.elements.len(),
        Some(Data::Float32Array(v)) => v.elements.len(),
        Some(Data::Float64Array(v)) => v.elements.len(),
        _ => 0,
    }
}

/// Put the next part of a large array or string to what is held of it.
fn append_part(held: &mut Value, more: Value) {
    match (&mut held.data, more.data) {
        (Some(Data::StringValue(v)), Some(Data::StringValue(m))) => v.push_str(&m),
        (
            Some(Data::RawStringValue(v) | Data::Uint8Array(v)),
            Some(Data::RawStringValue(m) | Data::Uint8Array(m)),
        ) => v.extend(m),
        // messages merge by appending what is repeated
        (Some(_), Some(m)) => {
            let bytes = Value { data: Some(m), ..Value::default() }.encode_to_vec();
            held.merge(bytes.as_slice()).expect("what was just encoded");
        }
        _ => (),
    }
}

/// Take what was sent of a channel: absent means unchanged.
fn replace(held: &mut Option<Value>, sent: Option<Value>) {
    match (held, sent) {
        (_, None) => (),
        (Some(held), Some(more)) if more.part.is_some_and(|part| part.first_element > 0) => {
            append_part(held, more);
        }
        (held, sent) => *held = sent,
    }
}

fn is_whole(value: &Value) -> bool {
    value.part.is_none_or(|part| length(value) as u64 == part.total_elements)
}

/// What this client holds, and where it stands.
struct Watch {
    spec: WatchSpec,
    rows: HashMap<u64, PvRow>,
    token: String,
}

impl Watch {
    /// Rows hold channels that changed, or the next part of a large value.
    fn replace(&mut self, rows: Vec<PvRow>) {
        for row in rows {
            let held = self.rows.entry(row.number).or_default();
            held.name = row.name;
            replace(&mut held.setpoint, row.setpoint);
            replace(&mut held.readback, row.readback);
            let roles = [("setpoint", &held.setpoint), ("readback", &held.readback)];
            let there = || roles.iter().filter_map(|(role, value)| Some((role, value.as_ref()?)));
            if there().all(|(_, value)| is_whole(value)) {
                let values: String =
                    there().map(|(role, value)| format!(" {role}={}", text(value))).collect();
                println!("{}{values}", held.name);
            }
        }
    }

    /// Mark how far values are to be believed: no value changes by it.
    fn freshen(&mut self, change: FreshnessChange) {
        for (number, row) in &mut self.rows {
            if change.all || change.pv_numbers.contains(number) {
                for value in [&mut row.setpoint, &mut row.readback].into_iter().flatten() {
                    value.set_freshness(change.freshness());
                }
            }
        }
        println!("{:?} {}", change.freshness(), change.reason);
    }

    /// Fold one message into the state.
    fn take(&mut self, message: WatchPvsResponse) {
        match message.part {
            Some(Part::BaselineBegin(begin)) if !begin.keeps_state => self.rows.clear(),
            Some(Part::Baseline(chunk)) => self.replace(chunk.rows),
            Some(Part::BaselineEnd(end)) => {
                self.token = end.token;
                println!("holding {} PVs", self.rows.len());
            }
            Some(Part::Diff(diff)) => self.replace(diff.rows),
            Some(Part::Checkpoint(checkpoint)) => self.token = checkpoint.token,
            Some(Part::Freshness(change)) => self.freshen(change),
            Some(Part::Left(left)) => {
                for pv in left.pvs {
                    self.rows.remove(&pv.number);
                }
            }
            Some(Part::ResyncRequired(resync)) => {
                println!("everything comes again: {}", resync.reason);
            }
            _ => (),
        }
    }

    /// Take messages until the connection is lost, or silent: a checkpoint is promised each second.
    async fn follow(&mut self, server: &str, key: &str) -> Result<(), Status> {
        let lost = |why: &dyn Display| Status::unavailable(why.to_string());
        // A connection of its own each time: the one before may lead to what stands still.
        // Loopback only: https:// and a ClientTlsConfig with the site's certificates elsewhere.
        let endpoint = Endpoint::from_shared(format!("http://{server}")).map_err(|e| lost(&e))?;
        let channel = endpoint.connect_timeout(SILENCE).connect().await.map_err(|e| lost(&e))?;
        let asked = WatchPvsRequest { spec: Some(self.spec.clone()), token: self.token.clone() };
        let mut request = Request::new(asked);
        let bearer = format!("Bearer {key}").parse();
        let bearer = bearer.map_err(|_| Status::unauthenticated("that is no key"))?;
        request.metadata_mut().insert("authorization", bearer);
        let mut client = MonitorServiceClient::new(channel);
        let begun = timeout(SILENCE, client.watch_pvs(request)).await;
        let mut messages = begun.map_err(|_| lost(&"silent"))??.into_inner();
        while let Some(message) =
            timeout(SILENCE, messages.message()).await.map_err(|_| lost(&"silent"))??
        {
            self.take(message);
        }
        Err(lost(&"the stream ended"))
    }
}

/// The reason of a refusal: branch on it, never on the text.
fn reason_of(status: &Status) -> String {
    let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
    let info = details.iter().find(|any| any.type_url.ends_with("/google.rpc.ErrorInfo"));
    info.and_then(|any| rpc::ErrorInfo::decode(any.value.as_slice()).ok())
        .map_or_else(String::new, |info| info.reason)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut words = env::args().skip(1);
    let (Some(server), Some(key)) = (words.next(), words.next()) else {
        eprintln!("usage: drey-watch SERVER KEY NAME...");
        process::exit(2);
    };
    let selector = Selector { names: words.collect(), ..Selector::default() };
    let spec = WatchSpec { selector: Some(selector), ..WatchSpec::default() };
    let mut watch = Watch { spec, rows: HashMap::new(), token: String::new() };
    while let Err(status) = watch.follow(&server, &key).await {
        match status.code() {
            // of another version, perhaps: begin anew
            _ if reason_of(&status) == "TOKEN_UNKNOWN" && !watch.token.is_empty() => {
                watch.token.clear();
            }
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::Unimplemented => {
                eprintln!("{status}");
                process::exit(1);
            }
            _ => (),
        }
        println!("lost: {}", status.message());
        sleep(RETRY).await;
    }
}
