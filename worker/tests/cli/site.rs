//! A site's directory: identity, policy, configuration.

use std::{net::UdpSocket, path::Path};

use archipelago_common::{Name, Principal};
use archipelago_transport::ca::{Authority, Validity};

use super::Bench;

/// An authority of a consortium named `test`.
pub(crate) fn authority() -> Authority {
    Authority::create(Name::parse("name", "test").unwrap(), Validity::days(1)).unwrap().0
}

/// Writes the identity of `principal` and a configuration of site `north` that calls coordinator 1 at `address`.
pub(crate) fn write_site(bench: &Bench, authority: &Authority, principal: &str, address: &str) {
    let principal: Principal = principal.parse().unwrap();
    let issued = authority.issue(&principal, Validity::days(1)).unwrap();
    issued.write(&bench.path("site.pem"), &bench.path("site.key")).unwrap();
    write(&bench.path("ca.pem"), authority.certificate());
    let config = format!(
        "site = \"north\"\nca = \"ca.pem\"\ncertificate = \"site.pem\"\nkey = \"site.key\"\n\
         [coordinators]\n1 = \"{address}\"\n[data]\npath = \"cells.h5ad\"\ndataset = \"pbmc\"\nbatches = [\"c\"]\n"
    );
    write(&bench.path("site.toml"), &config);
}

/// An address on this machine where nobody listens.
pub(crate) fn silent_address() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
