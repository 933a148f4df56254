//! HTTP proxies: hospitals let TCP out through them alone. A tunnel is asked for with `CONNECT` (RFC 9110, section 9.3.6); what
//! flows through it is TLS between the two peers, of which the proxy sees nothing but sizes.

use std::fmt;

use archipelago_common::text::printable;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A proxy to dial through.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `host:port`.
    address: String,
    /// `user:password`.
    credentials: Option<String>,
    /// Hosts that are dialled directly: each a host, or a domain with a leading dot; `*` for all.
    except: Vec<String>,
}

impl Proxy {
    /// A proxy as `http://[user:password@]host[:port]`.
    ///
    /// # Errors  what is wrong with it, in words
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = || without_password(text);
        let rest = text
            .strip_prefix("http://")
            .ok_or_else(|| format!("`{}` does not begin with `http://`: only HTTP proxies are spoken to", found()))?;
        let rest = rest.trim_end_matches('/');
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => (Some(decoded(credentials)), host),
            None => (None, rest),
        };
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if host.is_empty() || host.contains(['/', ' ']) || (!has_port && host.contains(':') && !host.ends_with(']')) {
            return Err(format!("`{}` is no `http://[user:password@]host[:port]`", found()));
        }
        let address = if has_port { host.to_owned() } else { format!("{host}:80") };
        Ok(Self { address, credentials, except: Vec::new() })
    }

    /// The proxy that `HTTPS_PROXY` names, if it does, without those that `NO_PROXY` names; both in small letters as well.
    ///
    /// # Errors  what is wrong with it, in words
    pub fn from_environment() -> Result<Option<Self>, String> {
        let value = |name: &str| {
            [name.to_owned(), name.to_lowercase()].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default()
        };
        let named = value("HTTPS_PROXY");
        if named.is_empty() {
            return Ok(None);
        }
        let proxy = Self::parse(&named).map_err(|detail| format!("`HTTPS_PROXY`: {detail}"))?;
        Ok(Some(proxy.except(&value("NO_PROXY"))))
    }

    /// The same, but for the hosts of a list such as `localhost,.hospital.org`.
    #[must_use]
    pub fn except(mut self, hosts: &str) -> Self {
        self.except = hosts.split(',').map(|host| host.trim().to_lowercase()).filter(|host| !host.is_empty()).collect();
        self
    }

    /// Whether `address` (`host:port`) is dialled through this proxy.
    pub(crate) fn is_for(&self, address: &str) -> bool {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).to_lowercase();
        !self.except.iter().any(|except| {
            let domain = except.trim_start_matches('.');
            except == "*" || host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
        })
    }

    /// A tunnel to `address`, or why there is none.
    pub(crate) async fn connect(&self, address: &str) -> Result<TcpStream, String> {
        let said = |what: &str| format!("proxy `{}`: {what}", self.address);
        let mut socket = TcpStream::connect(&self.address).await.map_err(|e| said(&e.to_string()))?;
        let authorization = match &self.credentials {
            Some(credentials) => format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials)),
            None => String::new(),
        };
        let request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n{authorization}\r\n");
        socket.write_all(request.as_bytes()).await.map_err(|e| said(&e.to_string()))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= HEAD_BYTES {
                return Err(said("its answer has no end"));
            }
            // Byte by byte: what follows the head is the peer's.
            head.push(socket.read_u8().await.map_err(|_| said("it hung up without an answer"))?);
        }
        let status = String::from_utf8_lossy(&head).lines().next().map(|line| printable(line, 100)).unwrap_or_default();
        match status.split(' ').nth(1) {
            Some(code) if code.starts_with('2') => Ok(socket),
            Some("407") => Err(said("it asks for a user and a password: `http://user:password@host:port`")),
            Some("403") => Err(said("it does not allow this address and port; ask whoever runs it")),
            _ => Err(said(&format!("it answered `{status}`"))),
        }
    }
}

/// Without the password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.address)
    }
}

/// Without the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => text.to_owned(),
    }
}

/// `%40` is `@`, and so on.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let value = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The longest answer that is read.
const HEAD_BYTES: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_with_its_credentials_and_never_shown_with_them() {
        let proxy = Proxy::parse("http://ann:p%40ss@proxy.hospital.org:3128/").unwrap();
        assert_eq!(proxy.address, "proxy.hospital.org:3128");
        assert_eq!(proxy.credentials.as_deref(), Some("ann:p@ss"));
        assert_eq!(format!("{proxy} {proxy:?}"), "http://proxy.hospital.org:3128 Proxy(proxy.hospital.org:3128)");
        assert_eq!(Proxy::parse("http://proxy").unwrap().address, "proxy:80");
        assert_eq!(Proxy::parse("http://[::1]:8").unwrap().address, "[::1]:8");
        for wrong in ["https://proxy:1", "proxy:1", "http://", "http://a:b@", "http://host:port"] {
            let error = Proxy::parse(wrong).unwrap_err();
            assert!(!error.contains("a:b"), "{error}");
        }
    }

    #[test]
    fn hosts_that_are_excepted_are_dialled_directly() {
        let proxy = Proxy::parse("http://p:1").unwrap().except("localhost, .hospital.org,10.0.0.1");
        for direct in ["localhost:7101", "a.Hospital.org:443", "hospital.org:443", "10.0.0.1:1"] {
            assert!(!proxy.is_for(direct), "{direct}");
        }
        for through in ["atlas.org:443", "nothospital.org:443", "10.0.0.11:1"] {
            assert!(proxy.is_for(through), "{through}");
        }
        assert!(!Proxy::parse("http://p:1").unwrap().except("*").is_for("atlas.org:443"));
    }
}
