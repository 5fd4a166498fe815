//! `[peers.N]`: other processes behind the same address, to which cancel requests are passed on.

use std::sync::Arc;

use gprxy_proto::policy::{PeerId, PeerSettings, Peers};

use super::databases::{endpoint, tls};
use super::draft::Draft;
use super::kinds::{Whole, Words};
use super::problem::{Problem, quoted};
use super::reader::{Entry, Reader};
use super::schema;

/// Zero: no peer.
pub(super) const NUMBER: Whole =
    Whole { what: "the number of this process among its peers,", min: 0, max: PeerId::MAX as u32 };

const HOST: &str = "a host name, an address or the directory of a Unix socket";

/// The number of this process, when it has one.
pub(super) fn own(reader: &mut Reader<'_>) -> Option<PeerId> {
    u16::try_from(reader.read("peer_id", &NUMBER)).ok().and_then(PeerId::new)
}

/// Reads all peers.
pub(crate) fn peers(entries: Vec<(String, Entry)>, own: Option<PeerId>, draft: &mut Draft) -> Peers {
    let mut peers = Peers::new();
    if own.is_none() && !entries.is_empty() {
        draft.warn("[peers] has no effect without peer_id, the number of this process among them");
    }
    for (name, entry) in entries {
        let place = format!("peers.{name}");
        let origin = entry.origin.clone();
        let id = number(&name);
        let mut fault = |found: String, expected: String| {
            draft.problem(Problem { setting: place.clone(), origin: origin.clone(), found, expected });
        };
        match id {
            None => fault(quoted(&name), format!("the number of a peer from 1 to {}", PeerId::MAX)),
            Some(id) if peers.contains_key(&id) => {
                fault("a second peer of this number".into(), "each number once".into());
            }
            Some(_) => {}
        }
        let header = match id {
            Some(id) => format!("[peers.{id}]"),
            None => format!("[peers.{}]", super::draft::toml_string(&name)),
        };
        let mut reader = Reader::new(&schema::PEERS, entry, &place, &header, draft);
        let settings = peer(&mut reader);
        reader.finish();
        if let (Some(id), Some(settings)) = (id, settings) {
            peers.insert(id, Arc::new(settings));
        }
    }
    peers
}

/// As it is written by whoever counts: `01` may be meant as 1, and as something else.
fn number(name: &str) -> Option<PeerId> {
    name.parse().ok().and_then(PeerId::new).filter(|id| id.to_string() == name)
}

fn peer(reader: &mut Reader<'_>) -> Option<PeerSettings> {
    const PORT: Whole = Whole { what: "a port number", min: 1, max: 65_535 };
    const REQUESTS: Whole = Whole { what: "a number of cancel requests", min: 1, max: 1000 };
    // The bounds of PORT are those of u16.
    let port = u16::try_from(reader.read("port", &PORT)).unwrap_or_default();
    let place = match reader.optional("host", &Words(HOST)) {
        Some(host) => match endpoint(host.trim(), port) {
            Ok(endpoint) => Some(endpoint),
            Err(_) => {
                reader.reject("host", quoted(&host), HOST);
                None
            }
        },
        None if reader.is_set("host") => None,
        None => {
            reader.require("host", HOST);
            None
        }
    };
    let (sslmode, sslrootcert) = tls(reader, place.as_slice());
    let pool_size = reader.read("pool_size", &REQUESTS);
    Some(PeerSettings { endpoint: place?, sslmode, sslrootcert, pool_size })
}
