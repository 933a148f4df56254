//! The state as bytes.

use archipelago_cluster::{Cluster, Command};
use archipelago_common::Error;

use crate::script::{OPEN_TASK, Script};

fn working() -> Script {
    let mut script = Script::after(OPEN_TASK);
    script.run("site/a claim 1\n site/a submit 1 1 a/d/x=1\n site/b claim 1");
    script
}

#[test]
fn a_restored_state_is_the_state() {
    let cluster = working().cluster;
    assert_eq!(Cluster::restore(&cluster.snapshot().unwrap()).unwrap(), cluster);
    for empty in [Cluster::default(), Cluster::founded()] {
        assert_eq!(Cluster::restore(&empty.snapshot().unwrap()).unwrap(), empty);
    }
}

#[test]
fn any_flipped_byte_is_refused() {
    let bytes = working().cluster.snapshot().unwrap();
    // The second byte is the format of the state: 2 where it was 3 is a state that format 2 could hold as well.
    for byte_idx in (0..bytes.len()).filter(|at| *at != 1) {
        let mut damaged = bytes.clone();
        damaged[byte_idx] ^= 1;
        assert!(Cluster::restore(&damaged).is_err(), "byte {byte_idx}");
    }
}

#[test]
fn a_torn_snapshot_is_refused() {
    let bytes = working().cluster.snapshot().unwrap();
    for length in 0..bytes.len() {
        assert!(Cluster::restore(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn a_snapshot_of_a_later_format_is_named_as_such() {
    let mut bytes = working().cluster.snapshot().unwrap();
    // The first byte is the format of the encoding, the second that of the state.
    bytes[1] = 8;
    let error = Cluster::restore(&bytes).unwrap_err();
    assert!(matches!(error, Error::UnknownVersion { found: 8, expected: 7, .. }), "{error}");
}

#[test]
fn commands_round_trip_as_log_entries() {
    for command in working().log {
        assert_eq!(Command::from_bytes(&command.to_bytes().unwrap()).unwrap(), command);
    }
    assert!(Command::from_bytes(b"not a command").is_err());
}
